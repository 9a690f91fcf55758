"""Means that lie in the span of their inputs: from dot products to coefficients, on a few float64 numbers.

A vector of the span is its coefficients, and a dot product of two is a sum over the Gram matrix, exactly added up.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import torch

from ..engine.errors import InputError
from ..engine.graph import Attr, TensorSpec
from ..engine.opdef import GraphError, Tile, op, require_space
from .gram import input_count, pairs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Vector: TypeAlias = "list[float]"

_NOISE = 2.0**-48
"""A square below this share of what its terms could add up to is the rounding of the dot products."""


class Span:
    """The span of K vectors of which only the dot products are known.

    NaN or infinity in a vector shows in them, and then no mean is known: its coefficients are NaN.
    """

    def __init__(self, dots: Sequence[float]) -> None:
        self.count = input_count(len(dots))
        self._dots = {pair: value for pair, value in zip(pairs_of(self.count), dots, strict=True) if value}
        self.finite = all(math.isfinite(value) for value in dots)
        self.norms = [math.sqrt(self._dots.get((i, i), 0.0)) for i in range(self.count)]

    def unit(self, index: int, length: float) -> Vector:
        """Input ``index`` divided by ``length``; zero where that is 0."""
        return [1.0 / length if i == index and length else 0.0 for i in range(self.count)]

    def dot(self, a: Vector, b: Vector) -> float:
        """⟨a, b⟩."""
        return math.fsum(
            (a[i] * b[j] + a[j] * b[i] if i != j else a[i] * b[i]) * value for (i, j), value in self._dots.items()
        )

    def norm(self, a: Vector) -> float:
        """‖a‖; 0 where the terms cancel as far as their rounding lets one see."""
        square = self.dot(a, a)
        size = math.fsum(abs(x) * norm for x, norm in zip(a, self.norms, strict=True))
        return math.sqrt(square) if square > _NOISE * size * size else 0.0


def _sum(factors: Iterable[float], vectors: Sequence[Vector]) -> Vector:
    """Σ f_i·v_i."""
    scaled = [[factor * x for x in vector] for factor, vector in zip(factors, vectors, strict=True)]
    return [math.fsum(column) for column in zip(*scaled, strict=True)]


def infer_mean(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    """A coefficient for each of the inputs whose dot products are given."""
    require_space(specs, "state", "a mean's dot products")
    count = input_count(specs[0].elements)
    weights = attrs.get("weights")
    if weights is not None and (not isinstance(weights, tuple) or len(weights) not in (count, count + 1)):
        raise GraphError("a mean takes a weight for each of its inputs")
    return TensorSpec((count,), torch.float64, "state")


# ------------------------------------------------------------------------------------------------ multislerp


@op("multislerp_coefficients", locality="state", infer=infer_mean)
def multislerp_coefficients(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    _scratch: torch.Tensor,
    _tile: Tile,
    *,
    weights: tuple[float, ...],
    eps: float,
) -> None:
    """Barycentric interpolation on the sphere, in the plane that touches it at the weighted mean of directions.

    m = Σ wᵢuᵢ, T = Σ wᵢ(uᵢ − ⟨uᵢ,m̂⟩m̂); the result is (m̂·cos‖T‖ + T·sin‖T‖/‖T‖)·Σ wᵢ‖xᵢ‖. Raises InputError
    where more than two directions cancel; two are interpolated linearly. Zeros alone give zero.
    """
    span = Span(ins[0].tolist())
    if not span.finite:
        out.fill_(math.nan)
        return
    units = [span.unit(i, norm + eps) for i, norm in enumerate(span.norms)]
    if not any(span.norms):
        out.zero_()
        return
    mean = _sum(weights, units)
    length = span.norm(mean)
    if length < eps or length == 0:
        if span.count == 2:
            out.copy_(torch.tensor(weights, dtype=torch.float64))
            return
        raise InputError(
            "multislerp: the weighted directions cancel each other, so there is no mean direction; use other weights"
        )
    mean = [x / length for x in mean]
    inner = [span.dot(unit, mean) for unit in units]
    tangent = _sum([*weights, -math.fsum(w * d for w, d in zip(weights, inner, strict=True))], [*units, mean])
    angle = span.norm(tangent) + eps
    scale = math.fsum(w * norm for w, norm in zip(weights, span.norms, strict=True))
    swing = math.sin(angle) / angle if angle else 1.0
    out.copy_(torch.tensor(_sum([scale * math.cos(angle), scale * swing], [mean, tangent]), dtype=torch.float64))


# ------------------------------------------------------------------------------------------------ karcher

_LEAST_SINE = 1e-6


@op("karcher_coefficients", locality="state", infer=infer_mean)
def karcher_coefficients(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    _scratch: torch.Tensor,
    _tile: Tile,
    *,
    max_iter: int,
    tol: float,
) -> None:
    """Karcher mean of directions, by gradient descent on the sphere, times the mean of the norms.

    Karcher 1977, "Riemannian center of mass and mollifier smoothing".
    """
    span = Span(ins[0].tolist())
    if not span.finite:
        out.fill_(math.nan)
        return
    units = [span.unit(i, norm) for i, norm in enumerate(span.norms) if norm > tol]
    if not units:
        out.zero_()
        return
    share = 1.0 / len(units)
    mean = _sum([share] * len(units), units)
    length = span.norm(mean)
    mean = units[0] if length < tol or length == 0 else [x / length for x in mean]
    for _ in range(max_iter):
        tangent = _karcher_step(span, units, mean, tol)
        length = span.norm(tangent)
        if length < tol or length == 0:
            break
        mean = _sum([math.cos(length), math.sin(length) / length], [mean, tangent])
        length = span.norm(mean)
        mean = [x / length for x in mean]
    scale = math.fsum(span.norms) / span.count
    out.copy_(torch.tensor([scale * x for x in mean], dtype=torch.float64))


def _karcher_step(span: Span, units: Sequence[Vector], mean: Vector, tol: float) -> Vector:
    """The mean of the directions seen from ``mean``, as a tangent: Σ α·(θ/sin θ)(u_i − cos θ·u)."""
    share = 1.0 / len(units)
    factors, along = [], []
    for unit in units:
        cosine = min(max(span.dot(mean, unit), -1.0), 1.0)
        angle = math.acos(cosine)
        skipped = angle < tol or math.sin(angle) < _LEAST_SINE
        factors.append(0.0 if skipped else share * angle / math.sin(angle))
        along.append(factors[-1] * cosine)
    return _sum([*factors, -math.fsum(along)], [*units, mean])


# ------------------------------------------------------------------------------------------------ geometric median


@op("geometric_median_coefficients", locality="state", infer=infer_mean)
def geometric_median_coefficients(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    _scratch: torch.Tensor,
    _tile: Tile,
    *,
    weights: tuple[float, ...],
    max_iter: int,
    tol: float,
) -> None:
    """The point of least weighted distance to 0 and to the inputs, by Weiszfeld's iteration from their mean.

    The first weight is that of 0. A distance counts as ``tol`` of the largest norm at least, which is the smoothing
    of Pillutla et al. 2019, arXiv:1912.13445, and a step shorter than that is the last.
    """
    span = Span(ins[0].tolist())
    if not span.finite:
        out.fill_(math.nan)
        return
    least = tol * max(span.norms)
    points = [span.unit(i, 1.0) for i in range(-1, span.count)]
    total = math.fsum(weights)
    median = _sum([w / total for w in weights], points)
    for _ in range(max_iter):
        distances = [max(span.norm(_sum([1.0, -1.0], [point, median])), least) for point in points]
        if not all(distances):
            break
        pulls = [w / distance for w, distance in zip(weights, distances, strict=True)]
        total = math.fsum(pulls)
        last, median = median, _sum([pull / total for pull in pulls], points)
        if span.norm(_sum([1.0, -1.0], [median, last])) <= least:
            break
    out.copy_(torch.tensor(median, dtype=torch.float64))


# ------------------------------------------------------------------------------------------------ metagpt


def _infer_shares(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "state", "shares")
    return TensorSpec((len(specs),), torch.float64, "state")


@op("shares", locality="state", infer=_infer_shares)
def shares(out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile) -> None:
    """Each of the numbers divided by their sum; zeros where that is 0."""
    values = [float(each[0]) for each in ins]
    total = math.fsum(values)
    out.copy_(torch.tensor([value / total if total else 0.0 for value in values], dtype=torch.float64))
