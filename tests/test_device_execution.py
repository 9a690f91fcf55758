"""The executor with devices, which are pretended here: memory of their own, lanes, staging, and the host's bytes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from plait.engine.backends import PretendedBackend, TorchBackend
from plait.engine.device_check import agrees
from plait.engine.device_use import DevicesInUse
from plait.engine.devices import pretended
from plait.engine.errors import InputError, NonfiniteError, RecipeError
from plait.engine.execute import execute
from plait.engine.methoddef import methods
from plait.engine.opdef import Tile
from plait.engine.plan import on_devices
from plait.engine.units import GIB, MIB
from support import CrowdedBackend, MemoryReader, MemoryWriter, Merge, digests, family, merges, typical

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait.engine.backends import Backend
    from plait.engine.devices import Device
    from plait.engine.model import StoredTensor
    from plait.engine.plan import Plan

BF16 = torch.bfloat16
SHAPES = {"matrix": (301, 523), "vector": (4097,), "cube": (7, 13, 47), "single": (1,), "empty": (5, 0)}
MODELS = {ref: {**tensors, "counts": torch.arange(900)} for ref, tensors in family(SHAPES, (BF16,) * 5).items()}
TWO = (pretended("pretended:0"), pretended("pretended:1"))
STAYS = {"arcee_fusion"}
"""Methods whose every pass has an op that is the processor's."""


def placed(merge: Merge, *devices: Device, workers: int = 2, tile_elements: int = 1 << 13) -> Plan:
    return on_devices(merge.plan(workers=workers, tile_elements=tile_elements), devices, asked=True)


class Outcome:
    """A run of a plan on devices: tensors, what it said, the peaks."""

    def __init__(
        self,
        merge: Merge,
        plan: Plan,
        backends: Mapping[str, Backend] | None = None,
        let_through: set[StoredTensor] | None = None,
    ) -> None:
        self.writer = MemoryWriter({name: island.spec for island in plan.graph.islands for name in island.outputs})
        self.use = DevicesInUse(plan, backends)
        reader = MemoryReader(merge.models)
        self.progress = execute(plan, reader, self.writer, timed=self.use.worker, let_through=let_through)
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("plait")] == []

    @property
    def digests(self) -> dict[str, bytes]:
        return digests(self.writer.tensors())


def dare(models: Any = MODELS, **parameters: Any) -> Merge:
    entries = [(ref, {"weight": 0.5, "density": 0.37}) for ref in ("m0", "m1", "m2")]
    return Merge("dare_ties", models, entries, "base", parameters)


# ------------------------------------------------------------------------------------------------ the same bytes


@pytest.mark.parametrize("name", methods())
def test_a_device_writes_what_the_host_writes(name: str) -> None:
    merge = typical(name, MODELS)
    plan = placed(merge, *TWO, workers=3)
    assert (plan.placement.devices == ()) == (name in STAYS)
    if name in STAYS:
        return
    expected = digests(merge.run(tile_elements=1 << 19))
    found = Outcome(merge, plan)
    assert found.digests == expected
    assert found.use.notes == []
    peaks = found.use.measured_peaks_bytes()
    assert set(peaks) == {device.name for device in plan.placement.devices}
    for device, predicted in zip(plan.placement.devices, plan.placement.peaks_bytes, strict=True):
        assert 0 < peaks[device.name] <= predicted <= device.free_bytes
    host = merge.plan(workers=3, tile_elements=1 << 13)
    assert plan.predicted_peak_bytes == host.predicted_peak_bytes
    assert (
        found.progress.bytes_read
        == execute(
            host, MemoryReader(merge.models), MemoryWriter({n: i.spec for i in host.graph.islands for n in i.outputs})
        ).bytes_read
    )


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(data=st.data(), workers=st.integers(1, 4), count=st.integers(1, 2), exponent=st.integers(12, 17))
def test_any_merge_on_any_number_of_devices(data: st.DataObject, workers: int, count: int, exponent: int) -> None:
    dtypes = data.draw(st.sampled_from([(BF16,) * 5, (torch.float64,) * 5, (BF16, torch.float32, torch.float16, BF16)]))
    name = data.draw(st.sampled_from(sorted(set(methods()) - STAYS)))
    models = family({"matrix": (61, 523), "vector": (517,)}, dtypes)
    merge = data.draw(merges(methods()[name], models))
    try:
        expected = digests(merge.run(tile_elements=1 << 19))
    except (InputError, RecipeError):
        assume(False)
    plan = placed(merge, *TWO[:count], workers=workers, tile_elements=1 << exponent)
    assume(plan.placement.devices)
    assert Outcome(merge, plan).digests == expected


