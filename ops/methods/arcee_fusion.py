"""Arcee Fusion: take over what changed the most, where the rows changed as distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...engine.methoddef import MergeInputs, method
from ..elementwise import add, is_zero, sub
from ..fusion import importance, keep_at_least, outlier_threshold, row_divergence
from ..ranks import rank
from .inputs import base_and_other

if TYPE_CHECKING:
    from ...engine.graph import Node


@method(
    "arcee_fusion",
    base="required",
    min_inputs=2,
    max_inputs=2,
    paper="Arcee AI 2024, github.com/arcee-ai/mergekit, docs/merge_methods.md",
    formula="b + Δ·[s ≥ median(s) + 1.5·(Q₃(s) − Q₁(s))], s = |Δ|·KL(softmax x ‖ softmax b), row by row",
)
def arcee_fusion(inputs: MergeInputs) -> Node:
    """Take the most important changes of one model over into the base."""
    base, other = base_and_other(inputs)
    delta = sub(other, base)
    last = base.spec.elements - 1
    if is_zero(delta) or last < 0:
        return base
    ranking = importance(delta, row_divergence(other, base), row_elements=base.spec.row_elements)
    quartiles = [rank(ranking, 1 + last * quarter // 4, descending=False) for quarter in (1, 2, 3)]
    return add(base, keep_at_least(delta, ranking, outlier_threshold(*quartiles, dtype=inputs.compute)))
