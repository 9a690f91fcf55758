"""An op graph as a tree: the write on top, below each op what it takes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import torch
from rich.text import Text

from ..engine.units import format_bytes, format_count
from .layout import Row, clean, count, table, wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..engine.graph import Island, Node
    from ..engine.plan import Plan
    from .kinds import Kind
    from .legend import Legend

_SAID_ELSEWHERE = ("shape", "slot", "space")
"""Attributes that another column holds."""

_BELOW = "↓"
"""An input that stands below, where others of the same op stand elsewhere."""

_GO_FIRST = ("device", "cut", "space", "shape")
"""Columns that are left out where there is no room, in this order; where devices differ theirs goes last."""

_HOST = "cpu"

_TITLES = ("dtype", "space", "cut", "device", "shape", "bytes")


def op_tree(
    kind: Kind, island: Island, plan: Plan, legend: Legend, width: int | None, *, full: bool = True
) -> list[Text]:
    """The ops of one tensor with dtype, space, locality, shape and bytes; an op with several users is shown once.

    Bytes are those of the whole tensor: what ``load`` reads and ``write`` writes; no other op's result is ever
    held whole. Numbers that differ over the kind are shown as a range, and a leaf of the output's own name has none.
    Without ``full`` there are no casts, which the dtypes tell of, no shape and no device where all are the same, and
    bytes only where some move.
    """
    steps = _steps(island, full=full)
    shapes = len({step.node.spec.shape for step in steps}) > 1
    places = _device_by_node(island, plan)
    away = {*places.values()} != {_HOST}
    same = {*([] if shapes else ["shape"]), *([] if away else ["device"])}
    kept = [title for title in _TITLES if full or title not in same]
    head = Row(Text("op", "bold"), [Text(title, "bold") for title in kept])
    rows = [_row(step, kind, island, legend, kept, places, full=full) for step in steps]
    least = max(row.guide.cell_len + row.label.cell_len for row in rows)
    lines = table(
        [head, *rows],
        width,
        right=(len(kept) - 1,),
        optional=[
            kept.index(title)
            for title in sorted(_GO_FIRST, key=lambda title: away and title == "device")
            if title in kept
        ],
        least_label=min(least, 40),
    )
    how = wrap(how_it_runs(island, plan), None if width is None else width - 2) if full else []
    return [*map(_dim, how), *lines]


def places_of(island: Island, plan: Plan) -> tuple[str, ...]:
    """The device of each pass over a tensor."""
    program = plan.programs[island.program]
    placed = [program.on_device(index) is not None for index in range(len(program.passes))]
    if not any(placed):
        return (_HOST,) * len(placed)
    position = next(index for index, each in enumerate(plan.graph.islands) if each is island)
    device = plan.placement.devices[plan.placement.homes[position]].name
    return tuple(device if away else _HOST for away in placed)


def _device_by_node(island: Island, plan: Plan) -> dict[Node, str]:
    """Where each op computes; one that is computed again in a later pass may have two devices."""
    found: dict[Node, list[str]] = {}
    for current, place in zip(plan.programs[island.program].passes, places_of(island, plan), strict=True):
        for node in (*current.nodes, *current.wholes):
            found.setdefault(node, []).append(place)
        for node in current.conclusions:
            found.setdefault(node, []).append(_HOST)
    return {node: ", ".join(dict.fromkeys(places)) for node, places in found.items()}


def _dim(text: str) -> Text:
    return Text.assemble("  ", (text, "dim"))


def how_it_runs(island: Island, plan: Plan) -> str:
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
    return f"{count(program.readings, 'pass', 'passes')}, {how}"


class _Step(NamedTuple):
    """One line of a tree: guides before it, its number where several ops take it, and what it takes.

    ``taken`` are its inputs: empty where they stand below, else the number of what stands elsewhere.
    """

    node: Node
    guide: str
    number: str
    taken: tuple[str, ...]


def _steps(island: Island, *, full: bool) -> list[_Step]:
    """The ops as a tree in lines; an op is drawn where it is first taken."""

    def below(node: Node) -> tuple[Node, ...]:
        return node.inputs if full else tuple(map(_without_casts, node.inputs))

    # The edge by which a node is first reached: there it is drawn. Iterative, as the depth of a graph is not bounded.
    first: dict[Node, tuple[Node, int]] = {}
    users: Counter[Node] = Counter()
    root = island.program.root
    pending = [(source, (root, index)) for index, source in enumerate(below(root))][::-1]
    while pending:
        node, edge = pending.pop()
        users[node] += 1
        if node not in first:
            first[node] = edge
            pending += [(source, (node, index)) for index, source in enumerate(below(node))][::-1]
    shared = (node for node in first if users[node] > 1)
    return _with_guides(root, below, first, {node: f"#{number}" for number, node in enumerate(shared, 1)})


def _with_guides(
    root: Node,
    below: Callable[[Node], tuple[Node, ...]],
    first: Mapping[Node, tuple[Node, int]],
    numbers: Mapping[Node, str],
) -> list[_Step]:
    """The lines, with branches to those inputs that are drawn below. An only branch does not drift to the right."""
    steps: list[_Step] = []
    pending = [(root, "", "")]
    while pending:
        node, guide, under = pending.pop()
        inputs = below(node)
        drawn = [source for index, source in enumerate(inputs) if first[source] == (node, index)]
        elsewhere = [first[source] != (node, index) for index, source in enumerate(inputs)]
        taken = tuple(numbers[source] if away else "" for source, away in zip(inputs, elsewhere, strict=True))
        steps.append(_Step(node, guide, numbers.get(node, ""), taken if any(taken) else ()))
        if len(drawn) == 1:
            pending.append((drawn[0], under, under))
        else:
            branches = [(source, under + "├ ", under + "│ ") for source in drawn[:-1]]
            branches += [(source, under + "└ ", under + "  ") for source in drawn[-1:]]
            pending += reversed(branches)
    return steps


def _without_casts(node: Node) -> Node:
    while node.op.name == "cast":
        (node,) = node.inputs
    return node


def _row(
    step: _Step,
    kind: Kind,
    island: Island,
    legend: Legend,
    kept: Sequence[str],
    places: Mapping[Node, str],
    *,
    full: bool,
) -> Row:
    node, spec = step.node, step.node.spec
    moves = node.op.kernel is None
    label = Text()
    if step.number:
        label.append(step.number + " ", "dim")
    label.append(node.op.name, "bold")
    if step.taken:
        label.append(f"({', '.join(number or _BELOW for number in step.taken)})", "dim")
    label.append_text(_parameters(kind, island.program.nodes.index(node), node))
    label.append_text(_leaf(node, island, legend))
    cells = {
        "dtype": Text(str(spec.dtype).removeprefix("torch.")),
        "space": Text(spec.space, "dim"),
        "cut": Text("" if moves else node.op.locality, "dim"),
        "device": Text("" if moves else places.get(node, "")),
        "shape": Text(str(list(spec.shape))),
        "bytes": Text(format_bytes(spec.size_bytes) if full or moves else "", "" if moves else "dim"),
    }
    return Row(label, [cells[title] for title in kept], Text(step.guide, "dim"))


def _leaf(node: Node, island: Island, legend: Legend) -> Text:
    if not node.slots:
        return Text()
    marks = [part for slot in node.slots for part in (" ", legend.mark(island.leaves[slot].model))]
    name = island.leaves[node.slots[0]].name
    return Text.assemble(*marks, f" {clean(name)}" if name != island.name else "")


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
