"""The ops that look at all task vectors of an element together, as plain expressions, and calls to try them with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import reference
import torch
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Tensor = Callable[[], torch.Tensor]
    Call = tuple[list[torch.Tensor], dict[str, Any], torch.dtype]


def _in_order(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    total = torch.zeros_like(tensors[0])
    for tensor in tensors:
        total = total + tensor
    return total


def _largest(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    size = torch.stack([x.abs() for x in ins]).amax(0)
    positive = torch.stack([x == size for x in ins]).any(0)
    return torch.where(positive, size, -size)


def _moved(ins: Sequence[torch.Tensor], epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of what moved, and of how many."""
    kept = [torch.where(x.abs() > epsilon, x, 0) for x in ins]
    return _in_order(kept), torch.stack([x.abs() > epsilon for x in ins]).sum(0)


def _moved_mean(ins: Sequence[torch.Tensor], *, epsilon: float) -> torch.Tensor:
    total, count = _moved(ins, epsilon)
    return total / count.clamp(min=1)


def _boosted_mean(ins: Sequence[torch.Tensor], *, epsilon: float) -> torch.Tensor:
    boosts, *deltas = ins
    extra = _in_order([torch.where(x.abs() > epsilon, x, 0) * b for x, b in zip(deltas, boosts.tolist(), strict=True)])
    _, count = _moved(deltas, epsilon)
    return _moved_mean(deltas, epsilon=epsilon) + torch.where(count == 1, extra, 0)


def _overlap_counts(ins: Sequence[torch.Tensor], *, epsilon: float) -> torch.Tensor:
    moved = torch.stack([x.abs() > epsilon for x in ins])
    alone = moved & (moved.sum(0) == 1)
    return torch.stack([(moved & ~alone).sum(1), alone.sum(1)])


def _boosts(ins: Sequence[torch.Tensor], *, r: float, alpha: float, epsilon: float) -> torch.Tensor:
    shared, alone = ins[0].double()
    ratio = torch.where(shared == 0, 0, shared / alone.clamp(min=epsilon))
    return r * ratio.clamp(0, alpha)


def _tall_sum(ins: Sequence[torch.Tensor], *, thresholds: Sequence[float], needed: int) -> torch.Tensor:
    total = _in_order(ins)
    slack = _in_order([x.abs() for x in ins]) * reference.CANCELS[total.dtype]
    votes = [x.abs() - (total - x).abs() * threshold + slack >= 0 for x, threshold in zip(ins, thresholds, strict=True)]
    return torch.where(torch.stack(votes).sum(0) >= needed, total, 0)


PLAIN: Mapping[str, Callable[..., torch.Tensor]] = {
    "boosted_mean": _boosted_mean,
    "boosts": _boosts,
    "clamp": lambda ins, bound: ins[0].clamp(-bound, bound),
    "largest": _largest,
    "moved_mean": _moved_mean,
    "overlap_counts": _overlap_counts,
    "tall_sum": _tall_sum,
}

STATES: Mapping[str, Sequence[int]] = {"boosted_mean": (0,), "boosts": (0,)}


def _several(draw: st.DrawFn, tensor: Tensor) -> list[torch.Tensor]:
    return [tensor() for _ in range(draw(st.integers(1, 5)))]


def _call_boosted(draw: st.DrawFn, tensor: Tensor, dtype: torch.dtype) -> Call:
    deltas = _several(draw, tensor)
    boosts = torch.tensor([draw(st.floats(-1, 1, width=32)) for _ in deltas], dtype=torch.float64)
    return [boosts, *deltas], {"epsilon": draw(st.sampled_from([0.0, 0.25, 20.0]))}, dtype


def _call_tall(draw: st.DrawFn, tensor: Tensor, dtype: torch.dtype) -> Call:
    deltas = _several(draw, tensor)
    thresholds = tuple(draw(st.sampled_from([0.0, 0.25, 0.4, 1.0])) for _ in deltas)
    return deltas, {"thresholds": thresholds, "needed": draw(st.integers(0, 3))}, dtype


CALLS: Mapping[str, Callable[[st.DrawFn, Tensor, torch.dtype], Call]] = {
    "boosted_mean": _call_boosted,
    "clamp": lambda draw, tensor, dtype: ([tensor()], {"bound": draw(st.sampled_from([0.0, 0.5, 30.0]))}, dtype),
    "largest": lambda draw, tensor, dtype: (_several(draw, tensor), {}, dtype),
    "moved_mean": lambda draw, tensor, dtype: (
        _several(draw, tensor),
        {"epsilon": draw(st.sampled_from([0.0, 0.25, 20.0]))},
        dtype,
    ),
    "tall_sum": _call_tall,
}
