"""Arcee Fusion and SCE where cases by chance do not go: rows in tiles, masks of a usual size, ties on a grid."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_support import program_of
from plain_fusion import PLAIN
from plain_ops import reduce_in_tiles
from plait.engine.graph import TensorSpec
from plait.engine.opdef import Tile, load
from plait.engine.tiling import cut
from plait.ops.elementwise import add, sub
from plait.ops.fusion import importance, row_divergence
from plait.ops.spread import nonzero_count, spread
from reference_fusion import fusion_mask
from support import Merge, as_bytes

BF16, F32, F64 = torch.bfloat16, torch.float32, torch.float64


def divergences(x: torch.Tensor, base: torch.Tensor, tile_rows: int, shift: int = 0) -> torch.Tensor:
    """KL of the rows, tile by tile, in working memory that is not clean."""
    rows, columns = x.shape
    reduction, kernel = row_divergence.reduction, row_divergence.kernel
    assert reduction is not None
    assert kernel is not None
    specs = [TensorSpec((rows, columns), x.dtype)] * 2
    state = torch.full(reduction.state_spec(specs, x.numel(), columns).shape, float("nan"), dtype=F64)
    starts = [0, *range(shift or tile_rows, rows, tile_rows), rows]
    for lo, hi in itertools.pairwise(starts):
        tile = Tile(lo * columns, hi * columns)
        partial = torch.full(reduction.partial_spec(specs, tile.elements, columns).shape, float("nan"), dtype=F64)
        scratch = torch.full((row_divergence.scratch_bytes(specs, tile.elements),), 0xA5, dtype=torch.uint8)
        ins = [values[lo:hi].reshape(-1) for values in (x, base)]
        kernel(partial, ins, scratch, tile, block_elements=columns)
        reduction.fold(state, partial, tile, columns)
    return reduction.result(state, row_divergence.infer(specs, {}))


def two(rows: int, columns: int, dtype: torch.dtype, step: float = 1e-3) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of the usual size, and others a step away."""
    random = np.random.default_rng(rows * columns)
    base = torch.from_numpy(random.normal(0, 0.02, (rows, columns))).to(dtype)
    x = (base.double() + torch.from_numpy(random.normal(0, step, (rows, columns)))).to(dtype)
    return x, base


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(("rows", "columns"), [(97, 1), (1003, 3), (211, 64), (67, 777), (9, 4099), (3, 70001)])
def test_a_row_has_one_divergence_wherever_it_lies(rows: int, columns: int, dtype: torch.dtype) -> None:
    x, base = two(rows, columns, dtype)
    whole = divergences(x, base, rows)
    torch.testing.assert_close(whole, PLAIN["row_divergence"]([x, base]), rtol=1e-6 if dtype == F32 else 1e-9, atol=0)
    for tile_rows, shift in ((1, 0), (2, 1), (5, 3), (50, 7)):
        assert torch.equal(as_bytes(divergences(x, base, tile_rows, shift)), as_bytes(whole))


@pytest.mark.parametrize("step", [1e-12, 1e-9, 1e-6, 1e-3, 0.3, 4.0])
def test_a_divergence_is_no_cancellation_noise(step: float) -> None:
    x, base = two(7, 513, F64, step)
    found = divergences(x, base, 7)
    # Second order, from differences that are exact: what is left after the terms of first order.
    p, q = (np.exp(values.numpy().astype(np.longdouble)) for values in (x, base))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True) + 1e-8
    ratio = (p - (q - 1e-8)) / q
    small = (ratio**2 / 2 - ratio**3 / 6 + ratio**4 / 12) * q
    terms = small if step < 1e-4 else q * ((1 + ratio) * np.log1p(ratio) - ratio)
    expected = 2.0**64 * terms.sum(1).astype(np.float64)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10 + 1e-15 / step)


def test_equal_rows_do_not_diverge_and_far_ones_stay_finite() -> None:
    x, base = two(5, 300, F64)
    x[2] = base[2]
    x[3], base[3] = 1e4 * base[3], -1e4 * base[3]
    x[4, 0] = 1e6
    found = divergences(x, base, 5) / 2.0**64
    assert found[2] == 0
    assert bool((found[[0, 1, 3, 4]] > 0).all())
    assert bool((found < 19).all())  # -log of what is added to a probability


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_tile_may_begin_and_end_within_a_row(data: st.DataObject) -> None:
    columns, rows = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 12))
    delta, divergence = two(rows, columns, F32)[0].reshape(-1), torch.rand(rows)
    lo = data.draw(st.integers(0, delta.numel()))
    hi = data.draw(st.integers(lo, delta.numel()))
    out = torch.full((hi - lo,), float("nan"))
    assert importance.kernel is not None
    importance.kernel(out, [delta[lo:hi], divergence], torch.empty(0), Tile(lo, hi), row_elements=columns)
    assert torch.equal(out, (delta.abs() * divergence.repeat_interleave(columns))[lo:hi])


