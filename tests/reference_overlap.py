"""The methods that look at all task vectors of an element together, as they are defined: whole tensors, float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from reference import CANCELS, Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from reference import Array, Mask, Question

    Case = tuple[str, dict[str, Any], list[dict[str, Any]]]


def _stacked(q: Question, default: float | None = None) -> tuple[Array, Array]:
    """The base, and the task vectors, times their weights where the method has some, along a first axis."""
    assert q.base is not None
    weights = [1.0 if default is None else of.get("weight", default) for of in q.of_models]
    return q.base, np.stack([w * (x - q.base) for w, x in zip(weights, q.models, strict=True)])


def _answer(base: Array, change: Array, magnitude: Array, undecided: Mask | None = None) -> Answer:
    nothing = np.zeros(base.shape, dtype=np.bool_)
    return Answer(base + change, base, np.abs(base) + magnitude, nothing if undecided is None else undecided)


def nearswap(q: Question) -> Answer:
    base, (delta,) = _stacked(q)
    weight = np.clip(q.settings["t"] / np.maximum(np.abs(delta), 1e-6), 0, 1)
    return _answer(base, weight * delta, np.abs(delta))


def magmax(q: Question) -> Answer:
    base, parts = _stacked(q, 1.0)
    sizes = np.abs(parts)
    largest = sizes.max(axis=0)
    positive = ((parts == largest) & (sizes == largest)).any(axis=0)
    change = q.settings.get("lambda", 1.0) * np.where(positive, largest, -largest)
    # +v and -v of different products may be equal but for rounding, or by it. They are equal anywhere if both products
    # are exact, or of one weight.
    second = np.where(positive, -parts, parts).max(axis=0)
    single = np.float32 if q.compute == torch.float32 else np.float64
    weights = np.array([of.get("weight", 1.0) for of in q.of_models]).reshape(-1, *[1] * base.ndim)
    exact = (parts.astype(single) == parts) & (weights.astype(single) == weights)
    above, below = parts == largest, parts == -largest
    alike = [exact, *(np.abs(weights) == weight for weight in np.unique(np.abs(weights)))]
    tied = np.any([(above & each).any(axis=0) & (below & each).any(axis=0) for each in alike], axis=0)
    return _answer(base, change, np.abs(change), (second >= largest * (1 - 2.0**-22)) & ~tied & (largest > 0))


def ram(q: Question, boosts: Array | None = None) -> Answer:
    base, deltas = _stacked(q)
    moved = np.abs(deltas) > q.settings.get("epsilon", 1e-5)
    count = moved.sum(axis=0)
    parts = np.where(moved, deltas, 0.0)
    if boosts is not None:
        parts = np.where(count == 1, parts * boosts.reshape(-1, *[1] * base.ndim), parts)
    divisor = np.maximum(count, 1)
    return _answer(base, parts.sum(axis=0) / divisor, np.abs(parts).sum(axis=0) / divisor)


def ramplus_tl(q: Question) -> Answer:
    base, deltas = _stacked(q)
    epsilon = q.settings.get("epsilon", 1e-5)
    moved = np.abs(deltas) > epsilon
    alone = moved & (moved.sum(axis=0) == 1)
    axes = tuple(range(1, base.ndim + 1))
    unique, shared = alone.sum(axis=axes), (moved & ~alone).sum(axis=axes)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(shared == 0, 0.0, shared / np.maximum(unique, epsilon))
    return ram(q, 1 + q.settings.get("r", 0.1) * np.clip(ratio, 0, q.settings.get("alpha", 0.2)))


def consensus(q: Question) -> Answer:
    base, taus = _stacked(q, 1.0)
    total, sizes = taus.sum(axis=0), np.abs(taus).sum(axis=0)
    limit = CANCELS[q.compute] * sizes
    thresholds = np.array([of.get("tall_lambda", 0.4) for of in q.of_models])
    over = np.abs(taus) - thresholds.reshape(-1, *[1] * base.ndim) * np.abs(total - taus)
    needed = q.settings.get("needed", 2)
    # Equal but for rounding is equal, and enough.
    kept = (over >= -limit).sum(axis=0) >= needed
    factor = q.settings.get("lambda", 1.0)
    close = (np.abs(over + limit) <= 0.75 * limit).any(axis=0) & (sizes > 0)
    return _answer(base, factor * np.where(kept, total, 0.0), abs(factor) * sizes, close)


def lines(q: Question) -> Answer:
    """Outside the layers, where the tensors of these tests are."""
    base, parts = _stacked(q, 1.0)
    factor = q.settings["alpha"]
    return _answer(base, factor * parts.sum(axis=0), abs(factor) * np.abs(parts).sum(axis=0))


METHODS: Mapping[str, Callable[[Question], Answer]] = {
    "consensus": consensus,
    "lines": lines,
    "magmax": magmax,
    "nearswap": nearswap,
    "ram": ram,
    "ramplus_tl": ramplus_tl,
}

ON_TASK_VECTORS = frozenset(METHODS) - {"nearswap"}


def _cases() -> Iterator[Case]:
    for t in (0, 1e-8, 5e-7, 1e-6, 1e-3, 0.3, 1, -1):
        yield "nearswap", {"t": t}, [{}]
    for count in range(1, 9):
        for name in ("magmax", "ram", "ramplus_tl", "consensus"):
            yield name, {}, [{}] * count
    for name in ("ram", "ramplus_tl"):
        yield name, {"epsilon": 2e-3}, [{}] * 3
        yield name, {"epsilon": 0}, [{}] * 2
    yield "ramplus_tl", {"epsilon": 4e-3, "r": -1.5, "alpha": 0.9}, [{}] * 4
    weights = [{"weight": weight} for weight in (0.6, -0.35, 0.0, 0.8)]
    # Weights in no simple ratio: on the grid of bfloat16 the others give many magnitudes that are nearly equal.
    yield "magmax", {"lambda": 0.7}, [{"weight": weight} for weight in (0.6180339, -0.3546, 0.0, 0.8123)]
    yield "lines", {"alpha": 0.3, "beta": 0.9}, weights
    yield "consensus", {"lambda": 1.3, "needed": 1}, [{**own, "tall_lambda": 0.2 * i} for i, own in enumerate(weights)]
    yield "consensus", {"needed": 0}, weights
    yield "consensus", {"needed": 4}, [{"tall_lambda": 0.6}] * 3


CASES = list(_cases())
