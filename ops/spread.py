"""Ops for selecting by variance: how far models disagree, the rank that a share of them has, and a weighted vote."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engine.graph import Attr, Node, TensorSpec
from ..engine.opdef import GraphError, Reduction, Tile, op, require_space, same_shape
from .elementwise import is_zero, sub, zeros
from .reduce import add_up
from .scratch import carve, carved_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import DTypeLike

_CHUNK_ELEMENTS = 1 << 15
"""Float64 work goes in chunks that stay in a core's cache."""

_UNIT = 2.0**32
"""Differences are taken this much larger, so that in float32 the squares of the smallest are not 0."""


# ------------------------------------------------------------------------------------------------ variance


def _spread_parts(dtype: torch.dtype, elements: int) -> list[tuple[DTypeLike, int]]:
    """The scratch of `spread`: differences in the dtype of the models, and float64."""
    chunk = min(elements, _CHUNK_ELEMENTS)
    narrow: DTypeLike = np.float32 if dtype == torch.float32 else np.float64
    return [(narrow, chunk), *[(np.float64, chunk)] * 3]


def _infer_spread(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "weight", "spread")
    if specs[0].dtype not in (torch.float32, torch.float64):
        raise GraphError(f"spread works in float32 or float64, not {specs[0].dtype}")
    return same_shape(specs, "spread").with_(space="delta")


def _simplify_spread(inputs: Sequence[Node], _attrs: Mapping[str, Attr]) -> Node | None:
    """Zeros where no model differs from the first; of two the difference, which orders like its square."""
    if all(node is inputs[0] for node in inputs):
        return zeros(inputs[0].spec.with_(space="delta"))
    return sub(inputs[1], inputs[0]) if len(inputs) == 2 else None


@op(
    "spread",
    infer=_infer_spread,
    simplify=_simplify_spread,
    scratch_bytes=lambda specs, elements: carved_bytes(*_spread_parts(specs[0].dtype, elements)),
)
def spread(out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile) -> None:
    """What orders like the variance of K models: 2⁶⁴·(K·Σd² - (Σd)²) with d the difference to the first of them.

    The d are of the dtype of the models, the rest is float64, which is exact for weights of 16 bits, and rounded
    once. So equal variances stay equal, and float32 makes equals of those that differ by less than 1 in 2²⁴. Since
    the d of the first is 0, the result is never below Σd²: it does not cancel.
    """
    first, *others = (x.numpy() for x in ins)
    result = out.numpy()
    if not others:
        result.fill(0)
        return
    buffers = carve(scratch, *_spread_parts(out.dtype, len(first)))
    for lo in range(0, len(first), _CHUNK_ELEMENTS):
        hi = min(lo + _CHUNK_ELEMENTS, len(first))
        difference, step, total, squares = (buffer[: hi - lo] for buffer in buffers)
        for index, x in enumerate(others):
            np.subtract(x[lo:hi], first[lo:hi], out=difference)
            if index == 0:
                total[:] = difference
                np.multiply(total, total, out=squares)
            else:
                step[:] = difference
                np.add(total, step, out=total)
                np.multiply(step, step, out=step)
                np.add(squares, step, out=squares)
        np.multiply(squares, len(ins) * _UNIT**2, out=squares)
        np.multiply(total, _UNIT, out=total)
        np.multiply(total, total, out=total)
        np.subtract(squares, total, out=squares)
        result[lo:hi] = squares


def _one_count(_specs: Sequence[TensorSpec], _elements: int, _block_elements: int) -> TensorSpec:
    return TensorSpec((1,), torch.int64, "state")


def _infer_nonzero(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    if specs[0].space == "state":
        raise GraphError("nonzero_count takes elements")
    return _one_count(specs, 0, 0)


@op(
    "nonzero_count",
    locality="reduce",
    infer=_infer_nonzero,
    scratch_bytes=lambda _specs, elements: carved_bytes((np.bool_, elements)),
    reduction=Reduction(_one_count, _one_count, add_up),
)
def nonzero_count(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, **_: object
) -> None:
    """How many elements are not zero."""
    (flags,) = carve(scratch, (np.bool_, ins[0].numel()))
    np.not_equal(ins[0].numpy(), 0, out=flags)
    out[0] = int(np.count_nonzero(flags))


def _infer_rank(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "state", "rank_of_share")
    if len(specs) != 1 or not isinstance(attrs["share"], (int, float)):
        raise GraphError("rank_of_share takes a count and a share")
    return TensorSpec((2,), torch.int64, "state")


@op("rank_of_share", locality="state", infer=_infer_rank)
def rank_of_share(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, share: float
) -> None:
    """Where `rank` starts for the first ⌊share·count⌋ elements: (0, rank)."""
    out[0], out[1] = 0, int(share * int(ins[0][0]))


# ------------------------------------------------------------------------------------------------ selection, vote


def _infer_gate(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "delta", "gate")
    if len(specs) != 2:
        raise GraphError("gate takes a task vector and what opens it")
    return same_shape(specs, "gate")


def _simplify_gate(inputs: Sequence[Node], _attrs: Mapping[str, Attr]) -> Node | None:
    return next((node for node in inputs if is_zero(node)), None)


@op(
    "gate",
    infer=_infer_gate,
    simplify=_simplify_gate,
    scratch_bytes=lambda specs, elements: elements * specs[0].dtype.itemsize,
    inplace=(0,),
)
def gate(out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile) -> None:
    """A task vector where another value is not zero, else zero."""
    values, opens = ins
    # A product and not a masked copy, which is slower; its mask as numbers of the same dtype.
    mask = scratch.view(out.dtype)[: out.numel()]
    torch.ne(opens, 0, out=mask)
    torch.mul(values, mask, out=out)


_LEAST_DIVISOR = 1e-6


def _infer_agreed(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    weights, sign, *deltas = specs
    require_space([weights], "state", "agreed_mean's weights")
    require_space([sign], "sign", "agreed_mean's vote")
    require_space(deltas, "delta", "agreed_mean")
    if not deltas or weights.shape != (len(deltas),):
        raise GraphError("agreed_mean takes a weight for each delta, a vote, and the deltas")
    return same_shape([sign, *deltas], "agreed_mean").with_(space="delta")


@op(
    "agreed_mean",
    infer=_infer_agreed,
    scratch_bytes=lambda specs, elements: 3 * elements * specs[1].dtype.itemsize,
)
def agreed_mean(out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile) -> None:
    """Weighted mean of the Δ with the elected sign: inputs weights, sign, Δ₁ … Δ_K. The divisor is at least 1e-6."""
    weights, sign, *deltas = ins
    elements = out.numel()
    memory = scratch.view(out.dtype)
    part, agrees, divisor = (memory[index * elements : (index + 1) * elements] for index in range(3))
    out.zero_()
    divisor.zero_()
    for delta, weight in zip(deltas, weights.tolist(), strict=True):
        # Δ·σ is |Δ| where the signs agree and not positive elsewhere.
        torch.mul(delta, sign, out=part)
        part.clamp_min_(0)
        torch.gt(part, 0, out=agrees)
        out.add_(part.mul_(weight))
        divisor.add_(agrees.mul_(weight))
    out.div_(divisor.clamp_min_(_LEAST_DIVISOR))
    out.mul_(sign)
