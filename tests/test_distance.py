"""The op below `plait diff`: what it gives is what plain float64 numpy gives, for any dtypes, tiles and NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_distance import plain
from plain_ops import reduce_in_tiles
from plait.engine.compile import verify
from plait.engine.graph import Program, TensorSpec
from plait.engine.opdef import REDUCE_BLOCK_ELEMENTS, GraphError, Tile, load, write
from plait.engine.tiling import cut
from plait.ops.distance import SUMS, distances, has_numbers

BLOCK = REDUCE_BLOCK_ELEMENTS
NUMBERS = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
]
COUNTED = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]


def tensors(dtype_a: torch.dtype, dtype_b: torch.dtype, elements: int, seed: int = 0) -> list[torch.Tensor]:
    """Two tensors of which about half of the elements are the same, where the dtypes allow it."""
    random = np.random.default_rng(seed)
    x = random.normal(0, 3, elements)
    y = np.where(random.random(elements) < 0.5, x, x + random.normal(0, 0.3, elements))
    return [torch.from_numpy(each).to(dtype) for each, dtype in ((x, dtype_a), (y, dtype_b))]


def reduced(ins: list[torch.Tensor], tiles: list[Tile]) -> dict[str, float]:
    return dict(zip(SUMS, reduce_in_tiles(distances, ins, tiles, BLOCK).tolist(), strict=True))


def tiles_of(elements: int, blocks: int) -> list[Tile]:
    step = blocks * BLOCK
    return [Tile(lo, min(lo + step, elements)) for lo in range(0, elements, step)] or [Tile(0, 0)]


@pytest.mark.parametrize("elements", [0, 1, 7, 5000, BLOCK + 13])
@pytest.mark.parametrize("dtype", [*NUMBERS, *COUNTED], ids=str)
def test_sums_are_those_of_plain_float64(dtype: torch.dtype, elements: int) -> None:
    ins = tensors(dtype, dtype, elements)
    assert reduced(ins, tiles_of(elements, 1)) == pytest.approx(plain(*ins), rel=1e-13)


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_other_dtypes_are_compared_by_value(dtype: torch.dtype) -> None:
    ins = tensors(torch.float32, dtype, 4000)
    ins[0][:2] = ins[1][:2] = float("nan")
    # The same values, as far as both types have them.
    ins[1][2:1000] = ins[0][2:1000].to(dtype)
    ins[0][2:1000] = ins[1][2:1000].float()
    found = reduced(ins, tiles_of(4000, 1))
    assert found == pytest.approx(plain(*ins), rel=1e-13)
    assert found["changed"] <= 3000


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(NUMBERS),
    seed=st.integers(0, 99),
    spoilt=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 299), st.sampled_from(["nan", "inf", "-inf"])), max_size=9
    ),
)
def test_what_is_not_finite_is_counted_and_left_out(
    dtype: torch.dtype, seed: int, spoilt: list[tuple[int, int, str]]
) -> None:
    ins = tensors(dtype, dtype, 300, seed)
    for which, position, value in spoilt:
        if dtype != torch.float8_e4m3fn or value == "nan":  # it has no infinity
            ins[which][position] = float(value)
    found = reduced(ins, tiles_of(300, 1))
    assert found == pytest.approx(plain(*ins), rel=1e-13)
    assert np.isfinite(list(found.values())).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32], ids=str)
def test_tiles_and_their_order_do_not_show(dtype: torch.dtype) -> None:
    elements = 5 * BLOCK + 4321
    ins = tensors(dtype, dtype, elements)
    expected = reduce_in_tiles(distances, ins, tiles_of(elements, 6), BLOCK)
    for blocks in (1, 2, 3):
        backwards = tiles_of(elements, blocks)[::-1]
        assert torch.equal(reduce_in_tiles(distances, ins, backwards, BLOCK), expected)


def test_the_same_bytes_are_exactly_the_same() -> None:
    x = tensors(torch.bfloat16, torch.bfloat16, 3 * BLOCK + 5)[0]
    x[7] = float("nan")
    found = reduced([x, x.clone()], tiles_of(x.numel(), 2))
    assert found["a_squared"] == found["b_squared"] == found["dot"]
    assert (found["distance_squared"], found["largest"], found["changed"]) == (0, 0, 0)
    assert (found["nonfinite_a"], found["nonfinite_b"]) == (1, 1)


def test_a_small_distance_is_not_lost_between_large_norms() -> None:
    # From norms and dot product alone, 1e8² + 1e8² - 2·1e16 would leave nothing of 1e-4.
    a = torch.full((1000,), 1e4, dtype=torch.float64)
    b = a.clone()
    b[3] += 2.0**-20
    assert reduced([a, b], tiles_of(1000, 1))["distance_squared"] == 2.0**-40


def test_the_sign_of_zero_is_a_change_of_bits_and_no_distance() -> None:
    found = reduced([torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0])], [Tile(0, 2)])
    assert (found["changed"], found["distance_squared"]) == (1, 0)


def test_what_does_not_fit_is_refused() -> None:
    def node(shape: tuple[int, ...], dtype: torch.dtype, slot: int = 0) -> object:
        return load(slot=slot, shape=shape, dtype=dtype)

    for a, b in (
        (node((3,), torch.float32), node((4,), torch.float32)),
        (node((3,), torch.float32), node((3,), torch.int32)),
        (node((3,), torch.int8), node((3,), torch.int32)),
    ):
        with pytest.raises(GraphError, match="distances"):
            distances(a, b)
    assert distances(node((3,), torch.int8), node((3,), torch.int8, 1)).spec == TensorSpec(
        (len(SUMS),), torch.float64, "state"
    )


def test_a_program_that_measures_reads_tensors_and_writes_figures() -> None:
    shape = (3 * BLOCK, 5)
    ins = [load(slot=slot, shape=shape, dtype=torch.bfloat16) for slot in range(2)]
    program = Program(write(distances(*ins)))
    reading, writing = cut(program)
    assert program.measures
    assert (reading.spec.shape, reading.tile_elements(1 << 19)) == (shape, 1 << 19)
    assert reading.bytes_read == 2 * 2 * 15 * BLOCK
    assert (writing.loads, writing.spec.shape) == ((), (len(SUMS),))
    with pytest.raises(GraphError, match="another shape than the output"):
        verify(program)  # a merge has weights for tensors


def test_every_stored_dtype_is_counted_or_has_numbers() -> None:
    from plait.loaders.safetensors_file import DTYPES

    for dtype in DTYPES.values():
        whole = torch.zeros(9 * dtype.itemsize, dtype=torch.uint8).view(dtype)
        other = whole.clone()
        other.view(torch.uint8)[0] = 1
        assert reduced([whole, other], [Tile(0, 9)])["changed"] == 1, dtype
        assert has_numbers(dtype) == dtype.is_floating_point
