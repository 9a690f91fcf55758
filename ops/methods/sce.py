"""SCE: select by variance, calculate weights, erase the minority."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...engine.methoddef import MergeInputs, Param, method
from ..elect import elect
from ..elementwise import add, cast, is_zero
from ..gram import gram
from ..ranks import rank
from ..select import keep_ranked
from ..spans import shares
from ..spread import agreed_mean, gate, nonzero_count, rank_of_share, spread
from .inputs import task_vectors

if TYPE_CHECKING:
    from ...engine.graph import Node


@method(
    "sce",
    params=(
        Param(
            "select_topk",
            "float",
            "tensor",
            "share kept of the elements that the models differ in",
            default=1.0,
            example=0.5,
        ),
        Param("int8_mask", "bool", "tensor", "accepted, no effect", default=False),
    ),
    base="required",
    excludes_base=True,
    paper="Wan et al. 2024, FuseChat, arXiv:2408.07990",
    formula="b + Σ wᵢ·mᵢ·Δᵢ / max(Σ wᵢ·mᵢ, 1e-6), wᵢ = ΣΔᵢ² / ΣΣΔ², mᵢ = [sign agrees with that of the sum]",
)
def sce(inputs: MergeInputs) -> Node:
    """Keep the elements of the largest variance, weight models by their energy, average what agrees in sign."""
    base, deltas = task_vectors(inputs)
    share = inputs.number("select_topk")
    if share >= 1:
        return add(base, _fused(deltas, deltas))
    # The task vectors vary as the models do.
    ranking = spread(*(cast(model.node, dtype=inputs.compute) for model in inputs.models))
    if share <= 0 or is_zero(ranking) or base.spec.elements == 0:
        return base
    start = rank_of_share(nonzero_count(ranking), share=share)
    # No more are selected than have a variance: what is selected is what is not zero.
    selected = keep_ranked(ranking, rank(ranking, start, descending=True, share=share), descending=True, rest=False)
    # The selection is the same for all models: but for the weights, what is merged can be selected at the end.
    merged = _fused(deltas, [gate(delta, selected) for delta in deltas])
    return add(base, gate(merged, selected))


def _fused(deltas: list[Node], selected: list[Node]) -> Node:
    """The mean of the Δ that agree in sign, weighted by the energies of what is selected of them."""
    # The weights are 0, and not equal, where nothing is selected: no Δ is left for them.
    weights = shares(*(gram(part) for part in selected))
    return agreed_mean(weights, elect(*deltas), *deltas)
