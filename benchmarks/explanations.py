"""Why an element of two merges differs by more than rounding: each reason is checked on the element itself.

A reason that is not checked here explains nothing, so a new difference shows up as unexplained. The reasons:

- ``ties``: where a rank decides, the element's task vector lies exactly at the rank's value, as others do. Plait takes
  the lower index; mergekit's sort is not stable, so it takes any. Both outputs are the formula's, at some choice.
- ``cancelled votes``: the signs' vote cancels to within float32 rounding. Plait counts it as +, mergekit takes the sign
  of the rounding error. Both outputs are the formula's, with one sign or the other.
- ``float32 arithmetic``: mergekit, told to compute in float64, agrees with Plait to the last bit of float32.
- ``small sce weights``: mergekit weighs models equally where the sum of their mean squares is below 1e-6, Plait
  only where it is zero. mergekit's output is the formula's with equal weights.
- ``sampled quartiles``: mergekit estimates quartiles from a sample in tensors of more than a million elements, Plait
  takes the exact ones; the element's importance lies within what the sample's error can do to the threshold.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from differences import ROUNDING_ULPS, spacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cases import Case
    from numpy.typing import NDArray
    from torch import Tensor

    Floats: TypeAlias = NDArray[np.floating]
    Flags: TypeAlias = NDArray[np.bool_]

CANCELS = 2.0**-20
"""A vote is cancelled where |Σp| is at most this share of Σ|p|: mergekit's p have float32's relative error."""

SAMPLE_ELEMENTS = 1_000_000
SAMPLE_ERRORS = 6
"""Standard errors of a quartile's rank that a sample may be off."""

RANKED = ("ties", "breadcrumbs", "breadcrumbs_ties")
VOTING = ("ties", "breadcrumbs_ties")


def of_choices(
    case: Case, base: Tensor, models: Sequence[Tensor], outputs: Sequence[Tensor], beyond: Tensor
) -> tuple[Counter[str], Tensor]:
    """Explain elements of both outputs by ties in rank and cancelled votes; also the indices that are left."""
    if case.method not in RANKED or beyond.numel() == 0:
        return Counter(), beyond
    at = beyond.numpy()
    cuts = [
        _cut(case, task_vector(model, base), at, density, gamma)
        for model, density, gamma in zip(
            models, case.per_model("density", 1.0), case.per_model("gamma", 0.01), strict=True
        )
    ]
    origin = base.reshape(-1)[beyond].double().numpy()
    deltas = np.stack([model.reshape(-1)[beyond].double().numpy() for model in models]) - origin
    found = [output.reshape(-1)[beyond].double().numpy() for output in outputs]
    matched = [np.zeros(at.size, dtype=np.bool_) for _ in outputs]
    cancelled = np.zeros(at.size, dtype=np.bool_)
    for choice, sign in product(product((False, True), repeat=len(models)), (-1.0, 1.0)):
        kept = np.stack([cut.inside | (cut.tied & taken) for cut, taken in zip(cuts, choice, strict=True)])
        scaled = deltas * kept * np.array([[cut.factor] for cut in cuts])
        value, near = _task_formula(case, scaled, sign)
        cancelled |= near
        limit = ROUNDING_ULPS * spacing(torch.from_numpy(origin), torch.from_numpy(value)).numpy()
        for same, output in zip(matched, found, strict=True):
            same |= np.abs(origin + value - output) <= limit
    tied = np.stack([cut.tied for cut in cuts]).any(axis=0)
    both = np.logical_and.reduce(matched)
    by_tie, by_vote = both & tied, both & cancelled & ~tied
    causes = Counter({"ties": int(by_tie.sum()), "cancelled votes": int(by_vote.sum())})
    return +causes, beyond[torch.from_numpy(~(by_tie | by_vote))]


def of_float32(ours: Tensor, exact: Tensor, beyond: Tensor) -> tuple[Counter[str], Tensor]:
    """Explain elements where ``exact``, mergekit's output in float64, rounds to ours."""
    out, other = (tensor.reshape(-1)[beyond].double() for tensor in (ours, exact))
    agree = (out - other).abs() <= spacing(out, other)
    return +Counter({"float32 arithmetic": int(agree.sum())}), beyond[~agree]


def of_sce(
    case: Case, base: Tensor, models: Sequence[Tensor], outputs: tuple[Tensor, Tensor], beyond: Tensor
) -> tuple[Counter[str], Tensor]:
    """Explain a tensor whose outputs, ours and mergekit's in float64, are the formula's at some choice of ties.

    What is chosen moves the models' weights, and with them every element of the tensor.
    """
    if case.method != "sce" or beyond.numel() == 0:
        return Counter(), beyond
    origin = base.reshape(-1).double().numpy()
    deltas = np.stack([model.reshape(-1).double().numpy() - origin for model in models])
    share, variance = float(case.params.get("select_topk", 1.0)), deltas.var(axis=0)
    kept = int(share * np.count_nonzero(variance))
    threshold = np.partition(variance, -kept)[-kept] if kept > 0 and share < 1 else 0.0
    # Equal variances, summed in another order, differ in their last bits.
    near = np.abs(variance - threshold) <= 1e-12 * threshold
    small = False
    for output, equal_below in zip(outputs, (0.0, 1e-6), strict=True):
        found = output.reshape(-1).double().numpy()
        chosen = (found != origin) if share < 1 else np.ones_like(near)
        if share < 1 and (chosen != (variance >= threshold))[~near].any():
            return Counter(), beyond
        selected = deltas * chosen
        squares = np.square(selected).mean(axis=1)
        equal = squares.sum() < equal_below
        small |= bool(equal)
        weights = np.full(len(models), 1 / len(models)) if equal else squares / squares.sum()
        agree = np.sign(selected) == np.where(selected.sum(axis=0) >= 0, 1.0, -1.0)
        used = agree * weights[:, None]
        formula = origin + (used * selected).sum(axis=0) / np.maximum(used.sum(axis=0), 1e-6)
        limit = spacing(torch.from_numpy(formula), torch.from_numpy(origin)).numpy()
        if (np.abs(formula - found) > limit)[beyond.numpy()].any():
            return Counter(), beyond
    if not small and near.sum() < 2:
        return Counter(), beyond
    return Counter({"small sce weights" if small else "ties": beyond.numel()}), beyond[:0]


