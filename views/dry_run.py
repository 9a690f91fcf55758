"""The dry run: what a recipe will do, before it does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from .console import output, print_lines, warning, width_of
from .graph_tree import graph_tree
from .kinds import kind_by_program, kinds_of
from .layout import clean, count, heading, shorten, wrap
from .legend import Legend
from .op_tree import op_tree
from .totals import models, totals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..engine.graph import Island
    from ..merge import MergePlan
    from .kinds import Kind

_DRAWN_KINDS = 3
"""Op graphs that are drawn; few merges have more kinds, and of the others only the steps are named without -v."""


def show(merge: MergePlan, *, free_disk_bytes: int, tensor_name: str | None = None, verbose: bool = False) -> None:
    """Print the plan. ``tensor_name``: only the op graph of that output tensor; KeyError if there is none."""
    console = output()
    width = width_of(console)
    if tensor_name is not None:
        print_lines(console, tensor_page(merge, tensor_name, width))
    else:
        print_lines(console, page(merge, width, free_disk_bytes=free_disk_bytes, verbose=verbose))


def page(merge: MergePlan, width: int | None, *, free_disk_bytes: int, verbose: bool = False) -> Iterator[Text]:
    """The whole plan in lines of a width: models, totals, the graph folded, the kinds of op graphs, warnings."""
    legend = Legend(str(ref) for ref in merge.models)
    kinds = kinds_of(merge.plan.graph.islands)
    first, *rest = wrap(f"{merge.method.name}  {clean(merge.method.summary)}", width)
    yield Text.assemble((first[: len(merge.method.name)], "bold"), first[len(merge.method.name) :])
    yield from map(Text, rest)
    yield Text()
    yield from models(merge, legend, width, verbose=verbose)
    yield Text()
    yield from totals(merge, width, free_disk_bytes=free_disk_bytes, verbose=verbose)
    yield Text()
    yield from graph_tree(merge, kind_by_program(kinds), legend, width, unfolded=verbose)
    for kind in kinds:
        yield Text()
        yield _title(kind, width)
        yield Text(f"  {kind.steps}", "dim")
        if verbose or kind.number <= _DRAWN_KINDS:
            yield from op_tree(kind, kind.largest, merge.plan, legend, width)
    if merge.warnings:
        yield Text()
    for each in merge.warnings:
        yield from warning(each, width)


def tensor_page(merge: MergePlan, tensor_name: str, width: int | None) -> Iterator[Text]:
    """One output tensor: the models, and its op graph with its own numbers."""
    island = merge.plan.island_of(tensor_name)
    (kind,) = kinds_of([island])
    legend = Legend(str(ref) for ref in merge.models)
    yield from models(merge, legend, width, verbose=False)
    yield Text()
    yield _named(heading(clean(tensor_name)), island)
    yield from op_tree(kind, island, merge.plan, legend, width)


def _title(kind: Kind, width: int | None) -> Text:
    others = kind.tensors - 1
    alike = f" and {count(others, 'tensor')} like it" if others else ""
    head = Text(f"ops [{kind.number}]  ", "bold")
    name = Text(clean(kind.largest.name))
    room = None if width is None else width - head.cell_len - len(alike)
    return Text.assemble(head, name if room is None else shorten(name, room), (alike, "dim"))


def _named(title: Text, island: Island) -> Text:
    others = len(island.outputs) - 1
    return title if not others else Text.assemble(title, (f"  and {count(others, 'equal tensor')}", "dim"))
