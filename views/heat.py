"""A heat map of layers × kinds of tensors, folded until it fits, and the scale of its heat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..reports.diff_report import together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..reports.diff_report import Figures

LEVELS = 4
"""Steps of heat that a screen tells apart."""

_LEAST_SPAN = 10.0
"""The coldest and the hottest of a scale differ by this factor at least: what is nearly the same looks the same."""


@dataclass(frozen=True)
class HeatMap:
    """One stack: ``rows`` are ranges of layers, ``columns`` kinds or groups of them, and not every cell has to be."""

    stack: str
    rows: tuple[range, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[range, str], Figures]

    def whole(self, column: str) -> Figures:
        """A column's figures over all layers."""
        return together(figures for (_, name), figures in self.cells.items() if name == column)


@dataclass(frozen=True)
class Scale:
    """From a distance, as relative L2 is, to heat, logarithmic from ``low`` to ``high``; 0 if nothing differs."""

    low: float
    high: float

    def heat(self, relative_l2: float) -> float:
        """0 for the coldest, 1 for the hottest."""
        if relative_l2 <= self.low:
            return 0.0
        return 1.0 if relative_l2 >= self.high else math.log(relative_l2 / self.low) / math.log(self.high / self.low)

    def level(self, relative_l2: float) -> int:
        """One of the LEVELS, from 0."""
        return next((level for level, edge in enumerate(self.edges) if relative_l2 <= edge), LEVELS - 1)

    @property
    def edges(self) -> tuple[float, ...]:
        """The upper ends of the levels."""
        steps = [self.low * (self.high / self.low) ** (step / LEVELS) for step in range(1, LEVELS)] if self.low else []
        return (*steps, self.high)


def scale_of(figures: Iterable[Figures]) -> Scale:
    """The scale that fits what is shown."""
    return scale_between(each.relative_l2 for each in figures)


def scale_between(found: Iterable[float | None]) -> Scale:
    """The scale that fits numbers; zeros, infinity and None are not on it."""
    values = [value for value in found if value and math.isfinite(value)]
    if not values:
        return Scale(0.0, 0.0)
    return Scale(min(*values, max(values) / _LEAST_SPAN), max(values))


def heat_maps(
    cells: Mapping[tuple[str, int, str], Figures], *, most_columns: int | None, most_rows: int | None
) -> list[HeatMap]:
    """A map a stack of compared layers, from figures by (stack, layer, kind).

    Neighbouring layers share a row, and kinds a column, where they must.
    """
    stacks: dict[str, dict[tuple[int, str], Figures]] = {}
    for (stack, layer, kind), figures in cells.items():
        stacks.setdefault(stack, {})[layer, kind] = figures
    return [_heat_map(stack, cells, most_columns, most_rows) for stack, cells in stacks.items()]


def _heat_map(
    stack: str, cells: Mapping[tuple[int, str], Figures], most_columns: int | None, most_rows: int | None
) -> HeatMap:
    column_of = _fold_kinds([kind for _, kind in cells], most_columns)
    layers = sorted({layer for layer, _ in cells})
    count = layers[-1] + 1
    each = 1 if most_rows is None else -(-count // most_rows)
    parts: dict[tuple[range, str], list[Figures]] = {}
    for (layer, kind), figures in cells.items():
        first = layer - layer % each
        parts.setdefault((range(first, min(first + each, count)), column_of[kind]), []).append(figures)
    return HeatMap(
        stack=stack,
        rows=tuple(sorted({row for row, _ in parts}, key=lambda row: row.start)),
        columns=tuple(dict.fromkeys(column_of.values())),
        cells={key: together(found) for key, found in parts.items()},
    )


def _fold_kinds(kinds: Sequence[str], most: int | None) -> dict[str, str]:
    """The column of each kind: its own, else its module's, else that of a group such as attention."""
    foldings: tuple[Callable[[str], str], ...] = (str, module_of, group_of)
    for fold in foldings:
        columns = {kind: fold(kind) for kind in kinds}
        if most is None or len(set(columns.values())) <= most:
            break
    return columns


def module_of(kind: str) -> str:
    """The module that a kind is part of: ``attn.c_attn`` for its weight and its bias."""
    return kind.removesuffix(".bias")


def group_of(kind: str) -> str:
    """Attention, mlp, norm or other, by the words in a kind's name."""
    if "norm" in kind or kind.startswith("ln") or ".ln" in kind:
        return "norm"
    if "attn" in kind or "attention" in kind:
        return "attention"
    if any(word in kind for word in ("mlp", "ffn", "feed_forward", "expert", "moe", "fc1", "fc2", "intermediate")):
        return "mlp"
    return "other"
