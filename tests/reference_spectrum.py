"""The methods on singular values as they are defined: whole matrices, decomposed in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from reference import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from reference import Array, Question

    Case = tuple[str, dict[str, Any], list[dict[str, Any]]]


def _parts(q: Question) -> tuple[Array, list[Array]]:
    assert q.base is not None
    return q.base, [of.get("weight", 1.0) * (x - q.base) for of, x in zip(q.of_models, q.models, strict=True)]


def _answer(q: Question, base: Array, change: Array) -> Answer:
    scaled = q.settings.get("lambda", 1.0) * change
    # A product of matrices has errors of the size of its usual elements, also where they cancel.
    usual = np.abs(scaled).max() if scaled.size else 0.0
    return Answer(base + scaled, base, np.abs(base) + usual, np.zeros(base.shape, dtype=np.bool_))


def _noise(shape: tuple[int, ...]) -> float:
    """Singular values below this share of the largest count as zero, and their directions as absent."""
    return float(np.sqrt(max(min(shape), 64) * 2.0**-52))


def iso_c(q: Question) -> Answer:
    base, parts = _parts(q)
    total = np.sum(parts, axis=0)
    if base.ndim != 2 or not base.size:
        return _answer(q, base, total / len(parts))
    u, sigma, v = np.linalg.svd(total, full_matrices=False)
    kept = sigma > sigma[0] * _noise(total.shape)
    return _answer(q, base, (u * kept) @ v * (sigma * kept).mean())


def _nearest_orthogonal(vectors: Array) -> Array:
    """P·Qᵀ of P·D·Qᵀ: the solution of the Procrustes problem; columns that others are made of add nothing."""
    p, d, q = np.linalg.svd(vectors, full_matrices=False)
    return (p * (d > d[0] * float(np.sqrt(max(vectors.shape[1], 64) * 2.0**-52)))) @ q


def tsv(q: Question) -> Answer:
    base, parts = _parts(q)
    if base.ndim != 2 or not base.size:
        return _answer(q, base, np.mean(parts, axis=0))
    share = max(min(base.shape) // len(parts), 1)
    left, sigmas, right = [], [], []
    for part in parts:
        u, sigma, v = np.linalg.svd(part, full_matrices=False)
        # What is absent has no direction.
        kept = (sigma > sigma[0] * _noise(part.shape))[:share]
        left.append(u[:, :share] * kept)
        sigmas.append(sigma[:share] * kept)
        right.append(v[:share].T * kept)
    u, v = (_nearest_orthogonal(np.concatenate(each, axis=1)) for each in (left, right))
    return _answer(q, base, (u * np.concatenate(sigmas)) @ v.T)


METHODS: Mapping[str, Callable[[Question], Answer]] = {"iso_c": iso_c, "tsv": tsv}

ON_TASK_VECTORS = frozenset(METHODS)


def _cases() -> Iterator[Case]:
    for name in METHODS:
        for count in range(1, 9):
            yield name, {}, [{}] * count
        yield name, {"lambda": 1.5}, [{"weight": weight} for weight in (0.6, -0.35, 0.0, 0.8)]
        yield name, {"lambda": 0}, [{}] * 2
        yield name, {}, [{"weight": 0.0}] * 2
        yield name, {}, [{"weight": 0.7}] * 3


CASES = list(_cases())
