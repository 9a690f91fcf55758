"""The ops of SCE and Arcee Fusion as plain expressions, and calls to try them with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Tensor = Callable[[], torch.Tensor]
    Call = tuple[list[torch.Tensor], dict[str, Any], torch.dtype]

F64 = torch.float64


def _spread(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    total, squares = torch.zeros_like(ins[0], dtype=F64), torch.zeros_like(ins[0], dtype=F64)
    for x in ins:
        difference = x.double() - ins[0].double()
        total, squares = total + difference, squares + difference * difference
    return (2.0**64 * (len(ins) * squares - total * total)).to(ins[0].dtype)


def _rank_of_share(ins: Sequence[torch.Tensor], *, share: float) -> torch.Tensor:
    return torch.tensor([0, int(share * int(ins[0].sum()))])


def _agreed_mean(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    weights, sign, *deltas = ins
    total, divisor = torch.zeros_like(sign), torch.zeros_like(sign)
    for delta, weight in zip(deltas, weights.tolist(), strict=True):
        agrees = delta.sign() == sign
        total = total + torch.where(agrees, delta.abs() * weight, 0)
        divisor = divisor + torch.where(agrees, torch.full_like(delta, weight), 0)
    return total / divisor.clamp(min=1e-6) * sign


PLAIN: Mapping[str, Callable[..., torch.Tensor]] = {
    "agreed_mean": _agreed_mean,
    "gate": lambda ins: ins[0] * ins[1],
    "rank_of_share": _rank_of_share,
    "spread": _spread,
}

STATES: Mapping[str, Sequence[int]] = {"agreed_mean": (0,), "rank_of_share": (0,)}


def _several(draw: st.DrawFn, tensor: Tensor) -> list[torch.Tensor]:
    return [tensor() for _ in range(draw(st.integers(1, 5)))]


def _call_agreed_mean(draw: st.DrawFn, tensor: Tensor, dtype: torch.dtype) -> Call:
    deltas = _several(draw, tensor)
    weights = draw(st.lists(st.sampled_from([0.0, 1e-9, 0.25, 0.3, 1.0]), min_size=len(deltas), max_size=len(deltas)))
    sign = torch.where(tensor() >= 0, 1.0, -1.0).to(dtype)
    return [torch.tensor(weights, dtype=F64), sign, *deltas], {}, dtype


CALLS: Mapping[str, Callable[[st.DrawFn, Tensor, torch.dtype], Call]] = {
    "agreed_mean": _call_agreed_mean,
    "gate": lambda draw, tensor, dtype: ([tensor(), (tensor() > 0).to(dtype)], {}, dtype),
    "spread": lambda draw, tensor, dtype: (_several(draw, tensor), {}, dtype),
}
