"""Random dropping by rank: the kernel against its definition, on any rows, in any order of magnitudes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_ops import PLAIN, run_kernel
from plait.engine.opdef import GraphError, Tile, load
from plait.ops.elementwise import sub
from plait.ops.rank_rows import drop_ranked, keep_probabilities
from support import Merge, as_bytes

if TYPE_CHECKING:
    from plait.engine.graph import Node

F32, F64 = torch.float32, torch.float64

FIVE_STANDARD_ERRORS = 5.0


def attrs_of(density: float, epsilon: float, row_elements: int, *, divided: bool = False, ordinal: int = 0) -> Any:
    """What the op is called with."""
    return {
        "density": density,
        "epsilon": epsilon,
        "row_elements": row_elements,
        "divided": divided,
        "ordinal": ordinal,
    }


def values(kind: str, elements: int, random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Task vectors of all kinds: few values, many, some that only their last bits tell apart, far apart, not finite."""
    normal = random.normal(0, 1e-3, elements)
    if kind == "few":
        return random.choice([0.0, -0.0, 0.25, -0.25, 0.5, 3.0], elements)
    if kind == "stored in 16 bits":
        base = torch.from_numpy(random.normal(0, 0.02, elements)).bfloat16()
        return ((base.double() + torch.from_numpy(normal)).bfloat16().double() - base.double()).numpy()
    if kind == "close":
        return 1 + 2.0**-23 * random.integers(0, 9, elements)
    if kind == "far apart":
        return normal * 10.0 ** random.integers(-36, 30, elements)
    if kind == "not finite":
        return random.choice([math.inf, -math.inf, 1.0, 2.0, 1e-30, 0.0], elements)
    return normal


