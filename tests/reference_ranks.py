"""The methods that decide by rank, size or agreement, as they are defined: whole tensors, float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from reference import consensus, plain_sum

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from reference import Answer, Array, Mask, Question, Sparsify

# ------------------------------------------------------------------------------------------------ sparsifiers


def first_ranks(sizes: Array, count: int, *, descending: bool) -> Mask:
    """The ``count`` elements that come first by size; of equals the lower flat index is first."""
    keys = -sizes.reshape(-1) if descending else sizes.reshape(-1)
    chosen = np.zeros(sizes.size, dtype=np.bool_)
    chosen[np.argsort(keys, kind="stable")[:count]] = True
    return chosen.reshape(sizes.shape)


def matched_l1(q: Question, delta: Array, kept: Array, default: str = "false") -> Array:
    """The kept part with the L1 norm of the whole, where ``rescale`` asks for that."""
    if str(q.settings.get("rescale", default)).lower() not in ("true", "l1"):
        return kept
    before, after = math.fsum(np.abs(delta).flat), math.fsum(np.abs(kept).flat)
    return kept if before < 1e-7 or after < 1e-7 else kept * (before / after)


def sparse(keep: Callable[[Array, Mapping[str, float]], Mask]) -> Sparsify:
    """A sparsifier from what it keeps between the densities 0 and 1."""

    def sparsify(q: Question, delta: Array, ordinal: int) -> Array:
        density: float = q.of_models[ordinal].get("density", 1.0)
        if density >= 1:
            return delta
        if density <= 0:
            return np.zeros_like(delta)
        return matched_l1(q, delta, np.where(keep(delta, q.of_models[ordinal]), delta, 0.0))

    return sparsify


def _magnitude(delta: Array, of: Mapping[str, float]) -> Mask:
    return first_ranks(np.abs(delta), max(1, int(of["density"] * delta.size)), descending=True)


def _outliers(delta: Array, of: Mapping[str, float]) -> Mask:
    top, target = int(of.get("gamma", 0.01) * delta.size), int(of["density"] * delta.size)
    bottom = max(0, delta.size - target - top)
    upto = first_ranks(np.abs(delta), max(bottom + target, 0), descending=False)
    return upto & ~first_ranks(np.abs(delta), bottom, descending=False)


METHODS: Mapping[str, Callable[[Question], Answer]] = {
    "breadcrumbs": plain_sum(sparse(_outliers)),
    "breadcrumbs_ties": consensus(sparse(_outliers), normalize=False),
    "ties": consensus(sparse(_magnitude), normalize=True),
}

ON_TASK_VECTORS = frozenset(METHODS)