@pytest.mark.parametrize("shape", [(300, 700), (70_000,), (40_000, 3)])
def test_a_reduction_by_row_has_whole_rows_in_its_tiles(shape: tuple[int, ...]) -> None:
    x, base = (load(slot=slot, shape=shape, dtype=F32) for slot in (0, 1))
    scored = importance(sub(x, base), row_divergence(x, base), row_elements=shape[-1])
    first, second = cut(program_of(add(base, scored)))
    assert (first.granularity, second.granularity) == ("row", "element")
    assert (first.block_elements, second.block_elements) == (shape[-1], 1 << 16)
    for target in (1, 4096, 100_000):
        assert first.tile_elements(target) % shape[-1] == 0


# ------------------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize("dtype", [BF16, F32])
def test_the_mask_of_arcee_fusion_is_that_of_float64(dtype: torch.dtype) -> None:
    x, base = two(512, 1024, dtype)
    merged = Merge("arcee_fusion", {"base": {"w": base}, "m": {"w": x}}, [("m", {})], "base").run(workers=2)["w"]
    found = (merged != base).numpy()
    expected, _ = fusion_mask(base.double().numpy(), x.double().numpy(), 0.0)
    expected &= (x != base).numpy()
    assert 0.01 < expected.mean() < 0.3
    jaccard = (found & expected).sum() / (found | expected).sum()
    assert jaccard >= 0.9999


@pytest.mark.parametrize("step", [2.0**-7, 3 * 2.0**-7])
def test_a_change_of_just_the_threshold_is_taken_over(step: float) -> None:
    # Of one row all are ranked by |Δ|: quartiles of 1, 2 and 3 steps make 2 + 1.5·(3 - 1) = 5 the threshold.
    steps = torch.tensor([1, 2, 3, 5, 4] + [1, 2, 2, 3] * 15, dtype=F64)
    base = 1 + torch.arange(len(steps)) / 64
    models = {"base": {"w": base.to(BF16)}, "m": {"w": (base.to(BF16).double() + steps * step).to(BF16)}}
    models["base"]["w"] = (models["m"]["w"].double() - steps * step).to(BF16)
    moved = (models["m"]["w"].double() - models["base"]["w"].double()) / step
    merged = Merge("arcee_fusion", models, [("m", {})], "base").run()["w"]
    ordered, last = moved.sort().values, len(steps) - 1
    low, median, high = (float(ordered[last * quarter // 4]) for quarter in (1, 2, 3))
    assert torch.equal(merged != models["base"]["w"], moved >= median + 1.5 * (high - low))


def test_of_equal_variances_the_first_are_kept() -> None:
    # Which of the models moved, and which way, does not matter to how much they disagree.
    base = torch.zeros(6, dtype=BF16)
    first = torch.tensor([0, 0.3, 0, -0.3, 0.1, 0], dtype=BF16)
    second = torch.tensor([0.3, 0, 0, 0, 0.1, -0.3], dtype=BF16)
    models = {"base": {"w": base}, "m0": {"w": first}, "m1": {"w": second}}
    for share, kept in (
        (0.2, []),
        (0.25, [0]),
        (0.5, [0, 1]),
        (0.75, [0, 1, 3]),
        (0.99, [0, 1, 3]),
        (1, [0, 1, 3, 4, 5]),
    ):
        merged = Merge("sce", models, [("m0", {}), ("m1", {})], "base", {"select_topk": share}).run()["w"]
        assert merged.nonzero().reshape(-1).tolist() == kept


def test_the_smallest_differences_have_a_variance_too() -> None:
    base = torch.zeros(4, dtype=BF16)
    steps = torch.tensor([1e-30, 0, 1e-25, 1e-3], dtype=BF16)
    models = {"base": {"w": base}, "m0": {"w": base}, "m1": {"w": steps}}
    merged = Merge("sce", models, [("m0", {}), ("m1", {})], "base", {"select_topk": 0.7}).run()["w"]
    assert merged.nonzero().reshape(-1).tolist() == [2, 3]


def test_models_that_do_not_differ_have_nothing_to_select() -> None:
    step = torch.full((70,), 0.5, dtype=BF16)
    models = {"base": {"w": torch.zeros(70, dtype=BF16)}, "m0": {"w": step}, "m1": {"w": step.clone()}}
    for share, expected in ((0.5, 0.0), (1.0, 0.5)):
        for refs in (["m0"], ["m0", "m0"], ["m0", "m1"]):
            merged = Merge("sce", models, [(ref, {}) for ref in refs], "base", {"select_topk": share}).run()["w"]
            assert merged.unique().tolist() == [expected]


def test_what_differs_is_counted_over_any_tiles() -> None:
    x = torch.where(torch.rand(200_001, generator=torch.Generator().manual_seed(2)) < 0.3, 0.0, 1e-30)
    for step in (1 << 16, 1 << 17, 1 << 18):
        cut = [Tile(lo, min(lo + step, len(x))) for lo in range(0, len(x), step)]
        found = reduce_in_tiles(nonzero_count, [x], cut, 1 << 16)
        assert torch.equal(found, PLAIN["nonzero_count"]([x]))


def test_two_models_vary_as_they_differ() -> None:
    x, base = (load(slot=slot, shape=(40,), dtype=F32) for slot in (0, 1))
    assert spread(base, x) is sub(x, base)
