"""An op graph as a picture, from the loads at the left to the write at the right.

Ops that follow each other with nothing between share a box. A dashed box gathers something from the whole tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import svg
from .graph_drawing import attr_texts
from .graph_layout import lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import networkx as nx

    from .graph_layout import Layout, Place

_LINE, _PADDING = 17, 9
_GAP, _APART = 40, 16
_LONGEST = 34
_GATHERING = ("reduce", "whole")
_SIZE = 12.0


@dataclass(frozen=True)
class _Step:
    """One box: the ops in it, first to last, and the lines that say so."""

    nodes: tuple[Mapping[str, Any], ...]
    lines: tuple[str, ...]
    marks: tuple[str, ...]

    @property
    def gathers(self) -> bool:
        """Whether it gathers something from the whole tensor, which what follows has to wait for."""
        return any(node["locality"] in _GATHERING for node in self.nodes)

    @property
    def width(self) -> float:
        widest = max(svg.cells(line) for line in self.lines)
        chips = sum(svg.chip_width(mark) + 3 for mark in self.marks) + 3
        first = svg.cells(self.lines[0]) * _SIZE * svg.CELL + chips
        return max(widest * _SIZE * svg.CELL, first) + 2 * _PADDING

    @property
    def height(self) -> float:
        return len(self.lines) * _LINE + _PADDING


def op_picture(
    program: Mapping[str, Any],
    reads: Sequence[Mapping[str, Any]],
    *,
    example: str,
    varies: Sequence[Mapping[str, Any]],
    numbers: Mapping[str, int],
) -> tuple[list[str], float, float]:
    """The picture's pieces, its width and its height. ``numbers`` are those of the models by their letters.

    ``reads`` are the tensors behind the slots, named where they are not called like ``example``; ``varies`` are the
    numbers to show as ranges.
    """
    steps, graph = _steps(program, reads, example, varies)
    layout = lay_out(graph, {each: step.width for each, step in steps.items()})
    heights = {each: steps[each].height if isinstance(each, int) else _LINE for each in layout.places()}
    taken = [sum(heights[each] for each in column) + _APART * (len(column) - 1) for column in layout.columns]
    places: dict[Place, tuple[float, float]] = {}
    x = 0.0
    for number, column in enumerate(layout.columns):
        y = (max(taken) - taken[number]) / 2
        for each in column:
            places[each] = (x, y + heights[each] / 2)
            y += heights[each] + _APART
        # Lines from many boxes to few go up and down a long way and need room to turn.
        boxes = sum(isinstance(each, int) for each in column)
        x += layout.widths[number] + _GAP + min(8 * max(boxes - 4, 0), 60)
    pieces = list(_wires(layout, steps, places, numbers))
    for number, step in steps.items():
        left, middle = places[number]
        pieces += _box(step, left, middle - step.height / 2, numbers)
    return pieces, max(places[each][0] + steps[each].width for each in steps), max(taken)


def _steps(
    program: Mapping[str, Any],
    reads: Sequence[Mapping[str, Any]],
    example: str,
    varies: Sequence[Mapping[str, Any]],
) -> tuple[dict[int, _Step], nx.DiGraph[int]]:
    """Boxes by the number of their last op, and what feeds what."""
    import networkx as nx

    nodes = program["nodes"]
    spread = {(each["node"], each["attr"]): (each["low"], each["high"]) for each in varies}
    users: dict[int, set[int]] = {node["id"]: set() for node in nodes}
    for node in nodes:
        for source in node["inputs"]:
            users[source].add(node["id"])
    chains: dict[int, list[Mapping[str, Any]]] = {}
    end_of: dict[int, int] = {}
    for node in nodes:
        sources = set(node["inputs"])
        before = next(iter(sources)) if len(sources) == 1 else None
        chain = chains.pop(end_of[before]) if before is not None and len(users[before]) == 1 else []
        chains[node["id"]] = [*chain, node]
        for each in chains[node["id"]]:
            end_of[each["id"]] = node["id"]
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(chains)
    for end, chain in chains.items():
        graph.add_edges_from((end_of[source], end) for source in chain[0]["inputs"])
    return {end: _step(chain, reads, example, spread) for end, chain in chains.items()}, graph


def _step(
    chain: Sequence[Mapping[str, Any]],
    reads: Sequence[Mapping[str, Any]],
    example: str,
    spread: Mapping[tuple[int, str], tuple[Any, Any]],
) -> _Step:
    lines: list[str] = []
    marks: dict[str, None] = {}
    for node in chain:
        marks.update(dict.fromkeys(reads[slot]["model"] for slot in node["slots"]))
        lines.append(f"{node['op']} ({node['locality']})" if node["locality"] in _GATHERING else node["op"])
        lines += [f"  {svg.shortened(text, _LONGEST)}" for text in attr_texts(node, spread)]
        names = dict.fromkeys(reads[slot]["name"] for slot in node["slots"])
        lines += [f"  {svg.shortened(name, _LONGEST)}" for name in names if name != example]
    last = chain[-1]
    space = f" {last['space']}" if last["space"] != "weight" else ""
    return _Step(tuple(chain), (*lines, f"{last['dtype']}{space}"), tuple(marks))


def _wires(
    layout: Layout, steps: Mapping[int, _Step], places: Mapping[Place, tuple[float, float]], numbers: Mapping[str, int]
) -> Iterator[str]:
    """Lines from box to box, level where they pass a column; in their model's colour where they come from one."""
    entered: dict[int, list[int]] = {}
    for source, target in layout.graph.edges:
        entered.setdefault(target, []).append(source)
    for target, sources in entered.items():
        # Lines come in below each other, in the order of where they come from.
        sources.sort(key=lambda source: places[layout.way(source, target)[-2]][1])
        x2, middle = places[target]
        for index, source in enumerate(sources):
            y2 = middle + (index - (len(sources) - 1) / 2) * min(14, (steps[target].height - 10) / len(sources))
            x1, y1 = places[source]
            path = [f"M{svg.number(x1 + steps[source].width)} {svg.number(y1)}"]
            last = (x1 + steps[source].width, y1)
            for each in layout.way(source, target)[1:-1]:
                x, y = places[each]
                path += [_bend(last, (x, y)), f"H{svg.number(x + layout.width(each))}"]
                last = (x + layout.width(each), y)
            path.append(_bend(last, (x2 - 7, y2)))
            marks = steps[source].marks
            colour = f"{svg.model_class(numbers[marks[0]])}-edge" if len(marks) == 1 else "edge-edge"
            yield f'<path d="{"".join(path)}" class="wire {colour}"/>'
            yield f'<path d="M{svg.number(x2)} {svg.number(y2)}l-8 -4v8z" class="{colour.removesuffix("-edge")}"/>'


