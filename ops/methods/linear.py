"""Weighted averages, and passing one model through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...engine.errors import InputError
from ...engine.methoddef import MergeInputs, Param, method
from ..elementwise import add, cast, scale

if TYPE_CHECKING:
    from ...engine.graph import Node


@method(
    "linear",
    params=(
        Param("weight", "float", "model", "share of this model", required=True),
        Param("normalize", "bool", "tensor", "divide by the sum of the weights", default=True),
    ),
    base="unused",
    paper="Wortsman et al. 2022, Model soups, arXiv:2203.05482",
    formula="Σ wᵢ·xᵢ, divided by Σ wᵢ where normalize",
)
def linear(inputs: MergeInputs) -> Node:
    """Weighted average of the models."""
    weights = [model.number("weight") for model in inputs.models]
    divisor = sum(weights) if inputs.flag("normalize") else 1.0
    if divisor == 0:
        raise InputError("linear: the weights add up to 0, so they cannot be normalized; set normalize: false")
    parts = [
        scale(cast(model.node, dtype=inputs.compute), factor=weight / divisor)
        for model, weight in zip(inputs.models, weights, strict=True)
    ]
    return add(*parts)


@method(
    "passthrough",
    params=(Param("scale", "float", "model", "factor; 0 writes zeros and reads nothing"),),
    base="unused",
    max_inputs=1,
    formula="x·scale",
)
def passthrough(inputs: MergeInputs) -> Node:
    """One model's tensors as they are, perhaps scaled: for stacking layers."""
    (model,) = inputs.models
    if model.params["scale"] is None:
        return model.node
    return scale(cast(model.node, dtype=inputs.compute), factor=model.number("scale"))
