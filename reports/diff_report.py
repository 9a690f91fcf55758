"""What a comparison of two models found: figures for each tensor, and for groups of them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..ops.distance import SUMS

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from typing import TypeVar

    Key = TypeVar("Key", bound=Hashable)

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class Figures:
    """How far apart tensors are, A being the reference. Sums are over elements that are finite in both.

    ``numeric`` is false where nothing has a distance: integers are only the same or not. ``distance_squared`` is
    ‖a-b‖², ``largest_change`` max |a-b|.
    """

    elements: int
    changed: int
    numeric: bool
    norm_a_squared: float
    norm_b_squared: float
    dot: float
    distance_squared: float
    largest_change: float
    nonfinite_a: int
    nonfinite_b: int

    @property
    def identical(self) -> bool:
        """Whether no element differs."""
        return self.changed == 0

    @property
    def changed_share(self) -> float:
        """Part of the elements that differ, 0 to 1."""
        return self.changed / self.elements if self.elements else 0.0

    @property
    def cosine(self) -> float | None:
        """⟨a, b⟩ / (‖a‖·‖b‖), exactly 1 where nothing differs; None where one of the two is zero, or is no number."""
        size = math.sqrt(self.norm_a_squared) * math.sqrt(self.norm_b_squared)
        if not self.numeric or size == 0 or not math.isfinite(size):
            return None
        return 1.0 if self.identical else min(max(self.dot / size, -1.0), 1.0)

    @property
    def relative_l2(self) -> float | None:
        """‖a-b‖ / ‖a‖: 0 where nothing differs, infinity where only A is zero, None where there are no numbers."""
        if not self.numeric or not math.isfinite(self.norm_a_squared + self.distance_squared):
            return None
        if self.identical or self.distance_squared == 0:
            return 0.0
        norm = math.sqrt(self.norm_a_squared)
        return math.sqrt(self.distance_squared) / norm if norm else math.inf

    def as_json(self) -> dict[str, object]:
        """Every figure; null stands for what is undefined or infinite."""
        return {
            "elements": self.elements,
            "changed": self.changed,
            "changed_share": self.changed_share,
            "cosine": self.cosine,
            "relative_l2": _finite(self.relative_l2),
            "norm_a": self._root(self.norm_a_squared),
            "norm_b": self._root(self.norm_b_squared),
            "distance": self._root(self.distance_squared),
            "largest_change": _finite(self.largest_change) if self.numeric else None,
            "nonfinite_a": self.nonfinite_a,
            "nonfinite_b": self.nonfinite_b,
        }

    def _root(self, squared: float) -> float | None:
        return _finite(math.sqrt(squared)) if self.numeric else None


def figures_of(sums: Sequence[float], *, elements: int, numeric: bool) -> Figures:
    """The figures of a tensor from what `plait.ops.distance.distances` gives."""
    of = dict(zip(SUMS, sums, strict=True))
    return Figures(
        elements=elements,
        changed=int(of["changed"]),
        numeric=numeric,
        norm_a_squared=of["a_squared"],
        norm_b_squared=of["b_squared"],
        dot=of["dot"],
        distance_squared=of["distance_squared"],
        largest_change=of["largest"],
        nonfinite_a=int(of["nonfinite_a"]),
        nonfinite_b=int(of["nonfinite_b"]),
    )


def together(parts: Iterable[Figures]) -> Figures:
    """The figures of several tensors as if they were one; in any order the same to the last bit."""
    found = list(parts)
    return Figures(
        elements=sum(part.elements for part in found),
        changed=sum(part.changed for part in found),
        numeric=any(part.numeric for part in found),
        norm_a_squared=_sum(part.norm_a_squared for part in found),
        norm_b_squared=_sum(part.norm_b_squared for part in found),
        dot=_sum(part.dot for part in found),
        distance_squared=_sum(part.distance_squared for part in found),
        largest_change=max((part.largest_change for part in found), default=0.0),
        nonfinite_a=sum(part.nonfinite_a for part in found),
        nonfinite_b=sum(part.nonfinite_b for part in found),
    )


@dataclass(frozen=True, slots=True)
class TensorDiff:
    """One tensor of both models.

    ``stack`` and ``layer`` are None outside of the layers. ``suffix`` is the name inside of the layer, or the whole
    name. ``shape`` is what was compared: the common rows where ``rows`` (A's and B's) is given.
    """

    name: str
    stack: str | None
    layer: int | None
    suffix: str
    shape: tuple[int, ...]
    dtype_a: str
    dtype_b: str
    rows: tuple[int, int] | None
    figures: Figures

    @property
    def kind(self) -> str:
        """What it has in common with tensors of other layers: ``mlp.experts.*.up_proj``, ``self_attn.q_proj.bias``."""
        return kind_of(self.suffix)

    def as_json(self) -> dict[str, object]:
        """One JSON object."""
        rows_a, rows_b = self.rows or (None, None)
        return {
            "name": self.name,
            "stack": self.stack,
            "layer": self.layer,
            "kind": self.kind,
            "shape": list(self.shape),
            "dtype_a": self.dtype_a,
            "dtype_b": self.dtype_b,
            "rows_a": rows_a,
            "rows_b": rows_b,
            **self.figures.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Unlike:
    """A tensor that both models have and that cannot be compared; ``what`` differs, its shape or its dtype."""

    name: str
    what: str
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class StackLayers:
    """A stack of layers and how many each model has of it, 0 where it has none."""

    prefix: str
    layers_a: int
    layers_b: int


@dataclass(frozen=True)
class DiffReport:
    """How far model B is from model A.

    ``tensors`` are in A's order. ``notes`` say what was compared in another way than as it stands. Seconds, bytes and
    memory are those of this run; everything else is the same for any workers and budget.
    """

    a: str
    b: str
    tensors: tuple[TensorDiff, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    unlike: tuple[Unlike, ...]
    stacks: tuple[StackLayers, ...]
    notes: tuple[str, ...]
    workers: int
    bytes_read: int
    seconds: float
    predicted_peak_bytes: int
    measured_peak_bytes: int

    @cached_property
    def total(self) -> Figures:
        """All compared tensors together."""
        return together(tensor.figures for tensor in self.tensors)

    @cached_property
    def kinds(self) -> Mapping[tuple[str | None, str], Figures]:
        """Figures by (stack, kind), in A's order."""
        return grouped(((tensor.stack, tensor.kind), tensor.figures) for tensor in self.tensors)

    @cached_property
    def cells(self) -> Mapping[tuple[str, int, str], Figures]:
        """Figures by (stack, layer, kind): the heat map."""
        return grouped(
            ((tensor.stack, tensor.layer, tensor.kind), tensor.figures)
            for tensor in self.tensors
            if tensor.stack is not None and tensor.layer is not None
        )

    @cached_property
    def most_changed(self) -> tuple[TensorDiff, ...]:
        """The tensors that differ, the farthest apart first; those without numbers by their share of changes."""
        differing = [tensor for tensor in self.tensors if not tensor.figures.identical]
        return tuple(sorted(differing, key=farthest_first))

    def as_json(self) -> dict[str, object]:
        """All figures as one JSON object: the same bytes for any workers and budget."""
        return {
            "a": self.a,
            "b": self.b,
            "total": {
                "tensors": len(self.tensors),
                "identical_tensors": sum(tensor.figures.identical for tensor in self.tensors),
                **self.total.as_json(),
            },
            "stacks": [
                {"prefix": stack.prefix, "layers_a": stack.layers_a, "layers_b": stack.layers_b}
                for stack in self.stacks
            ],
            "kinds": [{"stack": stack, "kind": kind, **each.as_json()} for (stack, kind), each in self.kinds.items()],
            "cells": [
                {"stack": stack, "layer": layer, "kind": kind, **each.as_json()}
                for (stack, layer, kind), each in self.cells.items()
            ],
            "tensors": [tensor.as_json() for tensor in self.tensors],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
            "unlike": [{"name": each.name, "what": each.what, "a": each.a, "b": each.b} for each in self.unlike],
            "notes": list(self.notes),
        }


def farthest_first(tensor: TensorDiff) -> tuple[float, float, str]:
    """A key to sort by: by distance, those without numbers by their share of changes."""
    relative = tensor.figures.relative_l2
    return (1.0 if relative is None else -relative, -tensor.figures.changed_share, tensor.name)


def kind_of(suffix: str) -> str:
    """What a tensor has in common with those of other layers: its name inside of the layer, without numbers."""
    return _NUMBER.sub("*", f".{suffix}")[1:].removesuffix(".weight")


def grouped(figures: Iterable[tuple[Key, Figures]]) -> dict[Key, Figures]:
    """Figures put together by a key, in the order of the keys."""
    groups: dict[Key, list[Figures]] = {}
    for key, each in figures:
        groups.setdefault(key, []).append(each)
    return {key: together(parts) for key, parts in groups.items()}


def _sum(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) if all(map(math.isfinite, found)) else sum(found)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
