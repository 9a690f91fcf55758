"""Each op against one plain expression: its values, on any range, in place, and what it refuses."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_fusion import CALLS as FUSION_CALLS
from plain_gram import CALLS as GRAM_CALLS
from plain_ops import PLAIN, reduce_in_tiles, run_kernel
from plain_overlap import CALLS as OVERLAP_CALLS
from plain_select import ALIGNED
from plain_select import CALLS as SELECT_CALLS
from plain_vocabulary import CALLS as VOCABULARY_CALLS
from plait.engine.graph import Node, TensorSpec
from plait.engine.opdef import GraphError, Tile, load, ops
from plait.ops.elect import agree_sum, agree_weight, elect
from plait.ops.elementwise import add, cast, divide, fill, scale, sub
from plait.ops.reduce import abs_sum, halving_tree_, power_of_two_at_least
from plait.ops.sparsify import drop, match_l1
from support import as_bytes

if TYPE_CHECKING:
    from collections.abc import Callable


CALLS = {**SELECT_CALLS, **GRAM_CALLS, **OVERLAP_CALLS, **FUSION_CALLS, **VOCABULARY_CALLS}

BF16, F16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64

ELEMENT_OPS = sorted(name for name, each in ops().items() if each.kernel is not None and each.locality == "element")


def test_every_op_has_a_plain_expression() -> None:
    assert set(PLAIN) == {name for name, each in ops().items() if each.kernel is not None}


# ------------------------------------------------------------------------------------------------ values


_FEW = (0.0, -0.0, 0.25, -0.25, 1.0, -1.0, 3.0)


@st.composite
def calls(draw: st.DrawFn, name: str) -> tuple[list[torch.Tensor], dict[str, Any], torch.dtype]:
    """Inputs, attributes and output dtype for an element op."""
    dtype = draw(st.sampled_from([F32, F64]))
    elements = draw(st.integers(0, 70))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    few = draw(st.booleans())  # votes cancel, differences vanish

    def tensor() -> torch.Tensor:
        array = random.choice(_FEW, elements) if few else random.normal(0, 30, elements)
        return torch.from_numpy(array.astype(np.float32)).to(dtype)

    factors = st.floats(-2, 2, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6)
    if name in CALLS:
        return CALLS[name](draw, tensor, dtype)
    if name == "cast":
        target = draw(st.sampled_from([BF16, F16, F32, F64]))
        return [tensor()], {"dtype": target}, target
    if name == "fill":
        space = draw(st.sampled_from(["weight", "delta"]))
        return [], {"shape": (elements,), "dtype": dtype, "space": space, "value": draw(factors)}, dtype
    if name == "scale":
        return [tensor()], {"factor": draw(factors)}, dtype
    if name == "drop":
        density = draw(st.floats(0.001, 0.999))
        return [tensor()], {"density": density, "ordinal": draw(st.integers(0, 5))}, dtype
    if name == "match_l1":
        norms = [torch.tensor([draw(st.sampled_from([0.0, 5e-8, 1e-7, 3.0, 70.1]))], dtype=F64) for _ in range(2)]
        return [tensor(), *norms], {}, dtype
    if name == "divide":
        divisor = tensor()
        return [tensor(), torch.where(divisor == 0, 1, divisor)], {}, dtype
    if name == "sub":
        return [tensor(), tensor()], {}, dtype
    count = draw(st.integers(1 if name == "elect" or name.startswith("agree") else 2, 6))
    parts = [tensor() for _ in range(count)]
    if not name.startswith("agree"):
        return parts, {}, dtype
    signs = random.choice([-1.0, 1.0], elements)
    attrs = {} if name == "agree_sum" else {"weights": tuple(draw(factors) for _ in parts)}
    return [torch.from_numpy(signs).to(dtype), *parts], attrs, dtype


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bytes, where -0 counts as 0."""
    return bool(torch.equal(as_bytes(a + 0), as_bytes(b + 0))) and a.dtype == b.dtype


