"""Means on the sphere: directions are averaged apart from lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...engine.errors import InputError
from ...engine.methoddef import MergeInputs, Param, method
from ..arcs import nuslerp_coefficients, slerp_coefficients
from ..columns import column_arcs, column_dots, column_sizes, combine_columns
from ..elementwise import add, cast
from ..gram import combine, gram
from ..rows import row_slerp
from ..spans import karcher_coefficients, multislerp_coefficients
from .inputs import base_and_other, task_vectors

if TYPE_CHECKING:
    from ...engine.graph import Node


def _vectors(inputs: MergeInputs) -> list[Node]:
    """The models as vectors: task vectors where there is a base."""
    if inputs.base is None:
        return [cast(model.node, dtype=inputs.compute) for model in inputs.models]
    return task_vectors(inputs)[1]


def _with_base(inputs: MergeInputs, merged: Node) -> Node:
    return merged if inputs.base is None else add(cast(inputs.base, dtype=inputs.compute), merged)


@method(
    "slerp",
    params=(Param("t", "float", "tensor", "where between the base (0) and the other model (1)", required=True),),
    base="required",
    min_inputs=2,
    max_inputs=2,
    paper="Shoemake 1985, Animating rotation with quaternion curves",
    formula="[sin((1−t)θ)·b + sin(tθ)·x] / sin θ, θ the angle between b and x",
)
def slerp(inputs: MergeInputs) -> Node:
    """Spherical interpolation between the base and another model."""
    pair = base_and_other(inputs)
    return combine(slerp_coefficients(gram(*pair), t=inputs.number("t")), *pair)


_NEGLIGIBLE_WEIGHT = 1e-6


@method(
    "nuslerp",
    params=(
        Param("weight", "float", "model", "share of this model", required=True),
        Param("nuslerp_flatten", "bool", "tensor", "the whole tensor is one vector", default=True),
        Param(
            "nuslerp_row_wise",
            "bool",
            "tensor",
            "without nuslerp_flatten: vectors along the first dimension, not along the last",
            default=False,
        ),
    ),
    excludes_base=True,
    min_inputs=2,
    max_inputs=2,
    paper="Shoemake 1985, Animating rotation with quaternion curves",
    formula="[sin((1−t)θ)·v₀ + sin(tθ)·v₁] / sin θ, t = w₁/(w₀+w₁), v the models, or task vectors where a base is",
)
def nuslerp(inputs: MergeInputs) -> Node:
    """Spherical interpolation of two models or task vectors, by tensor, row or column."""
    first, second = (model.number("weight") for model in inputs.models)
    t = 0.5 if abs(first + second) < _NEGLIGIBLE_WEIGHT else second / (first + second)
    pair = _vectors(inputs)
    shape = pair[0].spec.shape
    if inputs.flag("nuslerp_flatten") or len(shape) < 2:
        merged = combine(nuslerp_coefficients(gram(*pair), t=t), *pair)
    elif not inputs.flag("nuslerp_row_wise"):
        merged = row_slerp(*pair, t=t, row_elements=shape[-1])
    else:
        rows = shape[0]
        columns = pair[0].spec.elements // rows if rows else 0
        sizes = column_sizes(*pair, columns=columns)
        dots = column_dots(*pair, sizes, columns=columns, rows=rows)
        merged = combine_columns(column_arcs(dots, sizes, t=t, rows=rows), *pair)
    return _with_base(inputs, merged)


@method(
    "multislerp",
    params=(
        Param("weight", "float", "model", "share of this model", required=True),
        Param("normalize_weights", "bool", "tensor", "divide the weights by their sum", default=True),
        Param("eps", "float", "tensor", "added to norms; a shorter mean direction is none", default=1e-8, low=0.0),
    ),
    excludes_base=True,
    paper="Goddard 2024, Multi-SLERP, goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    formula="(m̂·cos‖T‖ + T·sin‖T‖/‖T‖)·Σ wᵢ‖vᵢ‖, m = Σ wᵢuᵢ, T = Σ wᵢ(uᵢ − ⟨uᵢ,m̂⟩m̂), uᵢ = vᵢ/‖vᵢ‖",
)
def multislerp(inputs: MergeInputs) -> Node:
    """Barycentric interpolation on the sphere, of models or task vectors."""
    if len(inputs.models) == 1:
        return inputs.models[0].node
    weights = [model.number("weight") for model in inputs.models]
    divisor = sum(weights) if inputs.flag("normalize_weights") else 1.0
    if divisor == 0:
        raise InputError(
            "multislerp: the weights add up to 0, so they cannot be normalized; set normalize_weights: false"
        )
    vectors = _vectors(inputs)
    shares = tuple(weight / divisor for weight in weights)
    coefficients = multislerp_coefficients(gram(*vectors), weights=shares, eps=inputs.number("eps"))
    return _with_base(inputs, combine(coefficients, *vectors))


@method(
    "karcher",
    params=(
        Param("max_iter", "int", "tensor", "most steps of the iteration", default=10, low=0),
        Param(
            "tol", "float", "tensor", "shorter steps end it; shorter tensors have no direction", default=1e-5, low=0.0
        ),
    ),
    base="unused",
    paper="Karcher 1977, Riemannian center of mass and mollifier smoothing",
    formula="mean(‖xᵢ‖)·u, u the point of the sphere with Σ log_u(xᵢ/‖xᵢ‖) = 0",
)
def karcher(inputs: MergeInputs) -> Node:
    """Karcher mean: the point of the sphere nearest to all directions, as long as the models on average."""
    if len(inputs.models) == 1:
        return inputs.models[0].node
    vectors = [cast(model.node, dtype=inputs.compute) for model in inputs.models]
    max_iter = int(inputs.number("max_iter"))
    return combine(karcher_coefficients(gram(*vectors), max_iter=max_iter, tol=inputs.number("tol")), *vectors)
