"""Which process writes which shards: every one once, the work even, the same answer everywhere."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product
from typing import TYPE_CHECKING

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_support import InMemory, island_of, loads, plan_of, program_of
from plait.engine.execute import execute
from plait.engine.graph import TensorGraph
from plait.engine.schedule import Place, order
from plait.engine.shares import assign, part_of, share_out
from plait.ops.elementwise import scale

if TYPE_CHECKING:
    from plait.engine.plan import Plan

Reads = list[dict[int, int]]

sizes = st.integers(0, 50)
apart = st.lists(st.tuples(sizes, sizes), min_size=1, max_size=7).map(
    lambda drawn: ([{index: read} for index, (read, _) in enumerate(drawn)], [written for _, written in drawn])
)
"""Shards of a tensor each."""


@st.composite
def mixed(draw: st.DrawFn) -> tuple[Reads, list[int]]:
    """Shards that have tensors in common."""
    costs = draw(st.lists(sizes, min_size=1, max_size=8))
    shards = draw(st.lists(st.sets(st.integers(0, len(costs) - 1), max_size=6), min_size=1, max_size=9))
    return [{position: costs[position] for position in sorted(shard)} for shard in shards], [
        draw(sizes) for _ in shards
    ]


def load_bytes(reads: Reads, writes: list[int], share: tuple[int, ...]) -> int:
    """What a process reads, a tensor once, and writes."""
    read = {position: size for shard in share for position, size in reads[shard].items()}
    return sum(read.values()) + sum(writes[shard] for shard in share)


@given(mixed(), st.integers(1, 12))
def test_every_shard_goes_to_one_process_and_the_work_is_even(drawn: tuple[Reads, list[int]], processes: int) -> None:
    reads, writes = drawn
    shares = assign(reads, writes, processes)
    assert len(shares) == processes
    assert sorted(shard for share in shares for shard in share) == list(range(len(writes)))
    assert all(list(share) == sorted(share) for share in shares)
    assert shares == assign([dict(reversed(shard.items())) for shard in reads], writes, processes)
    wholes = [load_bytes(reads, writes, (shard,)) for shard in range(len(writes))]
    assert max(load_bytes(reads, writes, share) for share in shares) <= sum(wholes) / processes + max(wholes)
    if len(writes) <= processes and not any(a.keys() & b.keys() for a, b in combinations(reads, 2)):
        assert max(map(len, shares)) == 1  # nobody has two while somebody has none


@settings(max_examples=60)
@given(apart, st.integers(1, 3))
def test_the_longest_share_is_at_most_a_third_longer_than_it_has_to_be(
    drawn: tuple[Reads, list[int]], processes: int
) -> None:
    reads, writes = drawn
    wholes = [load_bytes(reads, writes, (shard,)) for shard in range(len(writes))]
    best = min(
        max(
            sum(size for size, owner in zip(wholes, owners, strict=True) if owner == process)
            for process in range(processes)
        )
        for owners in product(range(processes), repeat=len(wholes))
    )
    longest = max(load_bytes(reads, writes, share) for share in assign(reads, writes, processes))
    assert longest <= best * (4 / 3 - 1 / (3 * processes)) + 1e-9


def test_the_first_processes_have_the_shards_where_there_are_few() -> None:
    assert assign([{0: 5}, {1: 9}], [1, 1], 4) == ((1,), (0,), (), ())
    assert assign([{}, {}, {}], [0, 0, 0], 2) == ((0, 2), (1,))


def test_a_shard_goes_where_what_it_reads_is_read_anyway() -> None:
    """Process 0 has 142 bytes of work then; process 1 would have 162, and 121 without it."""
    reads: Reads = [{0: 40, 1: 100}, {2: 120}, {0: 40}]
    assert assign(reads, [1, 1, 1], 2) == ((0, 2), (1,))


# ------------------------------------------------------------------------------------------------ parts of a plan


def planned(names: list[str], shards: int) -> Plan:
    """Tensors named by letters, several letters where one is written several times; letters go round the shards."""
    (source,) = loads(1)
    programs = [program_of(scale(source, factor=2.0 + index)) for index in range(3)]
    graph = TensorGraph(tuple(island_of(programs[index % 3], *name) for index, name in enumerate(names)))
    places = {name: Place(index % shards, 1000 * index) for index, name in enumerate("".join(names))}
    plan = plan_of(graph, target_elements=4096)
    return replace(plan, places=places, sequence=order(graph, places), header_bytes=7 * shards)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=8), st.integers(1, 5), st.integers(1, 4))
def test_the_parts_of_a_plan_make_the_whole(counts: list[int], shards: int, processes: int) -> None:
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    plan = planned(["".join(next(letters) for _ in range(count)) for count in counts], shards)
    values = {"a": torch.arange(64, dtype=torch.bfloat16)}
    whole = InMemory(values, plan.graph)
    execute(plan, whole, whole)
    together = InMemory(values, plan.graph)
    parts = []
    for share in share_out(plan, shards, processes):
        part = part_of(plan, share, 7 * len(share))
        alone = InMemory(values, plan.graph)
        final = execute(part, alone, alone)
        mine = {name for name, place in plan.places.items() if place.shard in share}
        for name in mine:
            assert torch.equal(alone.written[name], whole.written[name])
            together.written[name] = alone.written[name]
        assert all(bool((alone.written[name] == 0xA5).all()) for name in plan.places.keys() - mine)
        assert final.bytes_read == part.bytes_read
        assert final.bytes_written == part.bytes_written - part.header_bytes
        assert (final.tensors_done, final.tensors_total) == (len(part.sequence), len(part.sequence))
        assert list(part.sequence) == [position for position in plan.sequence if position in part.sequence]
        parts.append(part)
    assert all(torch.equal(together.written[name], whole.written[name]) for name in plan.places)
    assert sum(part.bytes_written for part in parts) == plan.bytes_written
    assert sum(part.bytes_read for part in parts) >= plan.bytes_read
