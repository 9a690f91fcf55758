"""Placement: which device each pass runs on, on machines that are drawn and not there."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_support import budgeted, graph_of, loads, program_of
from plait.engine.devices import Device, chosen, share_of
from plait.engine.errors import UsageError
from plait.engine.graph import Island, TensorGraph
from plait.engine.memory import replay
from plait.engine.placement import LANES
from plait.engine.placing import device_capable
from plait.engine.plan import Plan, on_devices
from plait.engine.units import GIB, MIB
from plait.ops.arcs import slerp_coefficients
from plait.ops.elect import agree_sum, elect
from plait.ops.elementwise import add, cast, sub
from plait.ops.gram import combine, gram
from plait.ops.sparsify import drop

MATRIX = (4096, 4096)


def vote(models: int, shape: tuple[int, ...] = MATRIX, dtype: torch.dtype = torch.float32) -> TensorGraph:
    """One tensor of a DARE-TIES merge: one pass, much to compute."""
    base, *others = [cast(node, dtype=dtype) for node in loads(models + 1, shape)]
    deltas = [drop(sub(node, base), density=0.5, ordinal=ordinal) for ordinal, node in enumerate(others)]
    return graph_of(program_of(cast(add(base, agree_sum(elect(*deltas), *deltas)), dtype=torch.bfloat16)))


def arc() -> TensorGraph:
    """A tensor of a SLERP merge: dot products in one pass, the sum in another."""
    pair = [cast(node, dtype=torch.float32) for node in loads(2, MATRIX)]
    return graph_of(program_of(cast(combine(slerp_coefficients(gram(*pair), t=0.5), *pair), dtype=torch.bfloat16)))


def copy() -> TensorGraph:
    return graph_of(program_of(loads(1, MATRIX)[0]))


def many(graph: TensorGraph, count: int) -> TensorGraph:
    """So many tensors like the first of a graph."""
    (island, *_) = graph.islands
    return TensorGraph(tuple(Island(island.program, island.leaves, (f"out{index}",)) for index in range(count)))


def gpu(name: str = "cuda:0", free_bytes: int = 20 * GIB, *, link: float = 25e9, kernels: float = 600e9) -> Device:
    return Device(name, "cuda", free_bytes, False, link, kernels)


def placed(graph: TensorGraph, *devices: Device, workers: int = 4, asked: bool = False, budget: int = 4 * GIB) -> Plan:
    return on_devices(budgeted(graph, budget, workers=workers), devices, asked=asked)


def lanes_bytes(plan: Plan, index: int) -> int:
    """Bytes alive on a device at most, from the nodes of its passes alone: every lane in the largest pass."""
    count = len(plan.placement.devices)
    workers = len([worker for worker in range(plan.workers) if worker % count == index])
    largest = max(
        max(replay(current, found.tile_elements))
        for program in plan.programs.values()
        for current, found in zip(program.passes, program.devices, strict=True)
        if found is not None
    )
    return LANES * workers * largest


# ------------------------------------------------------------------------------------------------ machines


def test_a_laptop_without_a_gpu_plans_as_if_there_were_no_placement() -> None:
    """
    ┌───────────── 8 GB ─────────────┐
    │ 4 cores                        │      vote ──→ cpu
    └────────────────────────────────┘
    """
    before = budgeted(vote(3), 4 * GIB, workers=4)
    after = on_devices(before, ())
    assert after is before
    assert after.placement.devices == ()


def test_a_large_gpu_takes_what_computes_and_leaves_copies() -> None:
    """
    ┌── 16 GB ──┐   25 GB/s   ┌── 24 GB ──┐      vote ──→ cuda:0
    │ 2 cores   ├─────────────┤ cuda:0    │
    └───────────┘             └───────────┘      copy ──→ cpu
    """
    plan = placed(vote(3), gpu(free_bytes=22 * GIB), workers=2)
    assert [device.name for device in plan.placement.devices] == ["cuda:0"]
    assert plan.placement.homes == {0: 0}
    assert plan.placement.seconds < plan.placement.host_seconds
    assert "cuda:0 computes 1 of 1 tensors" in plan.placement.reasons[0]
    plain = placed(copy(), gpu(free_bytes=22 * GIB), workers=2)
    assert plain.placement.devices == ()
    assert (
        "cuda:0 is left out: copies, ranks and sums over whole tensors are the processor's" in plain.placement.reasons
    )


def test_a_pass_of_sums_stays_and_the_last_pass_goes() -> None:
    """
    cpu      ┌ dot products ┐
    cuda:0                  └ combine ┐
    """
    plan = placed(arc(), gpu(), workers=2, asked=True)
    (program,) = plan.programs.values()
    assert [found is not None for found in program.devices] == [False, True]


def test_where_the_disk_is_what_everything_waits_for_the_processor_keeps_the_work() -> None:
    """
    disk 2.6 GB/s ══→ ┌ 64 cores ┐ ──── cuda:0: nothing would end earlier
    """
    plan = placed(vote(3), gpu(), workers=64, budget=64 * GIB)
    assert plan.placement.devices == ()
    (reason,) = plan.placement.reasons
    assert reason.startswith("cuda:0 is left out: ")
    assert "with it" in reason


def test_a_slow_link_leaves_a_gpu_out() -> None:
    """
    ┌ 2 cores ┐   0.05 GB/s   ┌ cuda:0 ┐      vote ──→ cpu
    """
    plan = placed(vote(3), gpu(link=5e7), workers=2)
    assert plan.placement.devices == ()
    assert plan.placement.seconds == plan.placement.host_seconds


def test_a_device_that_was_asked_for_is_used_however_slow_it_is() -> None:
    plan = placed(vote(3), gpu(link=5e7), workers=2, asked=True)
    assert [device.name for device in plan.placement.devices] == ["cuda:0"]
    assert plan.placement.seconds > plan.placement.host_seconds


def test_two_unequal_gpus_share_by_how_fast_they_are() -> None:
    """
                   ┌── 24 GB ──┐
    ┌── 64 GB ──┬──┤ cuda:0    │  three times as fast
    │ 8 cores   │  └───────────┘
    └───────────┤  ┌── 8 GB ───┐
                └──┤ cuda:1    │
                   └───────────┘
    """
    fast, slow = gpu("cuda:0", 22 * GIB, link=0.9e9), gpu("cuda:1", 7 * GIB, link=0.3e9)
    plan = placed(many(vote(3), 40), fast, slow, workers=2)
    assert [device.name for device in plan.placement.devices] == ["cuda:0", "cuda:1"]
    first = sum(home == 0 for home in plan.placement.homes.values())
    assert (first, len(plan.placement.homes)) == (30, 40)


def test_a_gpu_too_slow_to_help_another_is_left_out() -> None:
    fast, slow = gpu("cuda:0", link=5e9), gpu("cuda:1", link=1e5)
    plan = placed(many(vote(3), 3), fast, slow, workers=2)
    assert [device.name for device in plan.placement.devices] == ["cuda:0"]
    assert "cuda:1 is left out: the others end no later without it" in plan.placement.reasons


def test_memory_that_is_shared_counts_once() -> None:
    """
    ┌──────────── 16 GB ────────────┐
    │ 8 cores        mps            │   budget 1 GiB for both
    └───────────────────────────────┘
    """
    apple = Device("mps", "mps", 12 * GIB, True, 40e9, 100e9, False)
    plan = placed(vote(3), apple, workers=2, asked=True, budget=GIB)
    assert [device.name for device in plan.placement.devices] == ["mps"]
    alone = budgeted(vote(3), GIB, workers=2)
    (peak,) = plan.placement.peaks_bytes
    assert plan.predicted_peak_bytes == alone.predicted_peak_bytes + peak <= GIB


def test_what_needs_float64_does_not_go_where_there_is_none() -> None:
    wide = vote(3, dtype=torch.float64)
    apple = Device("mps", "mps", 12 * GIB, True, 40e9, 100e9, False)
    plan = placed(wide, apple, workers=2, asked=True)
    assert plan.placement.devices == ()
    assert "float64 is asked for, which it does not have" in plan.placement.reasons[0]
    assert placed(wide, replace(apple, float64=True), workers=2, asked=True).placement.devices != ()


def test_eight_gpus_have_equal_shares() -> None:
    """
    ┌ 64 cores ┐── cuda:0 … cuda:7, all alike, behind slow links
    """
    devices = [gpu(f"cuda:{index}", 80 * GIB, link=0.2e9) for index in range(8)]
    plan = placed(many(vote(3), 64), *devices, workers=8, asked=True, budget=64 * GIB)
    assert len(plan.placement.devices) == 8
    assert sorted(plan.placement.homes.values()) == sorted([*range(8)] * 8)


def test_a_device_has_workers_of_its_own() -> None:
    devices = [gpu(f"cuda:{index}", link=0.2e9) for index in range(8)]
    plan = placed(many(vote(3), 64), *devices, workers=3, asked=True)
    assert len(plan.placement.devices) == 3


def test_too_little_memory_on_a_device_is_said() -> None:
    plan = placed(vote(3), gpu(free_bytes=MIB), workers=4, asked=True)
    assert plan.placement.devices == ()
    assert "1.00 MiB are too little for the smallest tiles" in plan.placement.reasons[0]


def test_less_memory_on_a_device_gives_smaller_tiles() -> None:
    sizes = []
    for free_bytes in (GIB, 64 * MIB, 16 * MIB, 8 * MIB):
        plan = placed(vote(3), gpu(free_bytes=free_bytes), workers=4, asked=True)
        (program,) = plan.programs.values()
        sizes.append(program.tile_elements(0))
        assert lanes_bytes(plan, 0) <= plan.placement.peaks_bytes[0] <= free_bytes
    assert sizes == sorted(set(sizes), reverse=True)


def test_the_lanes_of_a_worker_fit_into_its_arena() -> None:
    for budget in (30 * MIB, 60 * MIB, 400 * MIB):
        plan = placed(vote(3), gpu(), workers=2, asked=True, budget=budget)
        (program,) = plan.programs.values()
        (found,) = program.devices
        assert found is not None
        assert LANES * found.staging.size_bytes <= plan.arena_bytes
        assert plan.predicted_peak_bytes <= budget


# ------------------------------------------------------------------------------------------------ any machine

GRAPHS = [vote(2), vote(3, (1000, 300)), vote(3, dtype=torch.float64), arc(), copy(), many(arc(), 5), many(vote(2), 9)]


def devices_of(most: int = 4) -> st.SearchStrategy[list[Device]]:
    one = st.builds(
        Device,
        st.just(""),
        st.sampled_from(["cuda", "xpu", "mps"]),
        st.sampled_from([0, MIB, 10 * MIB, 300 * MIB, 24 * GIB]),
        st.booleans(),
        st.sampled_from([1e7, 1e9, 25e9]),
        st.sampled_from([1e9, 600e9]),
        st.booleans(),
    )
    return st.lists(one, max_size=most).map(
        lambda found: [replace(device, name=f"{device.kind}:{index}") for index, device in enumerate(found)]
    )


@settings(max_examples=60, deadline=None)
@given(
    devices=devices_of(),
    which=st.integers(0, len(GRAPHS) - 1),
    workers=st.integers(1, 9),
    budget=st.sampled_from([60 * MIB, 400 * MIB, 8 * GIB]),
    asked=st.booleans(),
)
def test_no_device_is_ever_asked_for_more_than_it_has(
    devices: list[Device], which: int, workers: int, budget: int, asked: bool
) -> None:
    plan = placed(GRAPHS[which], *devices, workers=workers, asked=asked, budget=budget)
    found = plan.placement
    for index, (device, peak) in enumerate(zip(found.devices, found.peaks_bytes, strict=True)):
        assert lanes_bytes(plan, index) <= peak <= device.free_bytes
    assert plan.predicted_peak_bytes <= budget
    assert len(found.reasons) == len(devices)
    again = placed(GRAPHS[which], *devices, workers=workers, asked=asked, budget=budget).placement
    assert (again.devices, again.homes, again.seconds) == (found.devices, found.homes, found.seconds)


@settings(max_examples=60, deadline=None)
@given(
    devices=devices_of(3),
    more=devices_of(1),
    which=st.integers(0, len(GRAPHS) - 1),
    workers=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_a_device_more_never_takes_longer(
    devices: list[Device], more: list[Device], which: int, workers: int, seed: int
) -> None:
    together = devices + [replace(device, name="more") for device in more]
    random.Random(seed).shuffle(together)
    before = placed(GRAPHS[which], *devices, workers=workers).placement
    after = placed(GRAPHS[which], *together, workers=workers).placement
    assert after.seconds <= after.host_seconds
    if devices:
        assert after.seconds <= before.seconds


def test_nothing_that_only_copies_runs_on_a_device() -> None:
    plan = placed(copy(), gpu(), asked=True)
    assert not any(device_capable(current) for program in plan.programs.values() for current in program.passes)


# ------------------------------------------------------------------------------------------------ which devices


def test_an_option_names_all_a_kind_or_one() -> None:
    there = [gpu("cuda:0"), gpu("cuda:1")]
    assert chosen("auto", there) == chosen("cuda", there) == tuple(there)
    assert chosen("cuda:1", there) == (there[1],)
    assert chosen("cpu", there) == chosen("auto", []) == ()


@pytest.mark.parametrize("name", ["cuda:2", "mps", "gpu", "xpu"])
def test_a_device_that_is_not_there_is_an_error_with_those_that_are(name: str) -> None:
    with pytest.raises(
        UsageError, match=rf"--device {name}: there is no such device here; there is cpu, cuda:0, cuda:1"
    ):
        chosen(name, [gpu("cuda:0"), gpu("cuda:1")])
    with pytest.raises(UsageError, match=r"there is cpu$"):
        chosen(name, [])


def test_processes_divide_the_devices_among_them() -> None:
    there = [gpu(f"cuda:{index}", 9 * GIB) for index in range(3)]
    assert share_of(there, 0, 1) == tuple(there)
    assert [device.name for device in share_of(there, 0, 2)] == ["cuda:0", "cuda:2"]
    assert [device.name for device in share_of(there, 1, 2)] == ["cuda:1"]
    each = [share_of(there, process, 5) for process in range(5)]
    assert [device.name for (device,) in each] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    for name in ("cuda:0", "cuda:1", "cuda:2"):
        assert sum(device.free_bytes for (device,) in each if device.name == name) <= 9 * GIB
    assert share_of([], 1, 2) == ()