@pytest.mark.parametrize("name", ELEMENT_OPS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_kernel_gives_the_plain_value(name: str, data: st.DataObject) -> None:
    ins, attrs, dtype = data.draw(calls(name))
    expected = PLAIN[name](ins, **attrs)
    found = run_kernel(ops()[name], ins, dtype, Tile(0, expected.numel()), attrs)
    if name == "elect":
        sizes = torch.stack(ins).double().abs().sum(0)
        margin = reference.CANCELS[dtype] * sizes
        clear = (torch.stack(ins).double().sum(0) + margin).abs() > 0.75 * margin
        found, expected = found[clear | (sizes == 0)], expected[clear | (sizes == 0)]
    assert same(found, expected)


@pytest.mark.parametrize("name", ELEMENT_OPS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_kernel_gives_the_same_bytes_on_a_part_and_in_place(name: str, data: st.DataObject) -> None:
    ins, attrs, dtype = data.draw(calls(name))
    elements = attrs["shape"][0] if name == "fill" else PLAIN[name](ins, **attrs).numel()
    definition = ops()[name]
    whole = run_kernel(definition, ins, dtype, Tile(0, elements), attrs)
    lo = 0 if name in ALIGNED else data.draw(st.integers(0, elements))
    tile = Tile(lo, data.draw(st.integers(lo, elements)))
    part = run_kernel(definition, ins, dtype, tile, attrs)
    assert torch.equal(as_bytes(part), as_bytes(whole[tile.lo : tile.hi]))
    for position in definition.inplace:
        assert ins[position].dtype == dtype
        taken = run_kernel(definition, ins, dtype, tile, attrs, in_place=position)
        assert torch.equal(as_bytes(taken), as_bytes(part))


# ------------------------------------------------------------------------------------------------ rounding once


@st.composite
def near_halfway(draw: st.DrawFn) -> float:
    """A number at or next to the middle between two neighbours of a narrow format."""
    bits = draw(st.sampled_from([8, 11, 24]))
    significand = draw(st.integers(2 ** (bits - 1), 2**bits - 1)) + 0.5
    exponent = draw(st.integers(-40, 20)) - bits
    off = draw(st.sampled_from([0, 0, *(sign * 2.0**-shift for shift in range(1, 30, 3) for sign in (1, -1))]))
    return draw(st.sampled_from([1, -1])) * (significand + off) * 2.0**exponent


@pytest.mark.parametrize("dtype", [BF16, F16, F32])
@settings(max_examples=150, deadline=None)
@given(values=st.lists(st.one_of(near_halfway(), st.floats(allow_nan=False)), min_size=1, max_size=30))
def test_float64_is_rounded_once(dtype: torch.dtype, values: list[float]) -> None:
    # Numbers below the normal range of float32, 1e-38, are out of the question for weights.
    x = np.array([value if abs(value) >= 2.0**-126 else 0.0 for value in values])
    found = run_kernel(cast, [torch.from_numpy(x)], dtype, Tile(0, len(x)), {"dtype": dtype})
    assert np.array_equal(found.double().numpy(), reference.rounded(x, dtype))


def test_a_sum_that_float32_would_round_to_the_middle_goes_up() -> None:
    # Above the middle of two bfloat16 by less than float32 can tell: rounding twice makes it a tie, and that goes down.
    x = torch.tensor(
        [1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8, 1 + 2.0**-8 - 2.0**-40, 1 + 3 * 2.0**-8 - 2.0**-40], dtype=F64
    )
    found = run_kernel(cast, [x], BF16, Tile(0, 4), {"dtype": BF16})
    assert found.double().tolist() == [1 + 2.0**-7, 1.0, 1.0, 1 + 2.0**-7]


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.one_of(near_halfway(), st.floats(-7e4, 7e4)), min_size=1))
def test_the_reference_rounds_as_numpy_does(values: list[float]) -> None:
    x = np.array(values)
    with np.errstate(over="ignore", under="ignore"):
        assert np.array_equal(reference.rounded(x, F16), x.astype(np.float16).astype(np.float64))
        assert np.array_equal(reference.rounded(x, F32), x.astype(np.float32).astype(np.float64))


@pytest.mark.parametrize("dtype", [BF16, F16, F32])
def test_what_is_not_a_number_stays_so(dtype: torch.dtype) -> None:
    quiet = np.array([0x7FF0000000000001, 0xFFF8000000000000], dtype=np.uint64).view(np.float64)
    x = torch.tensor([math.inf, -math.inf, 1e300, -1e300, *quiet], dtype=F64)
    found = run_kernel(cast, [x], dtype, Tile(0, 6), {"dtype": dtype}).double()
    assert found[:4].tolist() == [math.inf, -math.inf, math.inf, -math.inf]
    assert found[4:].isnan().all()


# ------------------------------------------------------------------------------------------------ votes


@pytest.mark.parametrize(("dtype", "cancels"), [(F32, 20), (F64, 40)])
def test_a_vote_cancels_at_its_limit_and_not_before(dtype: torch.dtype, cancels: int) -> None:
    # 1 against 1 + d: a sum of -d against a limit of about 2·2^-cancels.
    against = [1 + 2.0 ** (2 - cancels), 1 + 2.0 ** (1.5 - cancels), 1 + 2.0 ** (0.5 - cancels), 1.0, 1 - 2.0**-10]
    parts = [torch.ones(5, dtype=dtype), -torch.tensor(against, dtype=dtype)]
    found = run_kernel(elect, parts, dtype, Tile(0, 5), {})
    assert found.tolist() == [-1, -1, 1, 1, 1]


def test_zeros_have_no_vote_and_no_weight() -> None:
    zero = torch.tensor([0.0, -0.0, 0.0])
    one = torch.tensor([1.0, -1.0, 0.0])
    sign = run_kernel(elect, [zero, one], F32, Tile(0, 3), {})
    assert sign.tolist() == [1, -1, 1]
    ins = [sign, zero, one]
    assert run_kernel(agree_sum, ins, F32, Tile(0, 3), {}).tolist() == [1, -1, 0]
    weight = run_kernel(agree_weight, ins, F32, Tile(0, 3), {"weights": (0.25, 0.5)})
    assert weight.tolist() == [0.5, 0.5, 1]


