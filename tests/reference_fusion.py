"""SCE and Arcee Fusion as they are defined: whole tensors, float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from reference import CANCELS, Answer, rounded
from reference_ranks import first_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from reference import Array, Mask, Question

    Case = tuple[str, dict[str, Any], list[dict[str, Any]]]


def variance_mask(deltas: Array, share: float, q: Question) -> Mask:
    """The elements of the largest variance: the share of those whose variance is not 0."""
    if share >= 1 or share <= 0:
        return np.full(deltas.shape[1:], share >= 1)
    # K²·variance: no rounding, so that equals are equal, before the one to the type of the arithmetic.
    spread = len(deltas) * (deltas**2).sum(axis=0) - deltas.sum(axis=0) ** 2
    spread = rounded(spread, q.compute)
    return first_ranks(spread, int(share * np.count_nonzero(spread)), descending=True)


def sce(q: Question) -> Answer:
    assert q.base is not None
    deltas = np.stack([x - q.base for x in q.models])
    kept = variance_mask(deltas, q.settings.get("select_topk", 1.0), q)
    deltas = np.where(kept, deltas, 0.0)
    each = (-1, *[1] * q.base.ndim)
    energies = np.array([np.mean(delta**2) if delta.size else 0.0 for delta in deltas])
    total = energies.sum()
    weights = (energies / total if total else np.full(len(deltas), 1 / len(deltas))).reshape(each)
    votes, sizes = deltas.sum(axis=0), np.abs(deltas).sum(axis=0)
    limit = CANCELS[q.compute] * sizes
    sign = np.where((votes >= 0) | (np.abs(votes) <= limit), 1.0, -1.0)
    agree = np.sign(deltas) == sign
    divisor = np.maximum((weights * agree).sum(axis=0), 1e-6)
    change = (weights * agree * deltas).sum(axis=0) / divisor
    undecided = (np.abs(votes + limit) <= 0.75 * limit) & (sizes > 0)
    return Answer(q.base + change, q.base, np.abs(q.base) + np.abs(change), undecided)


def fusion_mask(base: Array, other: Array, tolerance: float) -> tuple[Mask, Mask]:
    """What Arcee Fusion takes over, and where that is too close to say in the arithmetic of the merge.

    What is below the threshold by rounding noise alone is not below it.
    """
    if not base.size:
        return np.zeros(base.shape, dtype=np.bool_), np.zeros(base.shape, dtype=np.bool_)
    p, q = (softmax(np.atleast_1d(x).astype(np.longdouble)) + 1e-8 for x in (other, base))
    divergence = (p * np.log(p / q)).sum(axis=-1, keepdims=True)
    importance = (np.abs(other - base) * np.maximum(divergence, 0)).reshape(base.shape)
    ordered = np.sort(importance.reshape(-1))
    low, median, high = (ordered[(base.size - 1) * quarter // 4] for quarter in (1, 2, 3))
    threshold = median + 1.5 * (high - low)
    excess = importance - threshold * (1 - np.longdouble(tolerance))
    return excess >= 0, np.abs(excess) <= 0.75 * tolerance * threshold * (threshold > 0)


def softmax(x: NDArray[Any]) -> NDArray[Any]:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    share: NDArray[Any] = powers / powers.sum(axis=-1, keepdims=True)
    return share


def arcee_fusion(q: Question) -> Answer:
    assert q.base is not None
    (x,) = q.models
    kept, undecided = fusion_mask(q.base, x, CANCELS[q.compute])
    change = np.where(kept, x - q.base, 0.0)
    return Answer(q.base + change, q.base, np.abs(q.base) + np.abs(change), undecided)


METHODS: Mapping[str, Callable[[Question], Answer]] = {"arcee_fusion": arcee_fusion, "sce": sce}

ON_TASK_VECTORS = frozenset({"sce"})


def _cases() -> Iterator[Case]:
    for count in range(1, 9):
        for share in (1, 0.35):
            yield "sce", {"select_topk": share}, [{}] * count
    yield "arcee_fusion", {}, [{}]
    for share in (0, -0.5, 1e-9, 0.001, 0.999, 1.5):
        yield "sce", {"select_topk": share}, [{}] * 3


CASES = list(_cases())
