"""The task-arithmetic family: sparsify the task vectors, perhaps vote on signs, add them to the base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...engine.errors import InputError
from ...engine.methoddef import MergeInputs, ModelInput, Param, method
from ..elect import agree_sum, agree_weight, elect
from ..elementwise import add, divide, is_zero, scale
from ..marks import as_marked
from ..rank_rows import drop_ranked, highest, lowest
from ..reduce import abs_sum
from ..select import drop_smallest, keep_largest
from ..sparsify import drop, match_l1
from .inputs import LAMBDA, task_vectors

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...engine.graph import Node

    Sparsify = Callable[[Node, ModelInput], Node]

_WEIGHT = Param("weight", "float", "model", "factor of this model's task vector", required=True)
_DENSITY = Param(
    "density", "float", "model", "share of the task vector that is kept", default=1.0, is_share=True, example=0.5
)
_INT8_MASK = Param("int8_mask", "bool", "tensor", "accepted, no effect", default=False)
_RESCALE = ("true", "false", "l1", "density")

_NEGLIGIBLE_DIVISOR = 1e-8


def _normalize(default: bool) -> Param:
    return Param("normalize", "bool", "tensor", "divide by the sum of the weights that took part", default=default)


def _rescale(default: str) -> Param:
    text = "make up for what was dropped: l1 to an equal L1 norm, density by dividing by it"
    return Param("rescale", "choice", "tensor", text, default=default, choices=_RESCALE)


def _weighted(inputs: MergeInputs, sparsify: Sparsify) -> tuple[Node, list[Node], list[float]]:
    """The base, the weighted sparse task vectors wᵢ·sᵢ, and the weights."""
    base, deltas = task_vectors(inputs)
    weights = [model.number("weight") for model in inputs.models]
    sparse = [sparsify(delta, model) for delta, model in zip(deltas, inputs.models, strict=True)]
    return base, [scale(part, factor=weight) for part, weight in zip(sparse, weights, strict=True)], weights


def _plain_sum(inputs: MergeInputs, sparsify: Sparsify) -> Node:
    """The base plus λ·Σpᵢ, divided by Σwᵢ where normalize."""
    base, parts, weights = _weighted(inputs, sparsify)
    divisor = sum(weights) if inputs.flag("normalize") else 1.0
    if abs(divisor) < _NEGLIGIBLE_DIVISOR:
        divisor = 1.0
    return add(base, scale(add(*parts), factor=inputs.number("lambda") / divisor))


def _consensus(inputs: MergeInputs, sparsify: Sparsify) -> Node:
    """The base plus λ·Σ of the pᵢ that have the elected sign, divided by the sum of their weights where normalize."""
    base, all_parts, all_weights = _weighted(inputs, sparsify)
    # A zero never votes, so a task vector that is zero everywhere can be left out.
    voters = [(part, weight) for part, weight in zip(all_parts, all_weights, strict=True) if not is_zero(part)]
    if not voters:
        return base
    parts = [part for part, _ in voters]
    sign = elect(*parts)
    merged = agree_sum(sign, *parts)
    if inputs.flag("normalize"):
        merged = divide(merged, agree_weight(sign, *parts, weights=tuple(weight for _, weight in voters)))
    return add(base, scale(merged, factor=inputs.number("lambda")))


def _keep_all(delta: Node, _model: ModelInput) -> Node:
    return delta


@method(
    "task_arithmetic",
    params=(_WEIGHT, LAMBDA, _normalize(False), _INT8_MASK),
    base="required",
    excludes_base=True,
    paper="Ilharco et al. 2022, Editing models with task arithmetic, arXiv:2212.04089",
    formula="b + λ·Σ wᵢ·Δᵢ",
)
def task_arithmetic(inputs: MergeInputs) -> Node:
    """Add weighted task vectors to the base."""
    return _plain_sum(inputs, _keep_all)


def _magnitude(delta: Node, model: ModelInput) -> Node:
    """The k = max(1, ⌊density·n⌋) largest elements; density 1 and more keeps all, 0 and less nothing."""
    density, elements = model.number("density"), delta.spec.elements
    if density >= 1 or density <= 0:
        return delta if density >= 1 else scale(delta, factor=0)
    return keep_largest(delta, max(1, int(density * elements)))


def _outliers(delta: Node, model: ModelInput) -> Node:
    """Without the ⌊γ·n⌋ largest, and of what is left the largest, ⌊density·n⌋ elements in all."""
    density, elements = model.number("density"), delta.spec.elements
    if density >= 1 or density <= 0:
        return delta if density >= 1 else scale(delta, factor=0)
    top, target = int(model.number("gamma") * elements), int(density * elements)
    bottom = max(0, elements - target - top)
    return add(drop_smallest(delta, bottom), scale(drop_smallest(delta, bottom + target), factor=-1))


def _matched(inputs: MergeInputs, sparsify: Sparsify, words: tuple[str, ...] = ("true", "l1")) -> Sparsify:
    """A sparsifier whose result gets back the L1 norm of the whole where ``rescale`` is one of these words."""
    if inputs.params["rescale"] not in words:
        return sparsify

    def matched(delta: Node, model: ModelInput) -> Node:
        kept = sparsify(delta, model)
        return match_l1(as_marked(delta, kept), abs_sum(delta), abs_sum(kept))

    return matched


def _random(inputs: MergeInputs) -> Sparsify:
    """Random dropping, made up for as ``rescale`` says; for DARE ``true`` is the paper's 1/density."""
    divided = inputs.params["rescale"] in ("true", "density")

    def sparsify(delta: Node, model: ModelInput) -> Node:
        density = model.number("density")
        kept = drop(delta, density=density, ordinal=model.ordinal)
        return scale(kept, factor=1.0 / density) if divided and 0 < density < 1 else kept

    return _matched(inputs, sparsify, ("l1",))