KINDS = ("normal", "few", "stored in 16 bits", "close", "far apart", "not finite")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_kernel_gives_the_plain_value_on_any_rows(data: st.DataObject) -> None:
    columns, rows = data.draw(st.integers(2, 40)), data.draw(st.integers(0, 9))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dtype = data.draw(st.sampled_from([F32, F64]))
    x = torch.from_numpy(values(data.draw(st.sampled_from(KINDS)), rows * columns, random)).to(dtype)
    density = data.draw(st.floats(0.01, 0.99))
    epsilon = data.draw(st.floats(0, 0.99)) * min(density, 1 - density)
    attrs = attrs_of(density, epsilon, columns, divided=data.draw(st.booleans()), ordinal=data.draw(st.integers(0, 3)))
    with np.errstate(invalid="ignore"):
        found = run_kernel(drop_ranked, [x], dtype, Tile(0, x.numel()), attrs)
        finite = torch.where(x.isfinite(), x, 3e38)  # infinite elements rank as what they are, and 0·∞ is not compared
        expected = PLAIN["drop_ranked"]([finite], **attrs)
    compared = x.isfinite()
    assert torch.equal(found[compared], expected[compared])
    lo = columns * data.draw(st.integers(0, rows))
    tile = Tile(lo, columns * data.draw(st.integers(lo // columns, rows)))
    with np.errstate(invalid="ignore"):
        part = run_kernel(drop_ranked, [x], dtype, tile, attrs)
        taken = run_kernel(drop_ranked, [x], dtype, tile, attrs, in_place=0)
    assert torch.equal(as_bytes(part), as_bytes(found[tile.lo : tile.hi]))
    assert torch.equal(as_bytes(taken), as_bytes(part))


@pytest.mark.parametrize("kind", KINDS[:4])
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("shape", [(40, 2048), (3, 30_000), (1, 70_001), (9_000, 8)])
def test_the_kernel_gives_the_plain_value_on_groups_of_rows(
    shape: tuple[int, int], dtype: torch.dtype, kind: str
) -> None:
    # Two groups or more, lanes that equal a limit, and ties all over the row.
    random = np.random.default_rng(5)
    x = torch.from_numpy(values(kind, math.prod(shape), random)).to(dtype)
    for divided in (False, True):
        attrs = attrs_of(0.5, 0.15, shape[1], divided=divided)
        found = run_kernel(drop_ranked, [x], dtype, Tile(0, x.numel()), attrs)
        assert torch.equal(found, PLAIN["drop_ranked"]([x], **attrs))


def test_a_merge_uses_the_mask_of_its_tensor_and_ordinal() -> None:
    # Steps of 1, and of one power of two a model: the merged values show the masks themselves.
    shape = (97, 103)
    models = {"base": {"a": torch.zeros(shape)}, **{f"m{i}": {"a": torch.full(shape, 2.0**i)} for i in range(3)}}
    entries = [(f"m{i}", {"weight": 1.0, "density": 0.4, "epsilon": 0.3}) for i in range(3)]
    merged = Merge("della_linear", models, entries, "base", {"rescale": False}, seed=5).run(tile_elements=4096)
    bits = merged["a"].numpy().astype(np.int64).reshape(-1)
    # Equal elements rank by column.
    chances = np.tile(0.1 + 0.6 * np.arange(103) / 102, 97)
    for ordinal in range(3):
        expected = reference.mask(bits.size, chances, reference.stream_key(5, "a", ordinal))
        assert np.array_equal(bits >> ordinal & 1, expected)


# ------------------------------------------------------------------------------------------------ how many


@pytest.mark.parametrize(("density", "epsilon"), [(0.5, 0.15), (0.3, 0.29), (0.9, 0.05), (0.07, 0.05)])
def test_the_kept_share_grows_with_the_rank(density: float, epsilon: float) -> None:
    rows, columns = 512, 2048
    random = np.random.default_rng(1)
    x = torch.from_numpy(random.normal(0, 1, rows * columns)).float()
    masks = []
    for ordinal in range(3):
        found = run_kernel(
            drop_ranked, [x], F32, Tile(0, x.numel()), attrs_of(density, epsilon, columns, ordinal=ordinal)
        )
        masks.append((found != 0).reshape(rows, columns).numpy())
        error = math.sqrt(density * (1 - density) / x.numel())
        assert abs(masks[-1].mean() - density) < FIVE_STANDARD_ERRORS * error
        order = np.argsort(np.abs(x.numpy().reshape(rows, columns)), axis=1)
        by_rank = np.take_along_axis(masks[-1], order, axis=1).reshape(rows, 16, -1)
        expected = keep_probabilities(density, epsilon, columns).reshape(16, -1).mean(axis=1)
        error = math.sqrt(0.25 / (x.numel() / 16))
        assert (np.abs(by_rank.mean(axis=(0, 2)) - expected) < FIVE_STANDARD_ERRORS * error).all()
    # Two models' masks have the ranks in common, which are the same here, and nothing else.
    chances = np.empty((rows, columns))
    np.put_along_axis(chances, order, np.broadcast_to(keep_probabilities(density, epsilon, columns), order.shape), 1)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        product = (masks[one] - chances) * (masks[other] - chances)
        spread = math.sqrt(float(((chances * (1 - chances)) ** 2).sum()))
        assert abs(float(product.sum())) < FIVE_STANDARD_ERRORS * spread


def test_divided_by_its_probability_what_is_kept_is_unbiased() -> None:
    rows, columns = 512, 2048
    x = torch.from_numpy(np.random.default_rng(2).normal(1, 1, rows * columns)).float()
    found = run_kernel(drop_ranked, [x], F32, Tile(0, x.numel()), attrs_of(0.5, 0.4, columns, divided=True))
    error = (found.double() - x.double()).std() / math.sqrt(x.numel())
    assert abs(float((found.double() - x.double()).mean())) < FIVE_STANDARD_ERRORS * float(error)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_probabilities_stay_in_their_range(data: st.DataObject) -> None:
    density = data.draw(st.floats(1e-9, 1 - 1e-9))
    epsilon = data.draw(st.floats(0, 1))
    columns = data.draw(st.integers(1, 3000))
    found = keep_probabilities(density, epsilon, columns)
    assert len(found) == columns
    assert (np.diff(found) >= 0).all()
    assert found[0] >= density - epsilon
    assert found[-1] <= density - epsilon + 2 * epsilon


# ------------------------------------------------------------------------------------------------ graphs


def delta(shape: tuple[int, ...] = (3, 4), dtype: torch.dtype = F32) -> Node:
    return sub(load(slot=1, shape=shape, dtype=dtype), load(slot=0, shape=shape, dtype=dtype))


def test_where_ranks_do_not_matter_it_is_a_plain_drop() -> None:
    plain = drop_ranked(delta(), **attrs_of(0.5, 0.0, 4))
    assert plain.op.name == "drop"
    divided = drop_ranked(delta((4, 1)), **attrs_of(0.5, 0.3, 1, divided=True))
    assert (divided.op.name, divided.attr("factor")) == ("scale", 2.0)
    assert drop_ranked(delta(), **attrs_of(1.0, 0.3, 4)) is delta()
    assert drop_ranked(delta(), **attrs_of(0.0, 0.3, 4)).op.name == "fill"


REFUSED: dict[str, Any] = {
    "a weight": lambda: drop_ranked(load(slot=0, shape=(3, 4), dtype=F32), **attrs_of(0.5, 0.1, 4)),
    "16 bits": lambda: drop_ranked(delta(dtype=torch.bfloat16), **attrs_of(0.5, 0.1, 4)),
    "other rows": lambda: drop_ranked(delta(), **attrs_of(0.5, 0.1, 3)),
    "a density in words": lambda: drop_ranked(delta(), **{**attrs_of(0.5, 0.1, 4), "density": "half"}),
    "half an ordinal": lambda: drop_ranked(delta(), **{**attrs_of(0.5, 0.1, 4), "ordinal": 0.5}),
    "more than all": lambda: drop_ranked(delta(), **attrs_of(0.9, 0.1, 4)),
    "less than nothing": lambda: drop_ranked(delta(), **attrs_of(0.1, 0.1, 4)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_it_is_not_defined_for_is_refused(what: str) -> None:
    with pytest.raises(GraphError):
        REFUSED[what]()
