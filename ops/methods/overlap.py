"""Methods that look at all task vectors of an element together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...engine.methoddef import MergeInputs, Param, method
from ..elementwise import add, scale, sub
from ..overlap import boosted_mean, boosts, clamp, largest, moved_mean, overlap_counts, tall_sum
from .inputs import LAMBDA, base_and_other, task_vectors, weighted_task_vectors

if TYPE_CHECKING:
    from ...engine.graph import Node

_EPSILON = Param("epsilon", "float", "tensor", "what is not above this in size did not move", default=1e-5, low=0.0)
_WEIGHT = Param("weight", "float", "model", "factor of this model's task vector", default=1.0)
_RAM_PAPER = "Reinforced Agent Merging, arXiv:2601.13572"

_NEAR = 1e-6
"""Differences below this count as this large in nearswap."""


@method(
    "nearswap",
    params=(
        Param(
            "t", "float", "tensor", "differences up to this size are taken over in full", required=True, example=1e-4
        ),
    ),
    base="required",
    min_inputs=2,
    max_inputs=2,
    paper="alchemonaut 2024, QuartetAnemoi-70B, huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    formula="w·x + (1 - w)·b, w = clamp(t / max(|x - b|, 1e-6), 0, 1)",
)
def nearswap(inputs: MergeInputs) -> Node:
    """Move the base towards the other model by at most t an element."""
    base, other = base_and_other(inputs)
    t = inputs.number("t")
    if t <= 0:
        return base
    # w·Δ is Δ cut off at ±t; for t below 1e-6 it is the same at 1e-6, scaled down.
    bounded = clamp(sub(other, base), bound=max(t, _NEAR))
    return add(base, scale(bounded, factor=min(t / _NEAR, 1.0)))


@method(
    "magmax",
    params=(_WEIGHT, LAMBDA),
    base="required",
    excludes_base=True,
    paper="Marczak et al. 2024, MagMax, arXiv:2407.06322",
    formula="b + λ·wᵢ·Δᵢ with the i of the largest |wᵢ·Δᵢ|, element by element",
)
def magmax(inputs: MergeInputs) -> Node:
    """Of all task vectors take the value of the largest magnitude, element by element."""
    base, parts = weighted_task_vectors(inputs)
    return add(base, scale(largest(*parts), factor=inputs.number("lambda")))


@method(
    "ram",
    params=(_EPSILON,),
    base="required",
    excludes_base=True,
    paper=_RAM_PAPER,
    formula="b + Σ Δᵢ·[|Δᵢ| > ε] / max(#[|Δᵢ| > ε], 1)",
)
def ram(inputs: MergeInputs) -> Node:
    """Average task vectors over the models that moved an element."""
    base, deltas = task_vectors(inputs)
    return add(base, moved_mean(*deltas, epsilon=inputs.number("epsilon")))


@method(
    "ramplus_tl",
    params=(
        Param("r", "float", "tensor", "how strongly what only one model moved is scaled up", default=0.1),
        Param("alpha", "float", "tensor", "bound of the ratio of shared to unique elements", default=0.2, low=0.0),
        _EPSILON,
    ),
    base="required",
    excludes_base=True,
    paper=_RAM_PAPER,
    formula="ram; Δᵢ where only i moved is scaled by 1 + r·clamp(sharedᵢ / max(uniqueᵢ, ε), 0, α)",
)
def ramplus_tl(inputs: MergeInputs) -> Node:
    """Average as ram does, and scale up what only one model moved, tensor by tensor."""
    base, deltas = task_vectors(inputs)
    epsilon = inputs.number("epsilon")
    counts = overlap_counts(*deltas, epsilon=epsilon)
    factors = boosts(counts, r=inputs.number("r"), alpha=inputs.number("alpha"), epsilon=epsilon)
    return add(base, boosted_mean(factors, *deltas, epsilon=epsilon))


@method(
    "consensus",
    params=(
        _WEIGHT,
        Param("tall_lambda", "float", "model", "how selective this model's mask is", default=0.4, low=0.0),
        Param("needed", "int", "tensor", "how many models must find an element important", default=2, low=0),
        LAMBDA,
    ),
    base="required",
    excludes_base=True,
    paper="Wang et al. 2024, Localizing task information, arXiv:2405.07813, equations 4 and 6",
    formula="b + λ·τ·[#{i: |wᵢΔᵢ| ≥ tall_lambdaᵢ·|τ - wᵢΔᵢ|} ≥ needed], τ = Σ wᵢΔᵢ",
)
def consensus(inputs: MergeInputs) -> Node:
    """Keep of the summed task vectors what matters to several models (TALL masks)."""
    base, parts = weighted_task_vectors(inputs)
    thresholds = tuple(model.number("tall_lambda") for model in inputs.models)
    merged = tall_sum(*parts, thresholds=thresholds, needed=int(inputs.number("needed")))
    return add(base, scale(merged, factor=inputs.number("lambda")))


@method(
    "lines",
    params=(
        Param("weight", "float", "model", "factor of this model's task vector", required=True),
        Param("alpha", "float", "tensor", "factor at the first layer and outside the layers", required=True),
        Param("beta", "float", "tensor", "what the factor grows by up to the last layer", required=True),
    ),
    base="required",
    excludes_base=True,
    paper="Wang et al. 2024, LiNeS, arXiv:2410.17146, equation 3",
    formula="b + (α + β·layer/(L - 1))·Σ wᵢ·Δᵢ",
)
def lines(inputs: MergeInputs) -> Node:
    """Task arithmetic that grows with depth: the first layers stay closer to the base."""
    base, parts = weighted_task_vectors(inputs)
    factor = inputs.number("alpha") + inputs.number("beta") * inputs.t
    return add(base, scale(add(*parts), factor=factor))
