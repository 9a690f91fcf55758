"""Means whose weights follow from distances and angles between the models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...engine.errors import InputError
from ...engine.methoddef import MergeInputs, Param, method
from ..elementwise import add, cast, sub
from ..gram import combine, gram
from ..rows import row_stock
from ..spans import geometric_median_coefficients, shares
from ..stock import stock_coefficients
from .inputs import task_vectors

if TYPE_CHECKING:
    from ...engine.graph import Node


@method(
    "model_stock",
    params=(Param("filter_wise", "bool", "tensor", "a ratio for each row, not one for the tensor", default=False),),
    base="required",
    excludes_base=True,
    min_inputs=2,
    paper="Jang et al. 2024, Model Stock, arXiv:2403.19522",
    formula="t·mean(xᵢ) + (1−t)·b, t = K·c/(1 + (K−1)·c), c the mean cosine of two task vectors",
)
def model_stock(inputs: MergeInputs) -> Node:
    """Go from the base to the mean of the models as far as the task vectors agree."""
    base, deltas = task_vectors(inputs)
    shape = base.spec.shape
    if inputs.flag("filter_wise") and len(shape) > 1:
        return add(base, row_stock(*deltas, row_elements=shape[-1]))
    return add(base, combine(stock_coefficients(gram(*deltas)), *deltas))


@method(
    "geometric_median",
    params=(
        Param("weight", "float", "model", "how much the distance to this model counts", default=1.0, low=0.0),
        Param("max_iter", "int", "tensor", "most steps of the iteration", default=100, low=0),
        Param(
            "tol",
            "float",
            "tensor",
            "shorter steps end it, as a share of the largest distance to the first model",
            default=1e-6,
            low=0.0,
        ),
    ),
    base="unused",
    paper="Weiszfeld 1937; Pillutla et al. 2019, Robust aggregation for federated learning, arXiv:1912.13445",
    formula="argmin over m of Σ wᵢ·‖xᵢ − m‖",
)
def geometric_median(inputs: MergeInputs) -> Node:
    """The point of least total distance to the models: an average that outliers cannot pull away."""
    if len(inputs.models) == 1:
        return inputs.models[0].node
    weights = tuple(model.number("weight") for model in inputs.models)
    if not any(weights):
        raise InputError("geometric_median: all weights are 0")
    # Distances stay the same when everything is moved, and are small beside the models themselves.
    first, *others = (cast(model.node, dtype=inputs.compute) for model in inputs.models)
    steps = [sub(other, first) for other in others]
    max_iter = int(inputs.number("max_iter"))
    coefficients = geometric_median_coefficients(
        gram(*steps), weights=weights, max_iter=max_iter, tol=inputs.number("tol")
    )
    return add(first, combine(coefficients, *steps))


@method(
    "metagpt",
    base="required",
    excludes_base=True,
    paper="Zhou et al. 2024, MetaGPT, arXiv:2406.11385",
    formula="b + Σ λᵢ·Δᵢ, λᵢ = ‖Δᵢ‖²/Σ‖Δ‖², tensor by tensor",
)
def metagpt(inputs: MergeInputs) -> Node:
    """Task arithmetic with weights in proportion to the squared norms of the task vectors."""
    base, deltas = task_vectors(inputs)
    return add(base, combine(shares(*(gram(delta) for delta in deltas)), *deltas))
