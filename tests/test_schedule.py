"""The order of work: producers first, and among what is ready, as the output files lie."""

from __future__ import annotations

import random

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from merge_support import island_of, loads, program_of
from plait.engine.graph import TensorGraph
from plait.engine.schedule import Place, order

PROGRAM = program_of(loads(1)[0])


def tensor_graph(names: str, *feeds: str) -> TensorGraph:
    """Islands by one letter each; a feed is written ``ab`` for a → b."""
    letters = names.split()
    islands = tuple(island_of(PROGRAM, *name) for name in letters)
    position = {letter: index for index, name in enumerate(letters) for letter in name}
    return TensorGraph(islands, tuple((position[feed[0]], position[feed[1]]) for feed in feeds))


def places(text: str) -> dict[str, Place]:
    """Where tensors lie: shards divided by a bar, in them one tensor after the other."""
    return {
        name: Place(shard, 1000 * index)
        for shard, names in enumerate(text.split("|"))
        for index, name in enumerate(names.split())
    }


def ordered(graph: TensorGraph, where: str) -> str:
    return " ".join(graph.islands[position].name for position in order(graph, places(where)))


def test_without_feeds_the_output_files_are_followed() -> None:
    """
    shard 0:  d b          shard 1:  a c
    """
    assert ordered(tensor_graph("a b c d"), "d b | a c") == "d b a c"


def test_a_tensor_of_several_names_starts_at_its_first_place() -> None:
    """
    shard 0:  b a          shard 1:  A c          a is also written as A
    """
    graph = tensor_graph("c aA b")
    assert ordered(graph, "b a | A c") == "b a c"
    assert ordered(graph, "A b | a c") == "a b c"


def test_a_producer_goes_before_its_consumer_wherever_it_is_written() -> None:
    """
    c ──→ b ──→ a          shard 0:  a b c
    """
    assert ordered(tensor_graph("a b c", "cb", "ba"), "a b c") == "c b a"


def test_what_is_ready_follows_the_files() -> None:
    r"""
    a ──→ c ──→ e
          ↑               shard 0:  e d c          shard 1:  b a
    b ────┘     d
    """
    assert ordered(tensor_graph("a b c d e", "ac", "bc", "ce"), "e d c | b a") == "d b a c e"


def test_a_diamond_runs_each_tensor_once() -> None:
    r"""
        ┌─→ b ─┐
    a ──┤      ├─→ d      shard 0:  d c b a
        └─→ c ─┘
    """
    assert ordered(tensor_graph("a b c d", "ab", "ac", "bd", "cd"), "d c b a") == "a c b d"


def test_a_cycle_is_an_error() -> None:
    """
    a ──→ b ──→ c ──→ a
    """
    with pytest.raises(ValueError, match="cycle"):
        order(tensor_graph("a b c", "ab", "bc", "ca"), places("a b c"))


def test_no_tensors_have_an_order_too() -> None:
    assert order(TensorGraph(()), {}) == ()


@given(size=st.integers(1, 12), seed=st.integers(0, 1 << 30), share=st.floats(0, 0.6))
def test_any_order_is_topological_and_the_earliest_by_place(size: int, seed: int, share: float) -> None:
    draw = random.Random(seed)
    rank = draw.sample(range(size), size)
    feeds = tuple(
        (one, two) for one in range(size) for two in range(size) if rank[one] < rank[two] and draw.random() < share
    )
    graph = TensorGraph(tuple(island_of(PROGRAM, f"t{index}") for index in range(size)), feeds)
    spots = draw.sample(range(size), size)
    where = {f"t{index}": Place(spot // 4, spot % 4) for index, spot in enumerate(spots)}
    found = order(graph, where)
    assert sorted(found) == list(range(size))
    needs = nx.DiGraph(feeds)
    needs.add_nodes_from(range(size))
    done: set[int] = set()
    for position in found:
        ready = [other for other in range(size) if other not in done and set(needs.predecessors(other)) <= done]
        assert position == min(ready, key=lambda other: where[f"t{other}"])
        done.add(position)


def test_the_order_does_not_depend_on_that_of_the_islands() -> None:
    names = [f"t{index}" for index in range(50)]
    where = {name: Place(index // 7, index % 7) for index, name in enumerate(names)}
    shuffled = random.Random(5).sample(names, 50)
    graph = TensorGraph(tuple(island_of(PROGRAM, name) for name in shuffled))
    assert [graph.islands[position].name for position in order(graph, where)] == names
