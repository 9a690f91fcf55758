"""Which process writes which shards: a pure function of the plan, so that every process finds the same answer.

Shards go whole, the largest first, each to the process that will then have the least to do. A tensor that is written
under several names may be in shards of several processes: each of them makes it for itself. Keeping such shards
together would chain all shards of an expansion that repeats layers to one process, and waiting for one another would
tie processes together that need nothing of each other otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .plan import Plan


def share_out(plan: Plan, shards: int, processes: int) -> tuple[tuple[int, ...], ...]:
    """For each process the numbers of its shards, in order; nothing for the last ones where shards are fewer."""
    reading_bytes: list[dict[int, int]] = [{} for _ in range(shards)]
    writing_bytes = [0] * shards
    for position, island in enumerate(plan.graph.islands):
        for name in island.outputs:
            shard = plan.places[name].shard
            reading_bytes[shard][position] = plan.programs[island.program].bytes_read
            writing_bytes[shard] += island.spec.size_bytes
    return assign(reading_bytes, writing_bytes, processes)


def assign(
    reading_bytes: Sequence[dict[int, int]], writing_bytes: Sequence[int], processes: int
) -> tuple[tuple[int, ...], ...]:
    """Shards to processes, by what they read for each tensor and what they write.

    What a process reads for a tensor it reads once, in however many of its shards the tensor is.
    """
    count = len(writing_bytes)
    appearances: dict[int, int] = defaultdict(int)
    for reads in reading_bytes:
        for position in reads:
            appearances[position] += 1
    # What shards have in common is little or nothing: it is looked at by itself.
    common = [{position for position in reads if appearances[position] > 1} for reads in reading_bytes]
    alone_bytes = [
        writing_bytes[shard] + sum(size for position, size in reads.items() if position not in common[shard])
        for shard, reads in enumerate(reading_bytes)
    ]
    whole_bytes = [writing_bytes[shard] + sum(reads.values()) for shard, reads in enumerate(reading_bytes)]
    loads_bytes = [0] * processes
    shares: list[list[int]] = [[] for _ in range(processes)]
    known: list[set[int]] = [set() for _ in range(processes)]
    for shard in sorted(range(count), key=lambda shard: (-whole_bytes[shard], shard)):

        def with_it(process: int, shard: int = shard) -> tuple[int, int, int]:
            more = sum(reading_bytes[shard][position] for position in common[shard] - known[process])
            return loads_bytes[process] + alone_bytes[shard] + more, len(shares[process]), process

        total_bytes, _, chosen = min(with_it(process) for process in range(processes))
        loads_bytes[chosen] = total_bytes
        shares[chosen].append(shard)
        known[chosen] |= common[shard]
    return tuple(tuple(sorted(share)) for share in shares)


def part_of(plan: Plan, shards: Collection[int], header_bytes: int) -> Plan:
    """The plan of a process that writes these shards, which have so many bytes of headers.

    Tensors keep their positions in the graph. One that is written elsewhere, too, goes to these shards alone.
    """
    assert not plan.graph.feeds, "a process does not wait for what another one makes"
    mine, elsewhere_too = set(), {}
    for position, island in enumerate(plan.graph.islands):
        outputs = tuple(name for name in island.outputs if plan.places[name].shard in shards)
        if outputs:
            mine.add(position)
            if len(outputs) < len(island.outputs):
                elsewhere_too[position] = replace(island, outputs=outputs)
    graph = plan.graph
    if elsewhere_too:  # else all parts have the one graph
        islands = (elsewhere_too.get(position, island) for position, island in enumerate(graph.islands))
        graph = replace(graph, islands=tuple(islands))
    return replace(
        plan,
        graph=graph,
        sequence=tuple(position for position in plan.sequence if position in mine),
        header_bytes=header_bytes,
    )
