"""What several methods start from: task vectors, the model beside the base, a factor for what is merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...engine.methoddef import MergeInputs, Param
from ..elementwise import cast, scale, sub

if TYPE_CHECKING:
    from ...engine.graph import Node

LAMBDA = Param("lambda", "float", "tensor", "factor of the merged task vector", default=1.0)


def task_vectors(inputs: MergeInputs) -> tuple[Node, list[Node]]:
    """The base and, for each model, its difference to the base; all in the dtype of the arithmetic."""
    assert inputs.base is not None
    base = cast(inputs.base, dtype=inputs.compute)
    return base, [sub(cast(model.node, dtype=inputs.compute), base) for model in inputs.models]


def weighted_task_vectors(inputs: MergeInputs) -> tuple[Node, list[Node]]:
    """The base and wᵢ·Δᵢ for each model."""
    base, deltas = task_vectors(inputs)
    factors = [model.number("weight") for model in inputs.models]
    return base, [scale(delta, factor=factor) for delta, factor in zip(deltas, factors, strict=True)]


def base_and_other(inputs: MergeInputs) -> tuple[Node, Node]:
    """The base and the one other model, where the base may be listed too; in the dtype of the arithmetic.

    Where every source is the base model, the first of them is the base.
    """
    assert inputs.base is not None
    others = [model.node for model in inputs.models]
    if inputs.base in others:
        others.remove(inputs.base)
    (other,) = others
    return cast(inputs.base, dtype=inputs.compute), cast(other, dtype=inputs.compute)