def of_samples(
    case: Case, base: Tensor, model: Tensor, outputs: tuple[Tensor, Tensor], beyond: Tensor
) -> tuple[Counter[str], Tensor]:
    """Explain elements of arcee_fusion that a threshold from sampled quartiles may take or leave."""
    if case.method != "arcee_fusion" or base.numel() <= SAMPLE_ELEMENTS or beyond.numel() == 0:
        return Counter(), beyond
    importance = _importance(base, model)
    slack = SAMPLE_ERRORS * (0.25 / SAMPLE_ELEMENTS) ** 0.5
    ranks = [int((share + sign * slack) * (importance.size - 1)) for share in (0.25, 0.5, 0.75) for sign in (-1, 1)]
    ordered = np.partition(importance, ranks)
    first_low, first_high, middle_low, middle_high, third_low, third_high = (ordered[rank] for rank in ranks)
    lowest = middle_low + 1.5 * (third_low - first_high)
    highest = middle_high + 1.5 * (third_high - first_low)
    at = importance[beyond.numpy()]
    within = torch.from_numpy((lowest <= at) & (at <= highest))
    old, new = (tensor.reshape(-1)[beyond].double() for tensor in (base, model))
    for output in outputs:
        found = output.reshape(-1)[beyond].double()
        within &= (found == old) | ((found - new).abs() <= spacing(new))
    return +Counter({"sampled quartiles": int(within.sum())}), beyond[~within]


def task_vector(model: Tensor, base: Tensor) -> Floats:
    """The task vector, flat, in float32: that is what both tools rank by on a CPU."""
    difference: Floats = (model.double() - base.double()).reshape(-1).float().numpy()
    return difference


@dataclass(frozen=True)
class _Cut:
    """What a sparsifier by rank does to some elements: kept for certain, tied at a cut; and the factor of l1."""

    inside: Flags
    tied: Flags
    factor: float


def _cut(case: Case, delta: Floats, at: NDArray[np.int64], density: float, gamma: float) -> _Cut:
    magnitude, count = np.abs(delta), delta.size
    if density >= 1:
        return _Cut(np.ones(at.size, dtype=np.bool_), np.zeros(at.size, dtype=np.bool_), 1.0)
    kept = max(1, int(density * count)) if case.method == "ties" else int(density * count)
    bottom = count - kept if case.method == "ties" else max(0, count - kept - int(gamma * count))
    ends = [rank for rank in (bottom, bottom + kept) if 0 < rank < count]
    ordered = np.partition(magnitude, sorted({bottom, bottom + kept - 1, *ends, *(rank - 1 for rank in ends)}))
    inside = (ordered[bottom] <= magnitude[at]) & (magnitude[at] <= ordered[bottom + kept - 1])
    tied = np.zeros(at.size, dtype=np.bool_)
    for rank in ends:
        if ordered[rank - 1] == ordered[rank]:
            tied |= magnitude[at] == ordered[rank]
    factor = 1.0
    if case.params.get("rescale", False):
        total = ordered[bottom : bottom + kept].sum(dtype=np.float64)
        factor = float(ordered.sum(dtype=np.float64) / total) if total > 0 else 1.0
    return _Cut(inside & ~tied, tied, factor)


def _task_formula(case: Case, sparse: NDArray[np.float64], sign: float) -> tuple[NDArray[np.float64], Flags]:
    """The change of the base, with ``sign`` where a vote cancels; and where it does. ``sparse`` is (K, elements)."""
    weights = np.array(case.per_model("weight", 1.0))[:, None]
    parts = weights * sparse
    total, size = parts.sum(axis=0), np.abs(parts).sum(axis=0)
    near = (np.abs(total) <= CANCELS * size) & (size > 0) & (case.method in VOTING)
    agree = np.ones_like(parts)
    if case.method in VOTING:
        elected = np.where(near, sign, np.where(total >= 0, 1.0, -1.0))
        agree = (np.sign(parts) == elected).astype(np.float64)
    divisor = np.ones_like(total)
    if case.params.get("normalize", case.method == "ties"):
        divisor = (agree * weights).sum(axis=0)
        divisor[divisor == 0] = 1.0
    return (agree * parts).sum(axis=0) / divisor * float(case.params.get("lambda", 1.0)), near


def _importance(base: Tensor, model: Tensor) -> NDArray[np.float64]:
    """|Δ| times the row's divergence of softmax(x) from softmax(b), flat, row by row in float64."""
    columns = base.shape[-1]
    rows, others = base.reshape(-1, columns), model.reshape(-1, columns)
    found = np.empty((rows.shape[0], columns))
    step = max(1, (1 << 21) // columns)
    for start in range(0, rows.shape[0], step):
        b, x = (tensor[start : start + step].double() for tensor in (rows, others))
        q, p = (tensor.softmax(dim=-1) + 1e-8 for tensor in (b, x))
        divergence = (p * (p / q).log()).sum(dim=-1, keepdim=True)
        found[start : start + step] = ((x - b).abs() * divergence).numpy()
    return found.reshape(-1)
