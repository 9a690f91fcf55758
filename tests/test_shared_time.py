"""How long a run of several processes takes: machines work side by side, processes of one share what it has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import plait
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_support import budgeted, graph_of, loads, program_of
from plait.engine.devices import Device
from plait.engine.graph import Island, TensorGraph
from plait.engine.plan import Plan, on_devices
from plait.engine.rates import RATES, Rates
from plait.engine.schedule import Place, order
from plait.engine.shares import part_of, share_out
from plait.engine.time_model import shared_seconds
from plait.engine.units import GIB
from plait.ops.elementwise import add, cast, scale
from resume_support import SHARD_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from plait.engine.graph import Program

SHAPE = (1 << 10, 1 << 10)


def copy() -> Program:
    return program_of(loads(1, SHAPE)[0])


def scaled(inputs: int, ops: int = 1) -> Program:
    """So many inputs are read, added and scaled ``ops`` times."""
    wide = [cast(node, dtype=torch.float32) for node in loads(inputs, SHAPE)]
    total = add(*wide) if inputs > 1 else wide[0]
    for index in range(ops):
        total = scale(total, factor=0.5 + index)
    return program_of(cast(total, dtype=torch.bfloat16))


PROGRAMS = (copy(), scaled(1), scaled(4), scaled(2, 30))


def plan_of_shards(kinds: Sequence[int], shards: int, workers: int = 1) -> Plan:
    """A tensor for each number, made by that program; they go round the shards."""
    islands = [graph_of(PROGRAMS[kind]).islands[0] for kind in kinds]
    graph = TensorGraph(
        tuple(Island(each.program, each.leaves, (f"out{index}",)) for index, each in enumerate(islands))
    )
    plan = budgeted(graph, GIB, workers=workers)
    places = {f"out{index}": Place(index % shards, index) for index in range(len(kinds))}
    return replace(plan, places=places, sequence=order(graph, places))


def parts_of(plan: Plan, shards: int, processes: int) -> list[Plan]:
    return [part_of(plan, share, 0) for share in share_out(plan, shards, processes) if share]


def work_seconds(parts: Sequence[Plan], rates: Rates = RATES, *, together: int = 1) -> float:
    return shared_seconds(parts, rates, together=together) - rates.start_seconds


@settings(max_examples=60)
@given(
    kinds=st.lists(st.integers(0, len(PROGRAMS) - 1), min_size=1, max_size=12),
    shards=st.integers(1, 6),
    processes=st.integers(1, 6),
    workers=st.integers(1, 4),
    disk=st.floats(1e7, 1e11),
)
def test_more_machines_are_never_slower_and_more_processes_never_faster(
    kinds: list[int], shards: int, processes: int, workers: int, disk: float
) -> None:
    rates = replace(RATES, read_bytes=disk, write_bytes=disk, copy_bytes=disk)
    plan = plan_of_shards(kinds, shards, workers)
    parts = parts_of(plan, shards, processes)
    alone = work_seconds([plan], rates)
    apart = work_seconds(parts, rates)
    side_by_side = work_seconds(parts, rates, together=len(parts))
    assert alone / len(parts) <= apart * (1 + 1e-9)
    assert apart <= side_by_side * (1 + 1e-9)
    assert side_by_side <= alone * (1 + 1e-9)
    # The same cores and the same disk: several processes are no faster than one that has the workers of all.
    assert side_by_side >= work_seconds([replace(plan, workers=workers * len(parts))], rates) * (1 - 1e-9)
    assert apart == pytest.approx(max(shared_seconds([part], rates) for part in parts) - rates.start_seconds)
    if len(parts) == 1:
        assert alone == pytest.approx(side_by_side)


def test_two_processes_wait_for_the_one_disk_of_their_machine() -> None:
    slow = replace(RATES, copy_bytes=1e6)
    plan = plan_of_shards([0, 0, 0, 0], 4)
    parts = parts_of(plan, 4, 2)
    alone = work_seconds([plan], slow)
    assert work_seconds(parts, slow, together=2) == pytest.approx(alone, rel=1e-3)
    assert work_seconds(parts, slow, together=1) == pytest.approx(alone / 2, rel=1e-3)


def test_two_processes_compute_side_by_side() -> None:
    plan = plan_of_shards([3, 3, 3, 3], 4)
    fast = replace(RATES, read_bytes=1e15, write_bytes=1e15)
    alone = work_seconds([plan], fast)
    assert work_seconds(parts_of(plan, 4, 2), fast, together=2) == pytest.approx(alone / 2)
    # Three tensors of four are one process's where there are three shards: the others wait for it.
    uneven = plan_of_shards([3, 3, 3, 3], 3)
    assert work_seconds(parts_of(uneven, 3, 2), fast, together=2) == pytest.approx(alone / 2)
    assert work_seconds(parts_of(uneven, 3, 3), fast, together=3) == pytest.approx(alone / 2)


def test_the_machine_with_the_most_to_do_counts() -> None:
    """Two processes on each of two machines; the second machine has the largest shard's copies to make."""
    plan = plan_of_shards([3, 3, 3, 0], 4)
    parts = parts_of(plan, 4, 4)
    assert [len(part.sequence) for part in parts] == [1, 1, 1, 1]
    machines = [work_seconds(parts[:2], together=2), work_seconds(parts[2:], together=2)]
    assert work_seconds(parts, together=2) == pytest.approx(max(machines))


def test_what_is_written_twice_counts_where_it_is_written() -> None:
    island = graph_of(scaled(1)).islands[0]
    graph = TensorGraph((Island(island.program, island.leaves, ("a", "b")),))
    plan = replace(budgeted(graph, GIB, workers=1), places={"a": Place(0, 0), "b": Place(1, 0)})
    both, one = work_seconds([plan]), work_seconds(parts_of(plan, 2, 2))
    assert both == pytest.approx(one + island.spec.size_bytes / RATES.write_bytes)


def test_processes_with_a_device_each_compute_side_by_side() -> None:
    """
    ┌ process 0 ┐──── cuda:0        the processors read and write for both, the devices compute
    ┌ process 1 ┐──── cuda:1
    """
    slow = Device("cuda:0", "cuda", GIB, False, 1e9, 1e9)
    plan = on_devices(plan_of_shards([3, 3, 3, 3], 4, workers=2), [slow], asked=True)
    assert len(plan.placement.homes) == 4
    alone = work_seconds([plan])
    assert alone == pytest.approx(plan.placement.seconds)
    assert work_seconds(parts_of(plan, 4, 2), together=2) == pytest.approx(alone / 2)
    half = on_devices(plan_of_shards([3, 3, 3, 3], 4, workers=1), [slow.part(2)], asked=True)
    assert work_seconds(parts_of(half, 4, 2), together=2) == pytest.approx(alone)
    assert half.placement.devices[0].free_bytes == GIB // 2


def test_the_plan_of_several_processes_says_its_time(shared: Path) -> None:
    def seconds(**given: int) -> float:
        plan = plait.plan(shared / "recipe.yml", shard_size=SHARD_BYTES, **given)
        assert plan.report()["predicted_seconds"] == round(plan.predicted_seconds, 3)
        return plan.predicted_seconds

    alone = seconds(workers=2)
    assert seconds(workers=2, processes=1) == alone == seconds(workers=2, processes=1, processes_here=1)
    assert seconds(workers=2, processes=2) >= alone
    assert seconds(workers=2, processes=2, processes_here=1) < alone
