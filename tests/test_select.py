"""Selection by rank: exact, over any tiles, the lower index first among equals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_ops import PLAIN, reduce_in_tiles, run_kernel
from plain_select import BLOCK, bits_of, ranks
from plait.engine.opdef import Tile, ops

F32, F64 = torch.float32, torch.float64


def values(kind: str, elements: int, dtype: torch.dtype) -> torch.Tensor:
    """Numbers with many ties, with few, or all equal."""
    random = np.random.default_rng(elements)
    if kind == "equal":
        return torch.full((elements,), -0.25, dtype=dtype)
    array = random.normal(0, 0.01, elements)
    return torch.from_numpy(np.round(array * 512) / 512 if kind == "coarse" else array).to(dtype)


def tiles(elements: int, tile_elements: int) -> list[Tile]:
    cuts = [*range(0, elements, tile_elements), elements]
    return [Tile(lo, hi) for lo, hi in itertools.pairwise(cuts)]


@pytest.mark.parametrize("kind", ["coarse", "fine", "equal"])
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("descending", [True, False])
@settings(max_examples=5, deadline=None)
@given(share=st.floats(0, 1), tile_blocks=st.integers(1, 3), backwards=st.booleans())
def test_a_selection_over_tiles_is_that_of_a_sort(
    kind: str, dtype: torch.dtype, descending: bool, share: float, tile_blocks: int, backwards: bool
) -> None:
    x = values(kind, 2 * BLOCK + 77, dtype)
    count = 1 + int(share * (x.numel() - 1))
    cut = tiles(x.numel(), tile_blocks * BLOCK)
    order = cut[::-1] if backwards else cut
    located: list[torch.Tensor] = []
    for shift in range(8 * dtype.itemsize - 16, -1, -16):
        counts = reduce_in_tiles(ops()["digit_counts"], [x, *located], order, BLOCK, {"shift": shift})
        assert torch.equal(counts, PLAIN["digit_counts"]([x, *located], shift=shift))
        attrs = {"count": count, "descending": descending, "shift": shift}
        found = run_kernel(ops()["locate"], [counts, *located], torch.int64, Tile(0, 2), attrs)
        assert torch.equal(found, PLAIN["locate"]([counts, *located], **attrs))
        located = [found]
    chosen = ranks(x, descending=descending)[:count]
    assert int(located[0][0]) == int(bits_of(x)[chosen[-1]])
    before = reduce_in_tiles(ops()["ties_before"], [x, *located], order, BLOCK, {})
    assert torch.equal(before, PLAIN["ties_before"]([x, *located]))
    for rest in (False, True):
        ins, attrs = [x, x, *located, before], {"descending": descending, "rest": rest}
        kept = torch.cat([run_kernel(ops()["keep_ranked"], ins, dtype, tile, attrs) for tile in cut])
        expected = np.full(x.numel(), rest)
        expected[chosen] = not rest
        assert torch.equal(kept, torch.where(torch.from_numpy(expected), x, 0))


def test_nothing_is_chosen_at_rank_zero() -> None:
    x = values("coarse", 500, F32)
    located: list[torch.Tensor] = []
    for shift in (16, 0):
        counts = PLAIN["digit_counts"]([x, *located], shift=shift)
        attrs = {"count": 0, "descending": True, "shift": shift}
        located = [run_kernel(ops()["locate"], [counts, *located], torch.int64, Tile(0, 2), attrs)]
    ins = [x, x, *located, torch.zeros(1, dtype=torch.int64)]
    kept = run_kernel(ops()["keep_ranked"], ins, F32, Tile(0, 500), {"descending": True, "rest": False})
    assert not kept.any()