# ------------------------------------------------------------------------------------------------ sums


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_sum_is_exact_and_blind_to_tiles(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([BF16, F32, F64]))
    block = data.draw(st.sampled_from([1, 7, 64, 1000]))
    elements = data.draw(st.integers(0, 3000))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    # Wide in size, so that another order of adding up shows.
    x = torch.from_numpy(random.normal(size=elements) * 10.0 ** random.integers(-8, 8, elements)).to(dtype)
    whole = reduce_in_tiles(abs_sum, [x], [Tile(0, elements)], block)
    exact = math.fsum(x.double().abs().tolist())
    assert abs(float(whole) - exact) <= 2.0**-47 * exact
    blocks = list(range(0, elements, block)) or [0]
    cuts = [*sorted({0, *data.draw(st.lists(st.sampled_from(blocks), max_size=6))}), elements]
    tiles = [Tile(lo, hi) for lo, hi in itertools.pairwise(cuts)]
    parts = reduce_in_tiles(abs_sum, [x], data.draw(st.permutations(tiles)), block)
    assert torch.equal(as_bytes(parts), as_bytes(whole))


def test_a_block_may_be_a_row_longer_than_usual() -> None:
    rows, columns = 3, (1 << 16) + 5
    x = torch.linspace(-1, 1, rows * columns).reshape(rows, columns)
    spec = [TensorSpec((rows, columns), F32)]
    partial, scratch = (
        torch.empty(rows, dtype=F64),
        torch.empty(abs_sum.scratch_bytes(spec, x.numel()), dtype=torch.uint8),
    )
    assert abs_sum.kernel is not None
    abs_sum.kernel(partial, [x.reshape(-1)], scratch, Tile(0, x.numel()), block_elements=columns)
    torch.testing.assert_close(partial, x.double().abs().sum(1), rtol=1e-14, atol=0)


@pytest.mark.parametrize(("count", "power"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (65537, 131072)])
def test_a_tree_has_room_for_all(count: int, power: int) -> None:
    assert power_of_two_at_least(count) == power
    values = torch.ones(power, dtype=F64)
    halving_tree_(values)
    assert float(values[0]) == power


# ------------------------------------------------------------------------------------------------ what is refused


def weight(slot: int = 0, shape: tuple[int, ...] = (4,), dtype: torch.dtype = F32) -> Node:
    return load(slot=slot, shape=shape, dtype=dtype)


def delta(slot: int = 1, dtype: torch.dtype = F32) -> Node:
    return sub(weight(slot, dtype=dtype), weight(0, dtype=dtype))


REFUSED: dict[str, Callable[[], Node]] = {
    "sub of a delta": lambda: sub(delta(), weight()),
    "sub of other shapes": lambda: sub(weight(1, (5,)), weight()),
    "sub of other dtypes": lambda: sub(weight(1, dtype=F64), weight()),
    "add of a sign": lambda: add(weight(), elect(delta())),
    "add of a norm": lambda: add(weight(), abs_sum(weight(1))),
    "add of a weight to a delta": lambda: add(delta(), weight()),
    "add of two weights and a delta": lambda: add(weight(), delta(), weight(2)),
    "add of other shapes": lambda: add(weight(), weight(1, (2, 2))),
    "scale of a sign": lambda: scale(elect(delta()), factor=2.0),
    "scale by text": lambda: scale(weight(), factor="2"),
    "divide of weights": lambda: divide(weight(), weight(1)),
    "drop of a weight": lambda: drop(weight(), density=0.5, ordinal=0),
    "drop without a density": lambda: drop(delta(), density="half", ordinal=0),
    "drop of a part of an input": lambda: drop(delta(), density=0.5, ordinal=0.5),
    "elect on a weight": lambda: elect(weight()),
    "elect on a vote": lambda: elect(elect(delta())),
    "elect in 16 bits": lambda: elect(delta(dtype=BF16)),
    "agree without a vote": lambda: agree_sum(delta(), delta(2)),
    "agree with a vote alone": lambda: agree_sum(elect(delta())),
    "agree of weights": lambda: agree_sum(elect(delta()), weight()),
    "agree with a weight too few": lambda: agree_weight(elect(delta()), delta(), delta(2), weights=(1.0,)),
    "match of a weight": lambda: match_l1(weight(), abs_sum(delta()), abs_sum(delta())),
    "match with what is no norm": lambda: match_l1(delta(), delta(), delta(2)),
    "sum of a sum": lambda: abs_sum(abs_sum(weight())),
    "sum of integers": lambda: abs_sum(weight(dtype=torch.int64)),
    "cast of integers": lambda: cast(weight(dtype=torch.int64), dtype=F32),
    "cast to integers": lambda: cast(weight(), dtype=torch.int64),
    "cast to a name": lambda: cast(weight(), dtype="float32"),
    "fill with a sign": lambda: fill(shape=(4,), dtype=F32, space="sign", value=1),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_an_op_is_not_defined_for_is_refused(what: str) -> None:
    with pytest.raises(GraphError):
        REFUSED[what]()
