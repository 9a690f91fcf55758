"""Ops that look at the task vectors of one element together: which is the largest, how many moved, how many agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engine.graph import Attr, Node, TensorSpec
from ..engine.opdef import GraphError, Reduction, Tile, op, require_space, same_shape
from .elementwise import is_zero, zeros
from .reduce import add_up
from .scratch import carve, carved_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROUNDING = {torch.float32: 2.0**-20, torch.float64: 2.0**-40}
"""Sizes that differ by this share of the sum of all sizes are equal: rounding noise must not decide."""


def _tiles(scratch: torch.Tensor, out: torch.Tensor, count: int) -> list[torch.Tensor]:
    """The scratch as tiles like ``out``."""
    elements = out.numel()
    memory = scratch.view(out.dtype)
    return [memory[index * elements : (index + 1) * elements] for index in range(count)]


def _infer_deltas(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "delta", "an op on task vectors")
    return same_shape(specs, "an op on task vectors")


# ------------------------------------------------------------------------------------------------ bounded, largest


@op(
    "clamp",
    infer=_infer_deltas,
    inplace=(0,),
    simplify=lambda inputs, _attrs: inputs[0] if is_zero(inputs[0]) else None,
)
def clamp(out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, bound: float) -> None:
    """Cut a task vector off at ±bound."""
    torch.clamp(ins[0], -bound, bound, out=out)


def _simplify_largest(inputs: Sequence[Node], _attrs: Mapping[str, Attr]) -> Node | None:
    kept = [node for node in dict.fromkeys(inputs) if not is_zero(node)]
    if len(kept) == len(inputs) and len(kept) > 1:
        return None
    return largest(*kept) if len(kept) > 1 else kept[0] if kept else inputs[0]


@op(
    "largest",
    infer=_infer_deltas,
    simplify=_simplify_largest,
    scratch_bytes=lambda specs, elements: 2 * elements * specs[0].dtype.itemsize,
)
def largest(out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile) -> None:
    """The value of the largest magnitude, in any order of the inputs; of +v and -v it is +v."""
    lowest, chosen = _tiles(scratch, out, 2)
    out.copy_(ins[0])
    lowest.copy_(ins[0])
    for x in ins[1:]:
        torch.maximum(out, x, out=out)
        torch.minimum(lowest, x, out=lowest)
    # The largest is the maximum or the minimum; the sign of their sum says which.
    torch.add(out, lowest, out=chosen)
    torch.ge(chosen, 0, out=chosen)
    out.mul_(chosen)
    chosen.neg_().add_(1)
    out.add_(lowest.mul_(chosen))
    # Which of +0 and -0 is the larger depends on where in a tile they stand; with this it is +0 everywhere.
    out.add_(0.0)


# ------------------------------------------------------------------------------------------------ means of what moved


def _infer_moved(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    epsilon = attrs["epsilon"]
    if not isinstance(epsilon, (int, float)) or epsilon < 0:
        raise GraphError("what moved is told by a size that is not negative")
    return _infer_deltas(specs, attrs)


@op(
    "moved_mean",
    infer=_infer_moved,
    scratch_bytes=lambda specs, elements: 2 * elements * specs[0].dtype.itemsize,
)
def moved_mean(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, epsilon: float
) -> None:
    """The mean of the values above ``epsilon`` in size; 0 where there are none."""
    part, counts = _tiles(scratch, out, 2)
    out.zero_()
    counts.zero_()
    for delta in ins:
        torch.hardshrink(delta, epsilon, out=part)
        out.add_(part)
        counts.add_(torch.ne(part, 0, out=part))
    out.div_(counts.clamp_min_(1))


def _infer_boosted(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs[:1], "state", "boosted_mean's boosts")
    if specs[0].shape != (len(specs) - 1,):
        raise GraphError("boosted_mean takes one boost a delta")
    return _infer_moved(specs[1:], attrs)


@op(
    "boosted_mean",
    infer=_infer_boosted,
    scratch_bytes=lambda specs, elements: 4 * elements * specs[1].dtype.itemsize,
)
def boosted_mean(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, epsilon: float
) -> None:
    """`moved_mean`, and where only one moved, that times 1 + its boost: inputs boosts, Δ₁ … Δ_K."""
    boosts, *deltas = ins
    part, counts, boosted, extra = _tiles(scratch, out, 4)
    for tile in (out, counts, extra):
        tile.zero_()
    for delta, boost in zip(deltas, boosts.tolist(), strict=True):
        torch.hardshrink(delta, epsilon, out=part)
        out.add_(part)
        extra.add_(torch.mul(part, boost, out=boosted))
        counts.add_(torch.ne(part, 0, out=part))
    extra.mul_(torch.eq(counts, 1, out=boosted))
    out.div_(counts.clamp_min_(1))
    out.add_(extra)


def _infer_counts(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    _infer_moved(specs, attrs)
    return _counts_spec(specs, 0, 0)


def _counts_spec(specs: Sequence[TensorSpec], _elements: int, _block_elements: int) -> TensorSpec:
    return TensorSpec((2, len(specs)), torch.int64, "state")


@op(
    "overlap_counts",
    locality="reduce",
    infer=_infer_counts,
    scratch_bytes=lambda _specs, elements: carved_bytes(
        (np.float64, elements), (np.bool_, elements), (np.bool_, elements), (np.int16, elements)
    ),
    reduction=Reduction(_counts_spec, _counts_spec, add_up),
)
def overlap_counts(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, epsilon: float, **_: object
) -> None:
    """For each Δ, how many elements moved together with another's (first row) and alone (second row)."""
    elements = ins[0].numel()
    memory, moved, alone, counts = carve(
        scratch, (np.float64, elements), (np.bool_, elements), (np.bool_, elements), (np.int16, elements)
    )
    sizes = memory.view(ins[0].numpy().dtype)[:elements]
    result = out.numpy().reshape(2, len(ins))
    counts[:] = 0
    for index, delta in enumerate(ins):
        np.greater(np.abs(delta.numpy(), out=sizes), epsilon, out=moved)
        np.add(counts, moved, out=counts)
        result[0, index] = np.count_nonzero(moved)
    np.equal(counts, 1, out=alone)
    for index, delta in enumerate(ins):
        np.greater(np.abs(delta.numpy(), out=sizes), epsilon, out=moved)
        result[1, index] = np.count_nonzero(np.logical_and(moved, alone, out=moved))
    result[0] -= result[1]


