"""Simplification and sharing: a smaller graph with the same value, down to the bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_ops import PLAIN, bound, reduce_in_tiles, run_kernel
from plait.engine.graph import Node, postorder
from plait.engine.opdef import Tile, load, ops
from plait.ops.elect import agree_sum, elect
from plait.ops.elementwise import add, cast, divide, is_zero, scale, sub, zeros
from plait.ops.reduce import abs_sum
from plait.ops.sparsify import drop, match_l1

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from plait.engine.opdef import OpDef

BF16, F32, F64 = torch.bfloat16, torch.float32, torch.float64

ELEMENTS, LEAVES = 97, 3

Term: TypeAlias = "tuple[str, tuple[Term, ...], tuple[tuple[str, Any], ...]]"
"""An expression: op, arguments, attributes. A leaf is ("leaf", (), (("slot", n),))."""

FACTORS = (0, 0.0, 1, 1.0, -1.0, 2.0, 0.5, -0.5)
"""Powers of two: products are exact, so that another order of multiplying changes nothing."""


def term(op: str, *inputs: Term, **attrs: Any) -> Term:
    return op, inputs, tuple(attrs.items())


# ------------------------------------------------------------------------------------------------ expressions

slots = st.integers(0, LEAVES - 1)


@st.composite
def weights(draw: st.DrawFn) -> Term:
    """A leaf in float32, perhaps by way of other types, some of which lose bits."""
    leaf = term("leaf", slot=draw(slots))
    for dtype in draw(st.lists(st.sampled_from([BF16, F32, F64]), max_size=3)):
        leaf = term("cast", leaf, dtype=dtype)
    return term("cast", leaf, dtype=F32)


def _more(deltas: st.SearchStrategy[Term]) -> st.SearchStrategy[Term]:
    def thinned(pair: tuple[Term, float, int]) -> Term:
        delta, density, ordinal = pair
        kept = term("drop", delta, density=density, ordinal=ordinal)
        return term("match_l1", kept, term("abs_sum", delta), term("abs_sum", kept))

    def counted(parts: list[Term]) -> Term:
        sign = term("elect", *parts)
        count = term("agree_weight", sign, *parts, weights=(1.0,) * len(parts))
        return term("divide", term("agree_sum", sign, *parts), count)

    density = st.sampled_from([-0.5, 0, 0.0, 0.4, 0.8, 1, 1.0, 2.0])
    ordinal = st.integers(0, 3)
    return st.one_of(
        st.builds(lambda delta, factor: term("scale", delta, factor=factor), deltas, st.sampled_from(FACTORS)),
        st.lists(deltas, min_size=1, max_size=4).map(lambda parts: term("add", *parts)),
        st.builds(lambda x, p, n: term("drop", x, density=p, ordinal=n), deltas, density, ordinal),
        st.tuples(deltas, density, ordinal).map(thinned),
        st.lists(deltas, min_size=1, max_size=2).map(counted),
        st.builds(lambda x, dtype: term("cast", term("cast", x, dtype=dtype), dtype=F32), deltas, dtypes),
    )


dtypes = st.sampled_from([BF16, F32, F64])
differences = st.builds(lambda x, base: term("sub", x, base), weights(), weights())
task_vectors = st.recursive(differences, _more, max_leaves=8)
merged = st.one_of(
    weights(),
    st.builds(lambda base, parts: term("add", base, *parts), weights(), st.lists(task_vectors, max_size=3)),
    st.builds(lambda x, factor: term("scale", x, factor=factor), weights(), st.sampled_from(FACTORS)),
    st.builds(
        lambda x, factor, delta: term("add", term("scale", x, factor=factor), delta),
        weights(),
        st.sampled_from(FACTORS),
        task_vectors,
    ),
)


def plain(expression: Term, leaves: Sequence[torch.Tensor]) -> torch.Tensor:
    """The value, with every step carried out."""
    op, inputs, attrs = expression
    if op == "leaf":
        (slot,) = (value for _, value in attrs)
        return leaves[int(slot)]
    return PLAIN[op]([plain(each, leaves) for each in inputs], **dict(attrs))


def build(expression: Term) -> Node:
    """The node that the ops make of it."""
    op, inputs, attrs = expression
    if op == "leaf":
        return load(shape=(ELEMENTS,), dtype=F32, **dict(attrs))
    return ops()[op](*map(build, inputs), **dict(attrs))


def kernels(root: Node, leaves: Sequence[torch.Tensor]) -> torch.Tensor:
    """The value of a node by its kernels."""
    values: dict[Node, torch.Tensor] = {}
    for node in postorder([root]):
        ins, attrs = [values[source] for source in node.inputs], dict(node.attrs)
        if node.op is load:
            values[node] = leaves[attrs["slot"]]  # type: ignore[index]
        elif node.op.reduction is not None:
            values[node] = reduce_in_tiles(node.op, ins, [Tile(0, ELEMENTS)], 1 << 16)
        else:
            values[node] = run_kernel(node.op, ins, node.spec.dtype, Tile(0, ELEMENTS), attrs)
    return values[root]


def some_leaves(seed: int) -> list[torch.Tensor]:
    """Whole numbers, of which bfloat16 cannot hold the larger ones."""
    random = np.random.default_rng(seed)
    return [torch.from_numpy(random.integers(-400, 400, ELEMENTS).astype(np.float32)) for _ in range(LEAVES)]


@settings(max_examples=300, deadline=None)
@given(expression=merged, seed=st.integers(0, 20))
def test_a_simplified_graph_has_the_value_of_what_was_asked_for(expression: Term, seed: int) -> None:
    leaves = some_leaves(seed)
    node = build(expression)
    value = plain(expression, leaves)
    assert node.spec.space == "weight"
    assert node.spec.dtype == value.dtype
    assert torch.equal(kernels(node, leaves), value)


# ------------------------------------------------------------------------------------------------ what goes away


def weight(slot: int = 0, dtype: torch.dtype = F32) -> Node:
    return load(slot=slot, shape=(ELEMENTS,), dtype=dtype)


def delta(slot: int = 1) -> Node:
    return sub(weight(slot), weight(0))


def _nothing() -> Node:
    return zeros(delta().spec)


def _norms() -> tuple[Node, Node]:
    return abs_sum(delta()), abs_sum(drop(delta(), density=0.5, ordinal=0))


SIMPLER: Mapping[str, tuple[Callable[[], Node], Callable[[], Node]]] = {
    "cast to the same": (lambda: cast(weight(), dtype=F32), weight),
    "there and back": (lambda: cast(cast(weight(0, BF16), dtype=F32), dtype=BF16), lambda: weight(0, BF16)),
    "a difference to itself": (lambda: sub(weight(), weight()), _nothing),
    "times one": (lambda: scale(delta(), factor=1.0), delta),
    "times zero": (lambda: scale(delta(), factor=0.0), _nothing),
    "times and times": (lambda: scale(scale(delta(), factor=3.0), factor=0.5), lambda: scale(delta(), factor=1.5)),
    "there and back again": (lambda: scale(scale(delta(), factor=4.0), factor=0.25), delta),
    "plus nothing": (lambda: add(weight(), _nothing(), delta()), lambda: add(weight(), delta())),
    "nothing plus": (lambda: add(_nothing(), delta()), delta),
    "a sum of one": (lambda: add(delta()), delta),
    "a weight plus nothing": (lambda: add(weight(), _nothing()), weight),
    "nothing and nothing": (lambda: add(_nothing(), _nothing()), _nothing),
    "nothing divided": (lambda: divide(_nothing(), delta()), _nothing),
    "all kept": (lambda: drop(delta(), density=1.0, ordinal=0), delta),
    "none kept": (lambda: drop(delta(), density=0.0, ordinal=0), _nothing),
    "drop of nothing": (lambda: drop(_nothing(), density=0.5, ordinal=0), _nothing),
    "a norm for itself": (lambda: match_l1(delta(), _norms()[0], _norms()[0]), delta),
    "the norm of nothing": (lambda: match_l1(_nothing(), *_norms()), _nothing),
}


@pytest.mark.parametrize("what", SIMPLER)
def test_what_has_no_effect_is_not_computed(what: str) -> None:
    given_node, expected = SIMPLER[what]
    assert given_node() is expected()


KEPT: Mapping[str, tuple[Callable[[], Node], OpDef]] = {
    "a cast that loses bits": (lambda: cast(cast(weight(), dtype=BF16), dtype=F32), cast),
    "float16 is not in bfloat16": (lambda: cast(cast(weight(0, torch.float16), dtype=BF16), dtype=torch.float16), cast),
    "other models": (lambda: sub(weight(1), weight()), sub),
    "zero times a weight is a weight": (lambda: add(scale(weight(), factor=0.0), delta()), add),
    "most of it kept": (lambda: drop(delta(), density=0.999999, ordinal=0), drop),
    "hardly any kept": (lambda: drop(delta(), density=1e-9, ordinal=0), drop),
    "another norm": (lambda: match_l1(drop(delta(), density=0.5, ordinal=0), *_norms()), match_l1),
}


@pytest.mark.parametrize("what", KEPT)
def test_what_has_an_effect_stays(what: str) -> None:
    build_node, definition = KEPT[what]
    assert build_node().op is definition


def test_zeros_have_the_dtype_they_are_cast_to() -> None:
    node = cast(scale(weight(), factor=0.0), dtype=BF16)
    assert is_zero(node)
    assert (node.spec.dtype, node.spec.space) == (BF16, "weight")


# ------------------------------------------------------------------------------------------------ what is shared


def test_equal_nodes_are_one() -> None:
    assert delta() is delta()
    assert agree_sum(elect(delta(), delta(2)), delta()) is agree_sum(elect(delta(), delta(2)), delta())
    assert add(delta(), delta(2)) is not add(delta(2), delta())


@pytest.mark.parametrize(("one", "other"), [(0, 0.0), (0, False), (2, 2.0), (1.0, True)])
def test_equal_numbers_of_other_types_are_other_attributes(one: float, other: float) -> None:
    made = [zeros(delta().spec).op(shape=(ELEMENTS,), dtype=F32, space="delta", value=each) for each in (one, other)]
    assert made[0] is not made[1]
    assert [type(node.attr("value")) for node in made] == [type(one), type(other)]


@pytest.mark.parametrize("change", [{"ordinal": 1}, {"density": 0.25}])
def test_masks_of_other_inputs_are_not_shared(change: Mapping[str, Any]) -> None:
    attrs: dict[str, Any] = {"density": 0.5, "ordinal": 0}
    assert drop(delta(), **attrs) is not drop(delta(), **{**attrs, **change})
    assert (bound(drop, attrs)["key"] == bound(drop, {**attrs, **change})["key"]) == ("ordinal" not in change)
