"""The methods that decide by rank, size or agreement, as they are defined: whole tensors, float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from reference import consensus, mask, plain_sum, stream_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

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


def chances(delta: Array, density: float, epsilon: float) -> Array:
    """Keep-probability of each element: by rank of |Δ| in its row, ascending, the lower column first of equals."""
    columns = delta.shape[-1] if delta.shape else 1
    rows = np.abs(delta).reshape(-1, columns) if delta.size else np.zeros((0, 1))
    ranks = np.empty(rows.shape)
    for row, sizes in enumerate(rows):
        ranks[row, np.lexsort((np.arange(columns), sizes))] = np.arange(1, columns + 1)
    share = (ranks - 1) / (columns - 1) if columns > 1 else np.full(ranks.shape, 0.5)
    found: Array = density - epsilon + 2 * epsilon * share
    return found.reshape(delta.shape)


def della(q: Question, delta: Array, ordinal: int) -> Array:
    """Each element at random by its rank in the row."""
    of = q.of_models[ordinal]
    density: float = of.get("density", 1.0)
    if density >= 1 or density <= 0:
        return delta if density >= 1 else np.zeros_like(delta)
    each = chances(delta, density, of.get("epsilon", 0.15))
    key = stream_key(q.seed, q.tensor_name, ordinal)
    kept = np.where(mask(delta.size, each.reshape(-1), key).reshape(delta.shape), delta, 0.0)
    if str(q.settings.get("rescale", "true")) == "density":
        return kept / each
    return matched_l1(q, delta, kept, default="true")


def _della_cases() -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Settings of the merge, and of each model: weight, density and epsilon."""
    triples = ((0.5, 0.53, 0.2), (0.3, 0.8, 0.1), (-0.45, 0.3, 0.29), (1.25, 0.07, 0.05), (0.4, 0.5, 0.499))
    edges = ((0.6, 0.0, 0.5), (0.4, 1.0, 0.5), (0.5, 1.5, 0.7), (0.0, 0.5, 0.1), (0.3, 0.5, 0.0), (0.2, -0.1, 0.2))
    for name in ("della", "della_linear"):
        for count in range(1, 6):
            yield name, {}, [{"weight": w, "density": d, "epsilon": e} for w, d, e in triples[:count]]
        for rescale in (True, False, "l1", "density"):
            for normalize in (True, False):
                settings = {"rescale": rescale, "normalize": normalize, "lambda": 1.3}
                yield name, settings, [{"weight": w, "density": d, "epsilon": e} for w, d, e in triples[1:4]]
            yield name, {"rescale": rescale}, [{"weight": w, "density": d, "epsilon": e} for w, d, e in edges]
        yield name, {"density": 0.4, "epsilon": 0.3, "weight": 0.9}, [{}, {}]
        yield name, {}, [{"weight": 0.5, "density": 0.6}, {"weight": 0.8}, {"weight": 0.7, "density": 0.3}]


CASES = list(_della_cases())

METHODS: Mapping[str, Callable[[Question], Answer]] = {
    "breadcrumbs": plain_sum(sparse(_outliers)),
    "breadcrumbs_ties": consensus(sparse(_outliers), normalize=False),
    "della": consensus(della, normalize=True),
    "della_linear": plain_sum(della),
    "ties": consensus(sparse(_magnitude), normalize=True),
}

ON_TASK_VECTORS = frozenset(METHODS)