def test_zeros_of_both_signs_come_back_as_they_are() -> None:
    zeros = {ref: {"t": tensors["vector"].clone()} for ref, tensors in MODELS.items()}
    for ref, tensors in zeros.items():
        tensors["t"][::3] = -0.0 if ref == "base" else 0.0
        tensors["t"][1::7] = -0.0
    merge = dare(zeros, normalize=True)
    assert Outcome(merge, placed(merge, TWO[0])).digests == digests(merge.run())


@pytest.mark.parametrize("workers", [1, 3])
def test_torchs_own_streams_and_marks_give_the_same(workers: int) -> None:
    """Torch has streams and events for the processor, too, which do nothing."""
    merge = dare(normalize=True)
    plan = placed(merge, TWO[0], workers=workers)
    found = Outcome(merge, plan, {"pretended:0": TorchBackend("cpu")})
    assert found.digests == digests(merge.run())
    assert found.use.notes == []


# ------------------------------------------------------------------------------------------------ too little memory


@pytest.mark.parametrize("share", [0.6, 0.3, 0.02])
def test_less_memory_than_planned_gives_smaller_tiles(share: float) -> None:
    merge = dare()
    plan = placed(merge, TWO[0], workers=1, tile_elements=1 << 17)
    (predicted,) = plan.placement.peaks_bytes
    backend = PretendedBackend(int(predicted * share))
    found = Outcome(merge, plan, {"pretended:0": backend})
    assert found.digests == digests(merge.run())
    (note,) = found.use.notes
    assert note.startswith("pretended:0 had ")
    assert ("tiles are smaller" in note) == (share > 0.1)
    assert 0 <= backend.measured_peak_bytes() <= predicted * share


