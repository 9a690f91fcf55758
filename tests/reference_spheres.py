"""Means on the sphere and means by distance: whole tensors, float64, straight from the formulas.

Dot products are added up in more than float64, so that parallel vectors are parallel here as well.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from reference import Answer, Array, Question

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


def dot(a: Array, b: Array) -> float:
    return float(np.sum(a.astype(np.longdouble) * b))


def norm(a: Array) -> float:
    return math.sqrt(dot(a, a))


def answer(terms: Sequence[Array], origin: Array, base: Array | None = None, within: Sequence[Array] = ()) -> Answer:
    """The sum of the terms, and of the base; ``within`` are larger parts that cancel inside a term."""
    parts = [*terms] if base is None else [base, *terms]
    magnitude = sum((np.abs(part) for part in (*parts, *within)), np.zeros_like(parts[0]))
    return Answer(sum(parts, np.zeros_like(parts[0])), origin, magnitude, np.zeros(parts[0].shape, dtype=np.bool_))


def vectors(q: Question) -> tuple[Array, list[Array]]:
    """Where the vectors start, and the vectors: task vectors where there is a base."""
    origin = sum(q.models, np.zeros_like(q.models[0])) / len(q.models) if q.base is None else q.base
    return origin, [x if q.base is None else x - q.base for x in q.models]


# ------------------------------------------------------------------------------------------------ arcs


def arc(cosine: float, t: float, *, straight: bool) -> tuple[float, float]:
    if straight:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def slerp(q: Question) -> Answer:
    assert q.base is not None
    (x,) = q.models
    lengths = [length if length > 1e-8 else 1.0 for length in (norm(q.base), norm(x))]
    cosine = min(max(dot(q.base / lengths[0], x / lengths[1]), -1.0), 1.0)
    a, b = arc(cosine, q.settings["t"], straight=abs(cosine) > 0.9995)
    return answer([a * q.base, b * x], q.base)


def nuslerp_of(a: Array, b: Array, t: float) -> tuple[Array, Array]:
    cosine = dot(a, b) / (max(norm(a), 1e-7) * max(norm(b), 1e-7))
    cosine = min(max(cosine, -1.0), 1.0)
    # float64 cannot tell angles under 1e-7 from none.
    left, right = arc(cosine, t, straight=1 - cosine**2 <= 1e-14)
    return left * a, right * b


def nuslerp(q: Question) -> Answer:
    w0, w1 = (of["weight"] for of in q.of_models)
    t = 0.5 if abs(w0 + w1) < 1e-6 else w1 / (w0 + w1)
    origin, (a, b) = vectors(q)
    if q.settings.get("nuslerp_flatten", True) or a.ndim == 0:
        return answer(nuslerp_of(a, b, t), origin, q.base)
    axis = 0 if q.settings.get("nuslerp_row_wise", False) else -1
    terms = np.zeros_like(a), np.zeros_like(b)
    rows, others = np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1)
    for index in np.ndindex(rows.shape[:-1]):
        for term, value in zip(terms, nuslerp_of(rows[index], others[index], t), strict=True):
            np.moveaxis(term, axis, -1)[index] = value
    return answer(terms, origin, q.base)


# ------------------------------------------------------------------------------------------------ means of directions


def multislerp(q: Question) -> Answer:
    if len(q.models) == 1:
        return answer(q.models, q.models[0] if q.base is None else q.base)
    weights = [of["weight"] for of in q.of_models]
    if q.settings.get("normalize_weights", True):
        weights = [w / sum(weights) for w in weights]
    eps = q.settings.get("eps", 1e-8)
    origin, parts = vectors(q)
    lengths = [norm(v) for v in parts]
    if not any(lengths):
        return answer([np.zeros_like(origin)], origin, q.base)
    units = [v / (length + eps) if length else v for v, length in zip(parts, lengths, strict=True)]
    mean = total(w * u for w, u in zip(weights, units, strict=True))
    if norm(mean) < max(eps, 1e-8):
        assert len(parts) == 2
        return answer([w * v for w, v in zip(weights, parts, strict=True)], origin, q.base)
    shrinking = norm(mean)
    mean = mean / shrinking
    tangent = total(w * (u - dot(u, mean) * mean) for w, u in zip(weights, units, strict=True))
    r = norm(tangent) + eps
    scale = sum(w * length for w, length in zip(weights, lengths, strict=True))
    swing = math.sin(r) / r if r else 1.0
    # Weights of both signs: the mean is far smaller than what it is the sum of.
    within = [scale * w / shrinking * u for w, u in zip(weights, units, strict=True)]
    return answer([scale * math.cos(r) * mean, scale * swing * tangent], origin, q.base, within)


def karcher(q: Question) -> Answer:
    origin, parts = vectors(Question(q.tensor_name, None, q.models, q.settings, q.of_models, q.seed, q.compute))
    if len(parts) == 1:
        return answer(parts, parts[0])
    tol = q.settings.get("tol", 1e-5)
    units = [v / norm(v) for v in parts if norm(v) > tol]
    if not units:
        return answer([np.zeros_like(origin)], origin)
    start = total(units) / len(units)
    mean = units[0] if norm(start) < max(tol, 1e-7) else start / norm(start)
    for _ in range(q.settings.get("max_iter", 10)):
        tangent = np.zeros_like(mean)
        for unit in units:
            angle = math.acos(min(max(dot(mean, unit), -1.0), 1.0))
            if angle >= tol and math.sin(angle) >= 1e-6:
                tangent += angle / math.sin(angle) * (unit - math.cos(angle) * mean) / len(units)
        length = norm(tangent)
        if length < tol or length == 0:
            break
        mean = math.cos(length) * mean + math.sin(length) * tangent / length
        mean = mean / norm(mean)
    return answer([sum(map(norm, parts)) / len(parts) * mean], origin)


# ------------------------------------------------------------------------------------------------ means by distance


def stock_ratio(deltas: Sequence[Array]) -> float:
    cosines = []
    for i, a in enumerate(deltas):
        for b in deltas[i + 1 :]:
            size = norm(a) * norm(b)
            cosines.append(min(max(dot(a, b) / size, -1.0), 1.0) if size else 0.0)
    count, cosine = len(deltas), sum(cosines) / len(cosines)
    divisor = 1 + (count - 1) * cosine
    return 0.0 if abs(divisor) < 1e-6 else count * cosine / divisor


def model_stock(q: Question) -> Answer:
    origin, deltas = vectors(q)
    if not q.settings.get("filter_wise", False) or origin.ndim < 2:
        ratio = np.float64(stock_ratio(deltas))
    else:
        ratio = np.zeros((*origin.shape[:-1], 1))
        for index in np.ndindex(origin.shape[:-1]):
            ratio[(*index, 0)] = stock_ratio([delta[index] for delta in deltas])
    return answer([ratio * delta / len(deltas) for delta in deltas], origin, q.base)


def geometric_median(q: Question) -> Answer:
    if len(q.models) == 1:
        return answer(q.models, q.models[0])
    weights = [of.get("weight", 1.0) for of in q.of_models]
    first, *_ = q.models
    steps = [x - first for x in q.models]
    least = q.settings.get("tol", 1e-6) * max(map(norm, steps))
    median = total(w * x for w, x in zip(weights, steps, strict=True)) / sum(weights)
    for _ in range(q.settings.get("max_iter", 100)):
        distances = [max(norm(x - median), least) for x in steps]
        if not all(distances):
            break
        pulls = [w / distance for w, distance in zip(weights, distances, strict=True)]
        last, median = median, total(pull * x for pull, x in zip(pulls, steps, strict=True)) / sum(pulls)
        if norm(median - last) <= least:
            break
    return answer([median], total(q.models) / len(q.models), first)


def metagpt(q: Question) -> Answer:
    origin, deltas = vectors(q)
    squares = [dot(delta, delta) for delta in deltas]
    whole = sum(squares) or 1.0
    return answer([square / whole * delta for square, delta in zip(squares, deltas, strict=True)], origin, q.base)


def total(arrays: object) -> Array:
    first, *others = arrays  # type: ignore[misc]
    return sum(others, first)


METHODS: Mapping[str, Callable[[Question], Answer]] = {
    "geometric_median": geometric_median,
    "karcher": karcher,
    "metagpt": metagpt,
    "model_stock": model_stock,
    "multislerp": multislerp,
    "nuslerp": nuslerp,
    "slerp": slerp,
}

ON_TASK_VECTORS = frozenset({"metagpt", "model_stock", "multislerp", "nuslerp"})


# ------------------------------------------------------------------------------------------------ cases


def _cases() -> Iterator[tuple[str, Mapping[str, Any], list[dict[str, Any]]]]:
    """Method, settings of the merge, settings of each model."""
    weights = [{"weight": w} for w in (0.5, 0.3, 0.7, -0.4, 1.25, 0.1, 0.9, 0.6)]
    for count in range(1, 9):
        yield "multislerp", {}, weights[:count]
        yield "metagpt", {}, [{}] * count
        yield "karcher", {}, [{}] * count
        yield "geometric_median", {}, [{}] * count
        for filter_wise in (False, True) if count > 1 else ():
            yield "model_stock", {"filter_wise": filter_wise}, [{}] * count
    for t in (0.0, 0.25, 0.5, 1.0, 1.5, -0.5):
        yield "slerp", {"t": t}, [{}]
    for flatten, row_wise in ((True, False), (False, False), (False, True)):
        settings = {"nuslerp_flatten": flatten, "nuslerp_row_wise": row_wise}
        for pair in ((0.3, 0.6), (1.0, 0.0), (0.5, -0.5), (0.7, -0.2)):
            yield "nuslerp", settings, [{"weight": w} for w in pair]
    yield "multislerp", {"normalize_weights": False, "eps": 1e-3}, weights[:3]
    yield "karcher", {"max_iter": 0}, [{}] * 3
    yield "karcher", {"max_iter": 3, "tol": 0.1}, [{}] * 3
    yield "geometric_median", {"max_iter": 4, "tol": 0.01}, weights[:3]


CASES = list(_cases())
