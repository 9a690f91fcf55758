"""What is asked of accelerate, on a machine that is made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import accelerate
import accelerate.utils
import pytest
import torch
from plait.engine import devices
from plait.engine.devices import devices_there, wanted
from plait.engine.units import GIB

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a machine of one kind of devices: what is free on each, and this process among others."""

    def make(kind: str, free: dict[int | str, int], number: int = 0, count: int = 1, **properties: object) -> None:
        monkeypatch.setattr(devices, "kinds_there", lambda: (kind,))
        monkeypatch.setattr(accelerate.utils, "get_max_memory", lambda: free)
        state = SimpleNamespace(local_process_index=number, num_processes=count)
        monkeypatch.setattr(accelerate, "PartialState", lambda: state)
        if kind != "mps":
            facts = SimpleNamespace(**properties)
            monkeypatch.setattr(getattr(torch, kind), "get_device_properties", lambda _index: facts)

    return make


def test_each_gpu_is_described(machine: Callable[..., None]) -> None:
    machine("cuda", {0: 20 * GIB, 1: 10 * GIB, "cpu": 60 * GIB})
    found = devices_there()
    assert [(each.name, each.kind, each.free_bytes) for each in found] == [
        ("cuda:0", "cuda", 18 * GIB),
        ("cuda:1", "cuda", 9 * GIB),
    ]
    assert all(each.float64 and not each.shared_with_host for each in found)
    (bounded,) = wanted("cuda:1", 4 * GIB)
    assert (bounded.name, bounded.free_bytes) == ("cuda:1", 4 * GIB)


def test_an_integrated_gpu_shares_the_hosts_memory(machine: Callable[..., None]) -> None:
    machine("cuda", {0: 20 * GIB}, is_integrated=True)
    assert [each.shared_with_host for each in devices_there()] == [True]
    machine("xpu", {0: 20 * GIB, "cpu": GIB}, has_fp64=False)
    assert [(each.name, each.float64, each.shared_with_host) for each in devices_there()] == [("xpu:0", False, False)]


def test_apples_gpu_shares_memory_and_has_no_float64(machine: Callable[..., None]) -> None:
    machine("mps", {"mps": 10 * GIB})
    (found,) = devices_there()
    assert (found.name, found.shared_with_host, found.float64, found.free_bytes) == ("mps", True, False, 9 * GIB)


def test_launched_processes_have_gpus_of_their_own(machine: Callable[..., None]) -> None:
    free = {0: 10 * GIB, 1: 10 * GIB, 2: 10 * GIB, "cpu": GIB}
    machine("cuda", free, number=1, count=2)
    assert [each.name for each in devices_there()] == ["cuda:1"]
    machine("cuda", free, number=0, count=8)
    assert [each.name for each in devices_there(processes=4)] == ["cuda:0"]


def test_processes_that_nobody_numbered_divide_the_memory(machine: Callable[..., None]) -> None:
    machine("cuda", {0: 10 * GIB, "cpu": GIB})
    assert [each.free_bytes for each in devices_there(processes=3)] == [3 * GIB]


def test_processes_keep_to_the_bound_together(machine: Callable[..., None]) -> None:
    machine("cuda", {0: 10 * GIB, 1: 2 * GIB, "cpu": GIB})
    assert [each.free_bytes for each in wanted("cuda", 4 * GIB, processes=2)] == [2 * GIB, int(0.9 * GIB)]
    alone, apart = wanted("cuda:0"), wanted("cuda:0", processes=4)
    assert [each.kernel_bytes_per_second for each in apart] == [alone[0].kernel_bytes_per_second / 4]
    assert [each.link_bytes_per_second for each in apart] == [alone[0].link_bytes_per_second / 4]
    machine("cuda", {0: 10 * GIB, "cpu": GIB}, number=1, count=2)
    assert [each.free_bytes for each in wanted("cuda", 4 * GIB)] == [2 * GIB]


def test_the_only_process_of_a_machine_has_all_of_its_gpus(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    machine("cuda", {0: 10 * GIB, 1: 10 * GIB, "cpu": GIB}, number=0, count=2)
    assert [each.name for each in wanted("auto", processes=1)] == ["cuda:0", "cuda:1"]
