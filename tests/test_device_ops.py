"""Ops on devices: which have a form for one, and that it is bit for bit what the host computes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import plait.ops  # noqa: F401 -- registers the ops
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plait.engine.graph import TensorSpec
from plait.engine.opdef import Tile, ops
from plait.engine.portable import portable
from plait.ops import counter_rng, device_rng


@settings(max_examples=200, deadline=None)
@given(
    lo=st.one_of(st.integers(0, 9), st.integers(0, 1 << 40)),
    elements=st.integers(1, 5000),
    density=st.one_of(st.floats(0.0001, 0.9999), st.sampled_from([0.5, 0.25, 1 / 65536, 65535 / 65536])),
    key=st.integers(0, (1 << 64) - 1),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_masks_are_the_same_on_a_device(lo: int, elements: int, density: float, key: int, dtype: torch.dtype) -> None:
    hi = lo + elements
    room = np.empty(counter_rng.scratch_bytes(elements), np.uint8)
    expected = counter_rng.kept(lo, hi, density, key, room)
    scratch = torch.full((device_rng.scratch_bytes(elements),), 0xA5, dtype=torch.uint8)
    found = device_rng.mask(lo, hi, density, key, scratch, dtype)
    assert found.dtype == dtype
    assert found.tolist() == expected.tolist()


def test_the_second_draw_is_taken_where_lanes_are_equal() -> None:
    # A share that lies between two lanes: without the second draw the counts would be off by the fraction.
    density, elements = 0.5 / 65536, 1 << 22
    room = np.empty(counter_rng.scratch_bytes(elements), np.uint8)
    expected = counter_rng.kept(0, elements, density, 7, room)
    scratch = torch.empty(device_rng.scratch_bytes(elements), dtype=torch.uint8)
    found = device_rng.mask(0, elements, density, 7, scratch, torch.float32)
    assert 0 < int(expected.sum()) < 64
    assert torch.equal(found.bool(), torch.from_numpy(expected))


ON_DEVICES = {
    "add",
    "agree_sum",
    "agree_weight",
    "agreed_mean",
    "boosted_mean",
    "cast",
    "clamp",
    "combine",
    "divide",
    "drop",
    "elect",
    "fill",
    "gate",
    "keep_ranked",
    "largest",
    "match_l1",
    "moved_mean",
    "scale",
    "sub",
    "tall_sum",
}


def test_these_ops_and_no_others_run_on_devices() -> None:
    assert {name for name, each in ops().items() if each.device_form is not None} == ON_DEVICES


def test_the_page_says_which_ops_run_where() -> None:
    page = (Path(__file__).parent.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith(("| any device", "| the host |"))]
    there, own, host = (set(re.findall(r"`(\w+)`", row)) for row in rows)
    assert there == {name for name in ON_DEVICES if ops()[name].device is None}
    assert own == {name for name in ON_DEVICES if ops()[name].device is not None}
    elements = {name for name, each in ops().items() if each.locality == "element" and each.kernel is not None}
    assert host == elements - ON_DEVICES


# Kernels as somebody might write them. None of them is called.
FACTOR = 2.0


def plain(out, ins, scratch, tile, *, factor):  # type: ignore[no-untyped-def]
    torch.mul(ins[0], factor * FACTOR, out=out)
    out.clamp_(-1, 1)


def by_way_of_another(out, ins, scratch, tile):  # type: ignore[no-untyped-def]
    for x in [each for each in ins]:  # noqa: C416
        plain(out, [x], scratch, tile, factor=2)


def through_numpy(out, ins, scratch, tile):  # type: ignore[no-untyped-def]
    np.multiply(ins[0].numpy(), 2, out=out.numpy())


def through_a_method_of_numpy(out, ins, scratch, tile):  # type: ignore[no-untyped-def]
    out.copy_(torch.from_numpy(ins[0].numpy()))


def exponential(out, ins, scratch, tile):  # type: ignore[no-untyped-def]
    torch.exp(ins[0], out=out)


def adds_up(out, ins, scratch, tile):  # type: ignore[no-untyped-def]
    out.fill_(ins[0].sum())


def fused(out, ins, scratch, tile):  # type: ignore[no-untyped-def]
    out.addcmul_(ins[0], ins[1])


def asks_another_that_is_not(out, ins, scratch, tile):  # type: ignore[no-untyped-def]
    exponential(out, ins, scratch, tile)


def holding(factor):  # type: ignore[no-untyped-def]
    def kernel(out, ins, scratch, tile):  # type: ignore[no-untyped-def]
        torch.mul(ins[0], factor, out=out)

    return kernel


@pytest.mark.parametrize("kernel", [plain, by_way_of_another])
def test_a_kernel_of_exact_operations_is_portable(kernel: object) -> None:
    assert portable(kernel)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "kernel",
    [
        through_numpy,
        through_a_method_of_numpy,
        exponential,
        adds_up,
        fused,
        asks_another_that_is_not,
        holding(2.0),
        np.add,
    ],
)
def test_a_kernel_that_does_anything_else_is_not(kernel: object) -> None:
    assert not portable(kernel)  # type: ignore[arg-type]


AWKWARD = [0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-149), 2.0**-126, 3e38, -3e38, 1e-7, -0.02, 0.3]


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["agree_sum", "drop"]),
    seed=st.integers(0, 1 << 30),
    count=st.integers(1, 4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_forms_of_their_own_give_the_hosts_bytes(name: str, seed: int, count: int, dtype: torch.dtype) -> None:
    random, elements = np.random.default_rng(seed), 517
    values = [torch.from_numpy(random.choice(AWKWARD, elements)).to(dtype) for _ in range(count)]
    attrs = {}
    if name == "agree_sum":
        values.insert(0, torch.from_numpy(random.choice([-1.0, 1.0], elements)).to(dtype))
    else:
        attrs, values = {"density": 0.3, "key": seed}, values[:1]
    definition = ops()[name]
    specs = [TensorSpec((elements,), dtype, "delta")] * len(values)
    found = []
    for form in (definition, definition.device_form):
        assert form is not None
        assert form.kernel is not None
        scratch = torch.full((form.scratch_bytes(specs, elements) // 8 * 8 + 8,), 0xA5, dtype=torch.uint8)
        out = torch.full((elements,), 7.0, dtype=dtype)
        form.kernel(out, [x.clone() for x in values], scratch, Tile(40, 40 + elements), **attrs)
        found.append(out.numpy().tobytes())
    assert found[0] == found[1]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    rank=st.integers(1, 70_000),
    values=st.sampled_from([2, 40, 10_000]),
    descending=st.booleans(),
    rest=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    lo=st.integers(0, 69_000),
    in_place=st.booleans(),
)
def test_ties_are_chosen_on_a_device_as_on_the_host(
    seed: int, rank: int, values: int, descending: bool, rest: bool, dtype: torch.dtype, lo: int, in_place: bool
) -> None:
    elements, block = 70_000, 1 << 16
    random = np.random.default_rng(seed)
    whole = torch.from_numpy(random.integers(-values, values, elements) / 64 * random.choice([1.0, -1.0], elements))
    whole = whole.to(dtype)
    sizes = whole.abs()
    threshold = torch.sort(sizes, descending=descending).values[rank - 1]
    beyond = int((sizes > threshold).sum() if descending else (sizes < threshold).sum())
    ties = (sizes == threshold).numpy()
    before = np.concatenate([[0], np.cumsum([ties[at : at + block].sum() for at in range(0, elements, block)])])
    integer = torch.int32 if dtype == torch.float32 else torch.int64
    state = torch.tensor([int(threshold.view(integer)), rank - beyond, *before], dtype=torch.int64)
    tile = Tile(lo // 4096 * 4096, elements)
    definition = ops()["keep_ranked"]
    found = []
    for form in (definition, definition.device_form):
        assert form is not None
        assert form.kernel is not None
        x = whole[tile.lo :].clone()
        out = x if in_place else torch.full_like(x, 7.0)
        spec = TensorSpec((elements,), dtype, "delta")
        scratch = torch.full((form.scratch_bytes([spec], tile.elements) // 8 * 8 + 8,), 0xA5, dtype=torch.uint8)
        form.kernel(out, [x, state], scratch, tile, descending=descending, rest=rest)
        found.append(out.numpy().tobytes())
    assert found[0] == found[1]
