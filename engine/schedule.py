"""The order of work: a pure function of the graph and of where tensors are written.

Producers come before consumers; among what is ready, the order of the output files is followed, which is also
the order of the inputs wherever a merge keeps it, so that reads and writes are sequential.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .graph import TensorGraph


class Place(NamedTuple):
    """Where an output tensor goes: the shard and the offset of its first byte in the shard's file."""

    shard: int
    offset_bytes: int


def order(graph: TensorGraph, places: Mapping[str, Place]) -> tuple[int, ...]:
    """Positions of the islands in the order in which they start."""
    first = [min(places[name] for name in island.outputs) for island in graph.islands]
    if not graph.feeds:
        return tuple(sorted(range(len(graph.islands)), key=first.__getitem__))
    import networkx as nx

    return tuple(nx.lexicographical_topological_sort(graph.dependencies(), key=first.__getitem__))
