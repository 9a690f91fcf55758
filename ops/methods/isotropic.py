"""Methods on the singular values of task matrices. What is not a matrix is averaged, as the papers do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...engine.methoddef import MergeInputs, Param, method
from ...engine.panels import lines_of
from ..elementwise import add, cast, is_zero, scale, sub
from ..spectrum import flattener, line_gram, times
from ..triplets import left_gram, left_times, strongest, whitened
from .inputs import LAMBDA

if TYPE_CHECKING:
    from ...engine.graph import Node

_WEIGHT = Param("weight", "float", "model", "factor of this model's task vector", default=1.0)


def _wide_parts(inputs: MergeInputs) -> list[Node]:
    """wᵢ·Δᵢ for each model, in float64: a weak direction is made as strong as the others, rounding noise included."""
    assert inputs.base is not None
    base = cast(inputs.base, dtype=torch.float64)
    return [
        scale(sub(cast(model.node, dtype=torch.float64), base), factor=model.number("weight"))
        for model in inputs.models
    ]


def _merged(inputs: MergeInputs, change: Node) -> Node:
    """The base plus λ times the change."""
    assert inputs.base is not None
    scaled = scale(change, factor=inputs.number("lambda"))
    return add(cast(inputs.base, dtype=inputs.compute), cast(scaled, dtype=inputs.compute))


def _is_matrix(inputs: MergeInputs) -> bool:
    return len(inputs.spec.shape) == 2 and inputs.spec.elements > 0


def _mean(parts: list[Node]) -> Node:
    return scale(add(*parts), factor=1.0 / len(parts))


@method(
    "iso_c",
    params=(_WEIGHT, LAMBDA),
    base="required",
    excludes_base=True,
    paper="Marczak et al. 2025, No task left behind, arXiv:2502.04959, Iso-C (section 4.1)",
    formula="b + λ·σ̄·U·Vᵀ, U·Σ·Vᵀ = Σ wᵢ·Δᵢ, σ̄ the mean of Σ; what has not two dimensions: b + λ·mean(wᵢ·Δᵢ)",
)
def iso_c(inputs: MergeInputs) -> Node:
    """Add the task matrices up and make all singular values of the sum equal to their mean."""
    parts = _wide_parts(inputs)
    total = add(*parts)
    if not _is_matrix(inputs):
        return _merged(inputs, _mean(parts))
    if is_zero(total):
        return _merged(inputs, total)
    lines = lines_of(inputs.spec.shape)
    geometry = {"width": lines.width, "columns": lines.columns}
    return _merged(inputs, times(total, flattener(line_gram(total, **geometry)), **geometry))


@method(
    "tsv",
    params=(_WEIGHT, LAMBDA),
    base="required",
    excludes_base=True,
    paper="Gargiulo et al. 2024, Task singular vectors, arXiv:2412.00081, TSV-Merge (algorithm 1)",
    formula="b + λ·U⊥·Σ·V⊥ᵀ, U, Σ, V the ⌊r/K⌋ strongest singular triplets of each wᵢ·Δᵢ, X⊥ = X·(XᵀX)^(-1/2); "
    "what has not two dimensions: b + λ·mean(wᵢ·Δᵢ)",
)
def tsv(inputs: MergeInputs) -> Node:
    """Keep the strongest singular vectors of each task matrix and make those of all tasks orthogonal."""
    parts = _wide_parts(inputs)
    if not _is_matrix(inputs):
        return _merged(inputs, _mean(parts))
    moved = [part for part in parts if not is_zero(part)]
    if not moved:
        return _merged(inputs, parts[0])
    lines = lines_of(inputs.spec.shape)
    geometry = {"width": lines.width, "columns": lines.columns}
    # Each task gets its share of the rank; one direction where there are more tasks than that.
    share = max(lines.width // len(parts), 1)
    triplets = [strongest(line_gram(part, **geometry), count=share) for part in moved]
    right = whitened(left_gram(*moved, *triplets, **geometry), *triplets)
    return _merged(inputs, left_times(*moved, *triplets, right, **geometry))
