"""Sign consensus: elect a sign per element, and add up what agrees with it.

Yadav et al., "TIES-Merging: Resolving Interference When Merging Models" (2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..engine.opdef import DeviceForm, GraphError, Tile, op, require_space, same_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..engine.graph import Attr, Node, TensorSpec

_CANCELS = {torch.float32: 2.0**-20, torch.float64: 2.0**-40}
"""|Σp| up to this share of Σ|p| is a vote that cancels: rounding noise must not decide it."""


def _infer_elect(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "delta", "elect")
    spec = same_shape(specs, "elect")
    if spec.dtype not in _CANCELS:
        raise GraphError(f"elect works in float32 or float64, not {spec.dtype}")
    return spec.with_(space="sign")


@op(
    "elect",
    infer=_infer_elect,
    scratch_bytes=lambda specs, elements: 2 * elements * specs[0].dtype.itemsize,
    inplace=(),
)
def elect(out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile) -> None:
    """The sign of Σp, +1 or -1; +1 where the sum cancels."""
    spare = scratch.view(out.dtype)
    sizes, size = spare[: out.numel()], spare[out.numel() : 2 * out.numel()]
    torch.abs(ins[0], out=sizes)
    total = ins[0]
    for p in ins[1:]:
        total = torch.add(total, p, out=out)
        torch.abs(p, out=size)
        sizes.add_(size)
    # Σp ≥ -ε·Σ|p| is what makes the sign +1.
    sizes.mul_(_CANCELS[out.dtype])
    torch.add(total, sizes, out=out)
    torch.ge(out, 0, out=out)
    out.mul_(2).sub_(1)


def _infer_agree(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs[:1], "sign", "agreement")
    require_space(specs[1:], "delta", "agreement")
    if len(specs) < 2:
        raise GraphError("agreement takes a sign and at least one delta")
    return same_shape(specs, "agreement").with_(space="delta")


def _one_tile(specs: Sequence[TensorSpec], elements: int) -> int:
    return elements * specs[0].dtype.itemsize


def _of_own_vote(node: Node) -> bool:
    """Whether the sign is what the same deltas elected.

    Then what is not finite comes through: NaN whatever the sign; where there are infinities, they decide the vote, and
    those of its side are added.
    """
    sign, *deltas = node.inputs
    return sign.op is elect and list(sign.inputs) == deltas


def at_least_zero_(x: torch.Tensor, flags: torch.Tensor) -> None:
    """`clamp_min_(0)` with the zeros of the host's processor, which leaves -0 as it is; devices may not."""
    torch.lt(x, 0, out=flags)
    x.masked_fill_(flags, 0)


def flagged_bytes(elements: int, itemsize: int, tiles: int) -> int:
    """Scratch for so many tiles and a flag an element."""
    return elements * (tiles * itemsize + 1)


def _add_up_agreeing(
    out: torch.Tensor, ins: Sequence[torch.Tensor], part: torch.Tensor, cut: Callable[[torch.Tensor], object]
) -> None:
    sign, first, *others = ins
    # p·σ is |p| where the signs agree and not positive elsewhere, so sums of clamped products are exact copies.
    torch.mul(first, sign, out=out)
    cut(out)
    for p in others:
        torch.mul(p, sign, out=part)
        cut(part)
        out.add_(part)
    out.mul_(sign)


def _agree_sum_on_device(out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile) -> None:
    room_bytes = out.numel() * out.itemsize
    flags = scratch[room_bytes : room_bytes + out.numel()].view(torch.bool)
    _add_up_agreeing(out, ins, scratch[:room_bytes].view(out.dtype), lambda x: at_least_zero_(x, flags))


@op(
    "agree_sum",
    infer=_infer_agree,
    scratch_bytes=_one_tile,
    keeps_nonfinite=_of_own_vote,
    device=DeviceForm(
        _agree_sum_on_device, lambda specs, elements: flagged_bytes(elements, specs[0].dtype.itemsize, 1)
    ),
)
def agree_sum(out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile) -> None:
    """Σ of the p whose sign is the elected one: inputs sign, p₁ … p_K."""
    _add_up_agreeing(out, ins, scratch.view(out.dtype)[: out.numel()], lambda x: x.clamp_min_(0))


def _infer_agree_weight(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    weights = attrs["weights"]
    if not isinstance(weights, tuple) or len(weights) != len(specs) - 1:
        raise GraphError("agree_weight takes one weight a delta")
    return _infer_agree(specs, attrs)


@op("agree_weight", infer=_infer_agree_weight, scratch_bytes=_one_tile)
def agree_weight(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    scratch: torch.Tensor,
    _tile: Tile,
    *,
    weights: tuple[float, ...],
) -> None:
    """Σ of the weights of the p whose sign is the elected one; 1 where that is exactly 0."""
    sign, *deltas = ins
    part = scratch.view(out.dtype)[: out.numel()]
    out.zero_()
    for p, weight in zip(deltas, weights, strict=True):
        torch.mul(p, sign, out=part)
        torch.gt(part, 0, out=part)
        part.mul_(weight)
        out.add_(part)
    torch.eq(out, 0, out=part)
    out.add_(part)