def test_workers_that_find_no_memory_compute_here() -> None:
    merge = dare()
    plan = placed(merge, TWO[0], workers=3)
    found = Outcome(merge, plan, {"pretended:0": PretendedBackend(plan.placement.peaks_bytes[0] // 3)})
    assert found.digests == digests(merge.run())
    assert any("computed on the processor" in note for note in found.use.notes)


@pytest.mark.parametrize("workers", [1, 3])
def test_memory_that_goes_while_it_computes_costs_tiles_and_no_bytes(workers: int) -> None:
    merge = dare()
    plan = placed(merge, TWO[0], workers=workers)
    backend = CrowdedBackend()
    found = Outcome(merge, plan, {"pretended:0": backend})
    assert backend.marks > 14
    assert found.digests == digests(merge.run())
    assert found.use.notes == ["pretended:0 ran out of memory: some of its tiles were computed on the processor"]


# ------------------------------------------------------------------------------------------------ other bytes


class Flushing(PretendedBackend):
    """A device that has no numbers below the normal range."""

    def to_device(self, values: torch.Tensor) -> torch.Tensor:
        if not values.is_floating_point():
            return values.clone()
        return torch.where(values.abs() < 2.0**-126, torch.zeros_like(values), values)


def test_a_device_that_computes_otherwise_does_not_get_the_pass() -> None:
    merge = dare()
    plan = placed(merge, TWO[0])
    backend = Flushing(GIB)
    assert not agrees(next(iter(plan.programs.values())).passes[0], backend)
    found = Outcome(merge, plan, {"pretended:0": backend})
    assert found.digests == digests(merge.run())
    (note,) = found.use.notes
    assert note.startswith("pretended:0: passes of add, agree_sum, cast, drop, elect, scale, sub come out with other ")


def test_every_pass_of_the_methods_agrees_with_itself() -> None:
    merge = dare()
    for program in placed(merge, TWO[0]).programs.values():
        for index, current in enumerate(program.passes):
            assert program.on_device(index) is None or agrees(current, PretendedBackend(GIB))


# ------------------------------------------------------------------------------------------------ NaN, errors, gaps


def with_nan() -> dict[str, dict[str, torch.Tensor]]:
    models = {ref: {name: tensor.clone() for name, tensor in each.items()} for ref, each in MODELS.items()}
    models["m1"]["matrix"].view(-1)[[5, 70_000, 70_001]] = torch.tensor([float("nan"), float("inf"), -3e38]).to(BF16)
    return models


def test_nan_is_refused_as_on_the_host() -> None:
    merge = dare(with_nan())
    with pytest.raises(NonfiniteError) as expected:
        merge.run(tile_elements=1 << 13)
    with pytest.raises(NonfiniteError) as found:
        Outcome(merge, placed(merge, TWO[0], workers=1))
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("workers", [1, 3])
def test_nan_that_is_let_through_gives_the_hosts_bytes(workers: int) -> None:
    merge = dare(with_nan())
    here: set[StoredTensor] = set()
    there: set[StoredTensor] = set()
    expected = digests(merge.run(let_through=here))
    assert Outcome(merge, placed(merge, *TWO, workers=workers), let_through=there).digests == expected
    assert (
        {(each.model, each.name) for each in there} == {(each.model, each.name) for each in here} == {("m1", "matrix")}
    )


class Broken(MemoryReader):
    def read_into(self, tensor: StoredTensor, offset_bytes: int, out: torch.Tensor) -> None:
        if offset_bytes > 100_000:
            raise InputError("a bad sector")
        super().read_into(tensor, offset_bytes, out)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_ends_the_run_and_leaves_nobody_behind(workers: int) -> None:
    merge = dare()
    plan = placed(merge, *TWO, workers=workers)
    writer = MemoryWriter({name: island.spec for island in plan.graph.islands for name in island.outputs})
    with pytest.raises(InputError, match="a bad sector"):
        execute(plan, Broken(merge.models), writer, timed=DevicesInUse(plan).worker)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("plait")] == []


def test_a_run_that_goes_on_fills_the_gaps() -> None:
    merge = dare()
    plan = placed(merge, TWO[0])
    position = next(i for i, island in enumerate(plan.graph.islands) if island.name == "matrix")
    elements = plan.graph.islands[position].spec.elements
    gaps = (Tile(0, 5000), Tile(5003, 50_001), Tile(60_000, elements))
    writer = MemoryWriter({name: island.spec for island in plan.graph.islands for name in island.outputs})
    whole = merge.run()
    for lo, hi in ((5000, 5003), (50_001, 60_000)):
        writer.write_from("matrix", 2 * lo, whole["matrix"].view(-1)[lo:hi].view(torch.uint8))
    execute(plan, MemoryReader(merge.models), writer, timed=DevicesInUse(plan).worker, left={position: gaps})
    assert digests(writer.tensors()) == digests(whole)


# ------------------------------------------------------------------------------------------------ memory


def test_nothing_is_allocated_while_tiles_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    merge = dare()
    plan = placed(merge, TWO[0])
    backend = PretendedBackend(GIB)
    asked: list[int] = []
    plain = backend.allocate
    monkeypatch.setattr(backend, "allocate", lambda size_bytes: asked.append(size_bytes) or plain(size_bytes))
    Outcome(merge, plan, {"pretended:0": backend})
    # One allocation a worker, and together what was predicted.
    assert len(asked) == plan.workers
    assert sum(asked) == plan.placement.peaks_bytes[0]


def test_a_device_that_shares_the_hosts_memory_is_in_the_prediction() -> None:
    merge = dare()
    shared = pretended("pretended:0", 64 * MIB, shared_with_host=True)
    host = merge.plan(workers=2, tile_elements=1 << 13)
    plan = on_devices(host, [shared], asked=True)
    assert plan.predicted_peak_bytes == host.predicted_peak_bytes + plan.placement.peaks_bytes[0]