_TIES_PAPER = "Yadav et al. 2023, TIES-Merging, arXiv:2306.01708"
_GAMMA = Param("gamma", "float", "model", "share of the largest elements that is dropped as outliers", default=0.01)


@method(
    "ties",
    params=(_WEIGHT, _DENSITY, LAMBDA, _normalize(True), _rescale("false"), _INT8_MASK),
    base="required",
    excludes_base=True,
    paper=_TIES_PAPER,
    formula="b + λ·Σ mᵢ·wᵢ·topk(Δᵢ) / Σ mᵢ·wᵢ, mᵢ = [sign agrees with that of the sum]",
)
def ties(inputs: MergeInputs) -> Node:
    """Keep the largest elements of each task vector, elect a sign per element, average what agrees."""
    return _consensus(inputs, _matched(inputs, _magnitude))


_BREADCRUMBS = (_WEIGHT, _DENSITY, _GAMMA, LAMBDA, _normalize(False), _rescale("false"), _INT8_MASK)
_BREADCRUMBS_PAPER = "Davari and Belilovsky 2023, Model breadcrumbs, arXiv:2312.06795"


@method(
    "breadcrumbs",
    params=_BREADCRUMBS,
    base="required",
    excludes_base=True,
    paper=_BREADCRUMBS_PAPER,
    formula="b + λ·Σ wᵢ·band(Δᵢ), band = neither the largest γᵢ nor the smallest elements, densityᵢ of all",
)
def breadcrumbs(inputs: MergeInputs) -> Node:
    """Drop the largest and the smallest elements of each task vector, add the rest."""
    return _plain_sum(inputs, _matched(inputs, _outliers))


@method(
    "breadcrumbs_ties",
    params=_BREADCRUMBS,
    base="required",
    excludes_base=True,
    paper=f"{_BREADCRUMBS_PAPER}; {_TIES_PAPER}",
    formula="b + λ·Σ mᵢ·wᵢ·band(Δᵢ), mᵢ = [sign agrees with that of the sum]",
)
def breadcrumbs_ties(inputs: MergeInputs) -> Node:
    """Drop the largest and the smallest elements of each task vector, elect signs, add what agrees."""
    return _consensus(inputs, _matched(inputs, _outliers))


