"""The graph of a merge as a tree: the output's layers, folded, and below each how its tensors are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.units import format_bytes, format_count
from .cycles import Cycle, fold_cycles
from .layout import Row, clean, heading, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..engine.graph import Program
    from .kinds import Kind
    from .layers import Made, Run
    from .legend import Legend

_FIRST, _LAST = 12, 6
"""Lines of a long graph that are shown without -v; the layers' bars show all of it."""

_NAMED = 3
"""Tensors that a line names where a layer is made in several ways."""


def graph_tree(
    folded: Sequence[Run], kinds: Mapping[Program, Kind], legend: Legend, width: int | None, *, unfolded: bool
) -> list[Text]:
    """A line for each run of layers and what it is made from; ``unfolded`` has a line for each tensor too."""
    head = [Text(title, "bold") for title in ("tensors", "size", "ops", "from")]
    rows = [Row(heading("output"), head)]
    parts = folded if unfolded else fold_cycles(folded, kinds)
    left_out = range(_FIRST, len(parts) - _LAST) if not unfolded and len(parts) > _FIRST + _LAST + 1 else range(0)
    for index, part in enumerate(parts):
        if index in left_out:
            if index == left_out[0]:
                rows.append(Row(Text(f"… {len(left_out)} more, all with -v", "dim"), (), Text("├ ", "dim")))
            continue
        guide, below = ("└ ", "  ") if part is parts[-1] else ("├ ", "│ ")
        if isinstance(part, Cycle):
            rows.append(_cycle_row(part, guide))
            for run in part.runs:
                inner = ("└ ", "  ") if run is part.runs[-1] else ("├ ", "│ ")
                rows += _run_rows(run, kinds, legend, below + inner[0], below + inner[1], unfolded=False)
        else:
            rows += _run_rows(part, kinds, legend, guide, below, unfolded=unfolded)
    return table(rows, width, right=(0, 1), indent=0, optional=(2, 1, 0), least_label=20)


def _run_rows(
    run: Run, kinds: Mapping[Program, Kind], legend: Legend, guide: str, below: str, *, unfolded: bool
) -> Iterator[Row]:
    ways = _ways(run, kinds)
    cells = [
        Text(format_count(run.tensors)),
        Text(format_bytes(run.size_bytes)),
        Text(" ".join(f"[{kind.number}]" for kind in ways)),
        _given(run, legend),
    ]
    yield Row(Text(clean(run.title)), cells, Text(guide, "dim"))
    for label in _each(run, kinds) if unfolded else _split_up(ways):
        yield Row(label, (), Text(below + "  ", "dim"))


def _cycle_row(cycle: Cycle, guide: str) -> Row:
    title = Text(clean(cycle.title))
    cells = [
        Text(format_count(cycle.tensors)),
        Text(format_bytes(cycle.size_bytes)),
        Text(),
        Text(f"{cycle.times} times:"),
    ]
    return Row(title, cells, Text(guide, "dim"))


def _given(run: Run, legend: Legend) -> Text:
    """Models and their layers; models that give the same layers share a text: ``A B C 0–31``."""
    by_layers: dict[str, list[str]] = {}
    for model, layers in run.given.items():
        by_layers.setdefault(layers, []).append(model)
    parts = [
        Text.assemble(legend.marks(models), f" {layers}" if layers else "") for layers, models in by_layers.items()
    ]
    return Text(", ").join(parts)


def _ways(run: Run, kinds: Mapping[Program, Kind]) -> dict[Kind, list[Made]]:
    """A layer's tensors by how they are made."""
    ways: dict[Kind, list[Made]] = {}
    for made in run.layers[0].tensors:
        ways.setdefault(kinds[made.island.program], []).append(made)
    return ways


def _split_up(ways: Mapping[Kind, list[Made]]) -> Iterator[Text]:
    """Where a layer's tensors are not all made alike, which of them are made how."""
    if len(ways) < 2:
        return
    tell_apart = len({kind.steps for kind in ways}) > 1
    for kind, group in ways.items():
        names = ", ".join(clean(made.name) for made in group[:_NAMED])
        more = f" and {len(group) - _NAMED} more" if len(group) > _NAMED else ""
        yield Text(f"[{kind.number}] " + (f"{kind.steps}: " if tell_apart else "") + names + more, "dim")


def _each(run: Run, kinds: Mapping[Program, Kind]) -> Iterator[Text]:
    for layer in run.layers:
        for made in layer.tensors:
            shape, kind = str(list(made.island.spec.shape)), kinds[made.island.program]
            yield Text.assemble(clean(layer.prefix + made.name), (f"  {shape}  [{kind.number}]", "dim"))
