"""The dry run: what a recipe will do, before it does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.units import format_count
from .console import output, print_lines, warning, width_of
from .graph_tree import graph_tree
from .kinds import kind_by_program, kinds_of
from .layer_map import layer_map
from .layers import runs
from .layout import clean, count, cut, shorten, wrap
from .legend import Legend
from .op_tree import op_tree
from .tensor_page import tensor_page
from .totals import models, output_words, totals

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..merge import MergePlan
    from .kinds import Kind

_LEAST_NAME = 24
"""Columns of a tensor's name that tell it from others."""


def show(merge: MergePlan, *, free_disk_bytes: int, tensor_name: str | None = None, verbose: bool = False) -> None:
    """Print the plan. ``tensor_name``: only the op graph of that output tensor; KeyError if there is none."""
    console = output()
    width = width_of(console)
    if tensor_name is not None:
        print_lines(console, tensor_page(merge, tensor_name, width))
    else:
        print_lines(console, page(merge, width, free_disk_bytes=free_disk_bytes, verbose=verbose))


def page(merge: MergePlan, width: int | None, *, free_disk_bytes: int, verbose: bool = False) -> Iterator[Text]:
    """The whole plan in lines of a width: models, the output, its layers, the work, the op graphs, warnings."""
    legend = Legend(str(ref) for ref in merge.models)
    kinds = kinds_of(merge.plan.graph.islands)
    by_program = kind_by_program(kinds)
    folded = runs(merge, by_program)
    parts = (
        _title(merge, width),
        models(merge, legend, width, verbose=verbose),
        graph_tree(folded, by_program, legend, width, unfolded=verbose),
        list(layer_map(merge, [layer for run in folded for layer in run.layers], legend, width)),
        list(totals(merge, width, free_disk_bytes=free_disk_bytes, verbose=verbose)),
        list(_ops(merge, kinds, legend, width, verbose=verbose)),
        [line for each in merge.warnings for line in warning(each, width)],
    )
    for part in parts:
        if part is not parts[0] and part:
            yield Text()
        yield from part


def _title(merge: MergePlan, width: int | None) -> list[Text]:
    name = merge.method.name
    first, *rest = wrap(f"{name}  {output_words(merge)}", width)
    said = wrap(clean(merge.method.summary), width)
    title = Text.assemble((first[: len(name)], "bold"), first[len(name) :])
    return [title, *map(Text, rest), *(Text(line, "dim") for line in said)]


def _ops(
    merge: MergePlan, kinds: Sequence[Kind], legend: Legend, width: int | None, *, verbose: bool
) -> Iterator[Text]:
    """The kinds of op graphs: the one that makes most of the merged tensors is drawn, ``verbose`` draws all."""
    chosen = next((kind for kind in kinds if not kind.largest.program.is_copy), None)
    drawn = kinds if verbose else [kind for kind in kinds if kind is chosen]
    before = None
    for kind in kinds:
        if before is not None and (kind in drawn or before in drawn):
            yield Text()
        if kind in drawn:
            yield _kind_title(kind, width, ending="" if verbose else _brief(kind, merge))
            yield from op_tree(kind, kind.largest, merge.plan, legend, width, full=verbose)
        else:
            yield _kind_title(kind, width, ending=f": {kind.steps}")
        before = kind


def _brief(kind: Kind, merge: MergePlan) -> str:
    readings = merge.plan.programs[kind.largest.program].readings
    return f", {list(kind.largest.spec.shape)}, {count(readings, 'pass', 'passes')}"


def _kind_title(kind: Kind, width: int | None, *, ending: str) -> Text:
    others = kind.tensors - 1
    alike = f" and {format_count(others)} like it" if others else ""
    head = Text(f"ops [{kind.number}]  ", "bold")
    name = Text(clean(kind.largest.name))
    if width is None:
        return Text.assemble(head, name, (alike + ending, "dim"))
    room = width - head.cell_len - len(alike)
    if room - len(ending) >= min(name.cell_len, _LEAST_NAME):
        return Text.assemble(head, shorten(name, room - len(ending)), (alike + ending, "dim"))
    return cut(Text.assemble(head, shorten(name, min(room, _LEAST_NAME)), (alike + ending, "dim")), width)