_DARE = (_WEIGHT, _DENSITY, LAMBDA, _normalize(False), _rescale("true"), _INT8_MASK)
_DARE_PAPER = "Yu et al. 2023, Language models are Super Mario, arXiv:2311.03099"


@method(
    "dare_linear",
    params=_DARE,
    base="required",
    excludes_base=True,
    paper=_DARE_PAPER,
    formula="b + λ·Σ wᵢ·drop(Δᵢ)/densityᵢ",
)
def dare_linear(inputs: MergeInputs) -> Node:
    """Drop task vectors at random, rescale what is left, add."""
    return _plain_sum(inputs, _random(inputs))


@method(
    "dare_ties",
    params=_DARE,
    base="required",
    excludes_base=True,
    paper=f"{_DARE_PAPER}; Yadav et al. 2023, TIES-Merging, arXiv:2306.01708",
    formula="b + λ·Σ mᵢ·wᵢ·drop(Δᵢ)/densityᵢ, mᵢ = [sign agrees with that of the sum]",
)
def dare_ties(inputs: MergeInputs) -> Node:
    """Drop task vectors at random, elect a sign per element, add what agrees."""
    return _consensus(inputs, _random(inputs))


def _ranked(inputs: MergeInputs) -> Sparsify:
    """Random dropping by rank in the row, made up for as ``rescale`` says; ``true`` is an equal L1 norm."""
    divided = inputs.params["rescale"] == "density"

    def sparsify(delta: Node, model: ModelInput) -> Node:
        density, epsilon = model.number("density"), model.number("epsilon")
        if 0 < density < 1 and not 0 < lowest(density, epsilon) <= highest(density, epsilon) < 1:
            raise InputError(
                f"density {density:g} ± epsilon {epsilon:g} does not lie between 0 and 1; "
                f"with this density, epsilon has to be below {min(density, 1 - density):g}"
            )
        row = delta.spec.row_elements
        return drop_ranked(
            delta, density=density, epsilon=epsilon, ordinal=model.ordinal, row_elements=row, divided=divided
        )

    return _matched(inputs, sparsify)


_EPSILON = Param(
    "epsilon", "float", "model", "how far the keep-probability goes from the density, by rank", default=0.15, low=0.0
)
_DELLA_PAPER = "Deep et al. 2024, DELLA-Merging, arXiv:2406.11617"


def _della(normalize: bool) -> tuple[Param, ...]:
    return _WEIGHT, _DENSITY, _EPSILON, LAMBDA, _normalize(normalize), _rescale("true"), _INT8_MASK


@method(
    "della_linear",
    params=_della(False),
    base="required",
    excludes_base=True,
    paper=_DELLA_PAPER,
    formula="b + λ·Σ wᵢ·drop(Δᵢ)·Σ|Δᵢ|/Σ|drop(Δᵢ)|, kept with probability densityᵢ ± εᵢ by rank in the row",
)
def della_linear(inputs: MergeInputs) -> Node:
    """Drop task vectors at random, small elements of a row more often, rescale what is left, add."""
    return _plain_sum(inputs, _ranked(inputs))


@method(
    "della",
    params=_della(True),
    base="required",
    excludes_base=True,
    paper=f"{_DELLA_PAPER}; {_TIES_PAPER}",
    formula="b + λ·Σ mᵢ·pᵢ / Σ mᵢ·wᵢ, pᵢ = wᵢ·drop(Δᵢ)·Σ|Δᵢ|/Σ|drop(Δᵢ)|, mᵢ = [sign agrees with that of the sum]",
)
def della(inputs: MergeInputs) -> Node:
    """Drop task vectors at random, small elements of a row more often, elect signs, average what agrees."""
    return _consensus(inputs, _ranked(inputs))
