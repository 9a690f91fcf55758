"""The ops below `plait report`: counts of sizes and of signs, exact for any values, tiles and order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_ops import PLAIN, reduce_in_tiles
from plait.engine.graph import Node, TensorSpec
from plait.engine.opdef import REDUCE_BLOCK_ELEMENTS, GraphError, Tile, load, ops
from plait.ops.elementwise import sub
from plait.ops.reduce import abs_sum
from plait.ops.task_vectors import SIZE_BINS, SIZE_EDGES, delta_histogram, side_by_side, sign_agreement

BLOCK = REDUCE_BLOCK_ELEMENTS
FLOATS = (torch.float32, torch.float64)
ODD = (0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-45, 5e-324, 1e-39, 2.0**-40, -(2.0**-41), 65536.0, -65535.99)


def deltas(dtype: torch.dtype, elements: int, count: int, seed: int) -> list[torch.Tensor]:
    """Task vectors of all sizes, a tenth of them zero, with what is rare in between."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        values = random.normal(0, 1, elements) * 10.0 ** random.integers(-12, 5, elements)
        values[random.random(elements) < 0.1] = 0
        values[random.random(elements) < 0.05] = random.choice(ODD)
        found.append(torch.from_numpy(values).to(dtype))
    return found


def tiles_in_any_order(data: st.DataObject, elements: int) -> list[Tile]:
    starts = range(0, elements, BLOCK)
    cuts = [*sorted({0, *data.draw(st.lists(st.sampled_from(starts or [0]), max_size=4))}), elements]
    return list(data.draw(st.permutations([Tile(lo, hi) for lo, hi in itertools.pairwise(cuts)])))


@pytest.mark.parametrize("name", ["delta_histogram", "sign_agreement"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_counts_are_exact_in_any_tiles_and_order(name: str, data: st.DataObject) -> None:
    elements = data.draw(st.sampled_from([1, 7, 1000, BLOCK, 2 * BLOCK + 13]))
    count = 1 if name == "delta_histogram" else data.draw(st.integers(2, 4))
    ins = deltas(data.draw(st.sampled_from(FLOATS)), elements, count, data.draw(st.integers(0, 99)))
    found = reduce_in_tiles(ops()[name], ins, tiles_in_any_order(data, elements), BLOCK, space="delta")
    assert torch.equal(found, PLAIN[name](ins))


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_edge_begins_its_own_bin(dtype: torch.dtype) -> None:
    edges = torch.tensor(SIZE_EDGES, dtype=dtype)
    below = torch.nextafter(edges, torch.zeros(()).to(dtype))
    for sign, own, other in ((1, 0, 1), (-1, 1, 0)):
        found = reduce_in_tiles(delta_histogram, [sign * edges], [Tile(0, len(edges))], BLOCK, space="delta")
        sides = found[2:].reshape(2, SIZE_BINS).tolist()  # what rose, what fell
        assert sides[own] == [0] + [1] * len(edges)
        assert sides[other] == [0] * SIZE_BINS
        found = reduce_in_tiles(delta_histogram, [sign * below], [Tile(0, len(edges))], BLOCK, space="delta")
        assert found[2:].reshape(2, SIZE_BINS)[own].tolist() == [1] * len(edges) + [0]


def test_states_stand_side_by_side() -> None:
    states = [torch.tensor([[1, 2], [3, 4]]), torch.tensor([2**53 - 1]), torch.tensor([0.5], dtype=torch.float64)]
    out = torch.empty(6, dtype=torch.float64)
    assert side_by_side.kernel is not None
    side_by_side.kernel(out, states, torch.empty(0, dtype=torch.uint8), Tile(0, 6))
    assert out.tolist() == [1, 2, 3, 4, 2**53 - 1, 0.5]


def delta(slot: int = 1, dtype: torch.dtype = torch.float32) -> Node:
    return sub(load(slot=slot, shape=(4,), dtype=dtype), load(slot=0, shape=(4,), dtype=dtype))


def test_what_is_no_task_vector_is_refused() -> None:
    weight = load(slot=0, shape=(4,), dtype=torch.float32)
    for wrong in (
        lambda: delta_histogram(weight),
        lambda: delta_histogram(delta(dtype=torch.bfloat16)),
        lambda: sign_agreement(delta()),
        lambda: sign_agreement(delta(), weight),
        lambda: sign_agreement(delta(), delta(dtype=torch.float64)),
        lambda: side_by_side(abs_sum(weight), weight),
    ):
        with pytest.raises(GraphError):
            wrong()
    assert side_by_side(abs_sum(weight), sign_agreement(delta(), delta(2))).spec == TensorSpec(
        (3,), torch.float64, "state"
    )
