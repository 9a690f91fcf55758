"""The ops of SCE and Arcee Fusion as plain expressions, and calls to try them with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import reference
import reference_fusion
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
        difference = (x - ins[0]).double()
        total, squares = total + difference, squares + difference * difference
    return (2.0**64 * (len(ins) * squares - total * total)).to(ins[0].dtype)


def _rank_of_share(ins: Sequence[torch.Tensor], *, share: float) -> torch.Tensor:
    return torch.tensor([0, int(share * int(ins[0][0]))])


def _agreed_mean(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    weights, sign, *deltas = ins
    total, divisor = torch.zeros_like(sign), torch.zeros_like(sign)
    for delta, weight in zip(deltas, weights.tolist(), strict=True):
        agrees = delta.sign() == sign
        total = total + torch.where(agrees, delta.abs() * weight, 0)
        divisor = divisor + torch.where(agrees, torch.full_like(delta, weight), 0)
    return total / divisor.clamp(min=1e-6) * sign


def _row_divergence(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of rows, as 2-D tensors have them."""
    p, q = (reference_fusion.softmax(x.numpy().astype(np.longdouble)) + 1e-8 for x in ins)
    divergence = (p * np.log(p / q)).sum(axis=-1).astype(np.float64)
    return torch.from_numpy(2.0**64 * divergence).to(ins[0].dtype)


def _importance(ins: Sequence[torch.Tensor], *, row_elements: int) -> torch.Tensor:
    delta, divergence = ins
    return delta.abs() * divergence.repeat_interleave(row_elements)[: delta.numel()]


def _outlier_threshold(ins: Sequence[torch.Tensor], *, dtype: torch.dtype) -> torch.Tensor:
    width = torch.int32 if dtype == torch.float32 else torch.int64
    low, median, high = (located[:1].to(width).view(dtype).double() for located in ins)
    return (median + 1.5 * (high - low)) * (1 - reference.CANCELS[dtype])


def _keep_at_least(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    values, ranking, threshold = ins
    return torch.where(ranking.double() >= threshold, values, 0)


PLAIN: Mapping[str, Callable[..., torch.Tensor]] = {
    "agreed_mean": _agreed_mean,
    "gate": lambda ins: torch.where(ins[1] != 0, ins[0], 0),
    "importance": _importance,
    "keep_at_least": _keep_at_least,
    "nonzero_count": lambda ins: (ins[0] != 0).sum().reshape(1),
    "outlier_threshold": _outlier_threshold,
    "row_divergence": _row_divergence,
    "rank_of_share": _rank_of_share,
    "spread": _spread,
}

STATES: Mapping[str, Sequence[int]] = {
    "agreed_mean": (0,),
    "importance": (1,),
    "keep_at_least": (2,),
    "outlier_threshold": (0, 1, 2),
    "rank_of_share": (0,),
}


def _several(draw: st.DrawFn, tensor: Tensor) -> list[torch.Tensor]:
    return [tensor() for _ in range(draw(st.integers(1, 5)))]


def _call_agreed_mean(draw: st.DrawFn, tensor: Tensor, dtype: torch.dtype) -> Call:
    deltas = _several(draw, tensor)
    weights = draw(st.lists(st.sampled_from([0.0, 1e-9, 0.25, 0.3, 1.0]), min_size=len(deltas), max_size=len(deltas)))
    sign = torch.where(tensor() >= 0, 1.0, -1.0).to(dtype)
    return [torch.tensor(weights, dtype=F64), sign, *deltas], {}, dtype


def _call_importance(draw: st.DrawFn, tensor: Tensor, dtype: torch.dtype) -> Call:
    delta, row_elements = tensor(), draw(st.integers(1, 90))
    rows = -(-delta.numel() // row_elements)
    divergence = np.random.default_rng(rows).random(rows)
    return [delta, torch.from_numpy(divergence).to(dtype)], {"row_elements": row_elements}, dtype


def _call_keep_at_least(draw: st.DrawFn, tensor: Tensor, dtype: torch.dtype) -> Call:
    values, ranking = tensor(), tensor().abs()
    # At an element, and next to it where float32 has no number.
    at = draw(st.sampled_from([0.0, *ranking.tolist()[:3]]))
    threshold = torch.tensor([at * (1 + draw(st.sampled_from([0.0, 2.0**-30, -(2.0**-30)])))], dtype=F64)
    return [values, ranking, threshold], {}, dtype


CALLS: Mapping[str, Callable[[st.DrawFn, Tensor, torch.dtype], Call]] = {
    "agreed_mean": _call_agreed_mean,
    "gate": lambda draw, tensor, dtype: ([tensor(), tensor()], {}, dtype),
    "importance": _call_importance,
    "keep_at_least": _call_keep_at_least,
    "spread": lambda draw, tensor, dtype: (_several(draw, tensor), {}, dtype),
}