def _bend(start: tuple[float, float], end: tuple[float, float]) -> str:
    """A curve that leaves and arrives level."""
    middle = (start[0] + end[0]) / 2
    points = ((middle, start[1]), (middle, end[1]), end)
    return "C" + " ".join(f"{svg.number(x)} {svg.number(y)}" for x, y in points)


def _box(step: _Step, x: float, y: float, numbers: Mapping[str, int]) -> Iterator[str]:
    edge = f"{svg.model_class(numbers[step.marks[0]])}-edge" if len(step.marks) == 1 else "edge-edge"
    dashes = ' stroke-dasharray="5 3"' if step.gathers else ""
    yield svg.box(x, y, step.width, step.height, f"ground {edge}", more=f' stroke-width="1.5"{dashes}')
    left = x + _PADDING
    for mark in step.marks:
        yield svg.chip(left, y + 4, mark, numbers[mark])
        left += svg.chip_width(mark) + 3
    for index, line in enumerate(step.lines):
        start = left + 3 if index == 0 and step.marks else x + _PADDING
        last = index == len(step.lines) - 1
        classes = "mono small soft" if last or line.startswith(" ") else "mono strong ink"
        yield svg.text(start + (10 if line.startswith(" ") else 0), y + 17 + index * _LINE, line.strip(), classes)
