"""An op graph as a tree: the write on top, below each op what it takes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from rich.text import Text

from ..engine.units import format_bytes, format_count
from .layout import Row, clean, count, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..engine.graph import Island, Node
    from ..engine.plan import Plan
    from .kinds import Kind
    from .legend import Legend

_SAID_ELSEWHERE = ("shape", "slot", "space")
"""Attributes that another column holds."""


def op_tree(kind: Kind, island: Island, plan: Plan, legend: Legend, width: int | None) -> list[Text]:
    """The ops of one tensor with shape, dtype, parameters and bytes; an op with several users is shown once.

    Bytes are those of the whole tensor: what ``load`` reads and ``write`` writes; no other op's result is ever
    held whole. Numbers that differ over the kind are shown as a range.
    """
    head = Row(Text("op", "bold"), [Text(title, "bold") for title in ("dtype", "", "shape", "bytes")])
    return [how_it_runs(island, plan), *table([head, *_rows(kind, island, legend)], width, right=(3,))]


def how_it_runs(island: Island, plan: Plan) -> Text:
    """Passes, tiles and memory of one tensor's program."""
    program = plan.programs[island.program]
    last = len(program.passes) - 1
    tile_elements = min(program.tile_elements(last), island.spec.elements)
    if island.program.is_copy:
        how = f"bytes copied as they are, {format_bytes(tile_elements * island.spec.dtype.itemsize)} at a time"
    elif any(each.wholes for each in program.passes):
        # It is not the tiles that need the most memory.
        how = f"panels of {count(tile_elements, 'element')}, {format_bytes(program.held_bytes)} for Gram matrices"
    else:
        how = f"tiles of {count(tile_elements, 'element')}, arena {format_bytes(program.arena_bytes)} a thread"
    return Text(f"  {count(program.readings, 'pass', 'passes')}, {how}", "dim")


def _rows(kind: Kind, island: Island, legend: Legend) -> Iterator[Row]:
    nodes = island.program.nodes
    index = {node: number for number, node in enumerate(nodes)}
    users = Counter(source for node in nodes for source in node.inputs)
    shared = [node for node in nodes if users[node] > 1]
    names = {node: f"#{number}" for number, node in enumerate(shared, 1)}
    shown: set[Node] = set()
    # Iterative, as the depth of a graph is not bounded. Each entry: a node, and the guides before and below it.
    pending: list[tuple[Node, str, str]] = [(island.program.root, "", "")]
    while pending:
        node, guide, below = pending.pop()
        label = Text()
        if node in names:
            label.append(names[node] + " ", "dim")
        label.append(node.op.name, "bold")
        if node in shown:
            label.append(", as above", "dim")
            yield Row(label, [Text(), Text(), Text(), Text()], Text(guide, "dim"))
            continue
        shown.add(node)
        label.append_text(_parameters(kind, index[node], node))
        label.append_text(_leaf(node, island, legend))
        spec = node.spec
        yield Row(
            label,
            [
                Text(str(spec.dtype).removeprefix("torch.")),
                Text(spec.space, "dim"),
                Text(str(list(spec.shape))),
                Text(format_bytes(spec.size_bytes), "" if node.op.kernel is None else "dim"),
            ],
            Text(guide, "dim"),
        )
        pending += reversed(_below(node.inputs, below))


def _below(inputs: Sequence[Node], guide: str) -> list[tuple[Node, str, str]]:
    """An op's inputs with their guides. An only input stands right below, so that chains do not drift."""
    if len(inputs) == 1:
        return [(inputs[0], guide, guide)]
    branches = [(source, guide + "├ ", guide + "│ ") for source in inputs[:-1]]
    return branches + [(source, guide + "└ ", guide + "  ") for source in inputs[-1:]]


def _leaf(node: Node, island: Island, legend: Legend) -> Text:
    if not node.slots:
        return Text(f" ({node.op.locality})" if node.op.locality != "element" else "", "dim")
    marks = [part for slot in node.slots for part in (" ", legend.mark(island.leaves[slot].model))]
    return Text.assemble(*marks, " ", clean(island.leaves[node.slots[0]].name))


def _parameters(kind: Kind, node_index: int, node: Node) -> Text:
    if node.op.kernel is None:
        return Text()  # a load's are the columns
    parts = [
        f" {name}={range_text(kind.values(node_index, name))}"
        for name, value in node.attrs
        if name not in _SAID_ELSEWHERE and not isinstance(value, torch.dtype)
    ]
    return Text("".join(parts))


def range_text(values: Sequence[object]) -> str:
    """A value, or from the least to the largest of several; of lists, each place on its own."""
    if isinstance(values[0], tuple):
        places = zip(*(value for value in values if isinstance(value, tuple)), strict=True)
        return "(" + ", ".join(range_text(place) for place in places) + ")"
    numbers = sorted({value for value in values if isinstance(value, (int, float))})
    if not numbers or isinstance(values[0], bool):
        return clean(str(values[0]))
    low, high = (format_count(each) if isinstance(each, int) else f"{each:.4g}" for each in (numbers[0], numbers[-1]))
    return low if low == high else f"{low}…{high}"
