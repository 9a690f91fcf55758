"""Boxes in columns: one stands behind all that it takes, and those of a column are sorted so that few lines cross."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import networkx as nx

_SWEEPS = 8


class Passing(NamedTuple):
    """The place that the lines of a box take in a column that they pass."""

    box: int
    column: int


Place: TypeAlias = "int | Passing"


@dataclass(frozen=True)
class Layout:
    """The columns from left to right, each from top to bottom, and how wide each is."""

    graph: nx.DiGraph[int]
    columns: tuple[tuple[Place, ...], ...]
    widths: tuple[float, ...]

    @cached_property
    def column_of(self) -> Mapping[Place, int]:
        """Where a box or a line stands."""
        return {each: number for number, column in enumerate(self.columns) for each in column}

    def places(self) -> Iterator[Place]:
        """All that stands somewhere."""
        return iter(self.column_of)

    def width(self, place: Place) -> float:
        """How wide a place's column is."""
        return self.widths[self.column_of[place]]

    def way(self, source: int, target: int) -> list[Place]:
        """What a line goes through, both ends included."""
        return _way(source, target, self.column_of)


def lay_out(graph: nx.DiGraph[int], widths: Mapping[int, float]) -> Layout:
    """Put boxes, of which the widths are given, into columns."""
    import networkx as nx

    generations = list(nx.topological_generations(graph))
    column_of: dict[Place, int] = {each: number for number, column in enumerate(generations) for each in column}
    links: nx.DiGraph[Place] = nx.DiGraph()
    links.add_nodes_from(graph)
    for source, target in graph.edges:
        nx.add_path(links, _way(source, target, column_of))
    columns: list[list[Place]] = [[] for _ in generations]
    # Depth first from the left: what belongs together starts out together.
    for each in nx.dfs_preorder_nodes(nx.Graph(links)) if nx.is_weakly_connected(links) else links:
        columns[each.column if isinstance(each, Passing) else column_of[each]].append(each)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        order = range(1, len(columns)) if forward else range(len(columns) - 2, -1, -1)
        for number in order:
            beside = columns[number - 1 if forward else number + 1]
            columns[number] = _sorted(columns[number], beside, links, forward=forward)
    wide = tuple(max((widths[each] for each in column if isinstance(each, int)), default=0.0) for column in columns)
    return Layout(graph, tuple(map(tuple, columns)), wide)


def _way(source: int, target: int, column_of: Mapping[Place, int]) -> list[Place]:
    passed = range(column_of[source] + 1, column_of[target])
    return [source, *(Passing(source, column) for column in passed), target]


def _sorted(
    column: Sequence[Place], beside: Sequence[Place], links: nx.DiGraph[Place], *, forward: bool
) -> list[Place]:
    """A column in the order of the middles of what it is linked to; what is linked to nothing stays where it is."""
    rank = {each: place / len(beside) for place, each in enumerate(beside)}
    middle: dict[Place, float] = {}
    for place, each in enumerate(column):
        neighbours = links.predecessors(each) if forward else links.successors(each)
        ranks = [rank[other] for other in neighbours if other in rank]
        middle[each] = sum(ranks) / len(ranks) if ranks else place / len(column)
    return sorted(column, key=middle.__getitem__)