def _infer_boosts(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "state", "boosts")
    return TensorSpec((specs[0].shape[1],), torch.float64, "state")


@op("boosts", locality="state", infer=_infer_boosts)
def boosts(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    _scratch: torch.Tensor,
    _tile: Tile,
    *,
    r: float,
    alpha: float,
    epsilon: float,
) -> None:
    """By how much the parts of each model that moved alone are scaled up: r·clamp(shared/max(alone, ε), 0, α)."""
    shared, alone = ins[0].reshape(2, -1).tolist()
    for index, (together, single) in enumerate(zip(shared, alone, strict=True)):
        # With ε = 0 and nothing alone the ratio is without bound, and α is the bound.
        divisor = max(single, epsilon)
        out[index] = r * (min(together / divisor, alpha) if divisor else alpha * (together > 0))


# ------------------------------------------------------------------------------------------------ agreement in size


def _infer_tall(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    thresholds = attrs["thresholds"]
    if not isinstance(thresholds, tuple) or len(thresholds) != len(specs) or not isinstance(attrs["needed"], int):
        raise GraphError("tall_sum takes one threshold a delta, and how many must be for an element")
    if specs[0].dtype not in _ROUNDING:
        raise GraphError(f"tall_sum works in float32 or float64, not {specs[0].dtype}")
    return _infer_deltas(specs, attrs)


def _simplify_tall(inputs: Sequence[Node], _attrs: Mapping[str, Attr]) -> Node | None:
    return zeros(inputs[0].spec) if all(map(is_zero, inputs)) else None


@op(
    "tall_sum",
    infer=_infer_tall,
    simplify=_simplify_tall,
    scratch_bytes=lambda specs, elements: 4 * elements * specs[0].dtype.itemsize,
)
def tall_sum(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    scratch: torch.Tensor,
    _tile: Tile,
    *,
    thresholds: tuple[float, ...],
    needed: int,
) -> None:
    """Σ of the τ where at least ``needed`` of them have |τᵢ| ≥ λᵢ·|Σ - τᵢ|, else 0."""
    size, rest, slack, votes = _tiles(scratch, out, 4)
    out.copy_(ins[0])
    torch.abs(ins[0], out=slack)
    for tau in ins[1:]:
        out.add_(tau)
        slack.add_(torch.abs(tau, out=size))
    slack.mul_(_ROUNDING[out.dtype])
    votes.zero_()
    for tau, threshold in zip(ins, thresholds, strict=True):
        torch.sub(out, tau, out=rest)
        rest.abs_().mul_(threshold)
        torch.abs(tau, out=size)
        size.sub_(rest).add_(slack)
        votes.add_(torch.ge(size, 0, out=size))
    out.mul_(torch.ge(votes, needed, out=votes))
