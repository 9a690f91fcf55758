"""Two outputs of a merge with random masks: are they draws from the same distribution?

What is random is the masks m and nothing else, so the standard errors are computed from them, exactly, given the
inputs. Element e of model i survives with probability p_ie on its own. With K models the element's merged task vector
τ_e takes one of 2^K values, each with the product of its p_ie and (1 − p_ie); all of them are enumerated. From that
follow, for a statistic S = Σ_e f(τ_e)/N,

    E[S] = Σ_e E[f(τ_e)]/N        SE²[S] = Σ_e Var[f(τ_e)]/N².

Three statistics, each over all N elements:

- the share of elements that changed, f = [τ ≠ 0], among those where some task vector is not zero; with one model this
  is the share kept;
- the mean, f = τ;
- the variance, f = (τ − c)², with c the mean that was found (its own error is of second order).

Rescaling by l1 makes the factor of a model in a tensor random, too: A_i/L_i with A_i = Σ_e|Δ_ie| and
L_i = Σ_e m_ie|Δ_ie|. To first order that takes Σ_i (C_i/E[L_i])·m_ie|Δ_ie| off f(τ_e) before the variance is taken
(the delta method), where C_i = Σ_e E[f′(τ_e)·part_ie] and part_ie is what model i gives to τ_e. E[S] stays as it is to
first order, so tensors of few elements are left out. mergekit always rescales by l1; Plait's `rescale: true`
divides by p in dare and is l1 in della.

For each statistic z = (Plait − mergekit)/√(SE²_Plait + SE²_mergekit), and of each (found − E[S])/SE.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cases import Case
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.floating]

LEAST_ELEMENTS = 2048
"""Of a tensor that is counted: below, what is kept of it is not close to a normal distribution."""

CHUNK_ELEMENTS = 1 << 15
STATISTICS = ("share", "mean", "variance")


def z_score(found: float, expected: float, *variances: float) -> float:
    """A difference in standard errors; ``variances`` are the squares of those of its two sides."""
    total = sum(variances)
    if total == 0:
        return 0.0 if found == expected else float("inf") if found > expected else float("-inf")
    return (found - expected) / float(total**0.5)


@dataclass
class Sums:
    """Σ over elements: of 1, τ and τ² and [τ ≠ 0] as found, or of their expectations."""

    elements: int = 0
    live: int = 0
    changed: float = 0.0
    first: float = 0.0
    second: float = 0.0

    def statistics(self) -> dict[str, float]:
        """The three statistics."""
        mean = self.first / self.elements
        return {"share": self.changed / self.live, "mean": mean, "variance": self.second / self.elements - mean**2}


@dataclass
class Spread:
    """Σ over elements of variances, and of the covariance of τ and τ²."""

    changed: float = 0.0
    first: float = 0.0
    second: float = 0.0
    both: float = 0.0

    def variances(self, sums: Sums, centre: float) -> dict[str, float]:
        """SE² of the three statistics."""
        about = self.second - 4 * centre * self.both + 4 * centre**2 * self.first
        count = float(sums.elements) ** 2
        return {"share": self.changed / float(sums.live) ** 2, "mean": self.first / count, "variance": about / count}


@dataclass
class Draws:
    """What was found and what is expected, tensor by tensor. ``l1``: whether that tool's factor is random."""

    case: Case
    l1: Mapping[str, bool]
    found: dict[str, Sums] = field(init=False)
    spread: dict[str, Spread] = field(init=False)
    expected: Sums = field(init=False, default_factory=Sums)

    def __post_init__(self) -> None:
        self.found = {tool: Sums() for tool in self.l1}
        self.spread = {tool: Spread() for tool in self.l1}

    def add(self, base: Array, models: Sequence[Array], outputs: Mapping[str, Array]) -> None:
        """Take in one tensor; all arrays have its shape, in two dimensions, a row as della sees it."""
        if base.size < LEAST_ELEMENTS:
            return
        chances = _keep_chances(self.case, base, models)
        total, kept = np.zeros((2, len(models)))
        for rows in _row_chunks(base.shape):
            sizes = np.stack([np.abs(delta).reshape(-1) for delta in _deltas(base, models, rows)])
            total += sizes.sum(axis=1)
            kept += (sizes * np.stack([chance[rows].reshape(-1) for chance in chances])).sum(axis=1)
        factors = np.ones(len(models))
        if self.case.params.get("rescale", True):
            # Both rules put Σ|Δ| back, on average.
            factors = np.divide(total, kept, out=factors, where=kept > 0)
        parts = np.zeros((2, len(models)))
        for outcomes in self._outcomes(base, models, chances, factors):
            parts += outcomes.parts
            outcomes.expect(self.expected)
        slopes = np.divide(parts, kept, out=np.zeros_like(parts), where=kept > 0)
        chunks = zip(_row_chunks(base.shape), self._outcomes(base, models, chances, factors), strict=True)
        for rows, outcomes in chunks:
            for tool, output in outputs.items():
                change = (output[rows].astype(np.float64) - base[rows]).reshape(-1)
                sums = self.found[tool]
                sums.elements += change.size
                sums.live += int(outcomes.live.sum())
                sums.changed += int(np.count_nonzero(change[outcomes.live]))
                sums.first += float(change.sum())
                sums.second += float(np.square(change).sum())
                outcomes.vary(self.spread[tool], slopes if self.l1[tool] else np.zeros_like(slopes))

    def scores(self) -> dict[str, dict[str, float]]:
        """The z of each statistic: of each tool against the expectation, and ``both`` of one against the other."""
        found = {tool: sums.statistics() for tool, sums in self.found.items()}
        centre = float(np.mean([values["mean"] for values in found.values()]))
        variances = {tool: spread.variances(self.expected, centre) for tool, spread in self.spread.items()}
        expected = self.expected.statistics()
        expected["variance"] = self.expected.second / self.expected.elements - centre**2
        ours, theirs = found
        return {
            name: {tool: z_score(found[tool][name], expected[name], variances[tool][name]) for tool in found}
            | {"both": z_score(found[ours][name], found[theirs][name], *(variances[tool][name] for tool in found))}
            for name in STATISTICS
        }

    def _outcomes(
        self, base: Array, models: Sequence[Array], chances: Sequence[Array], factors: Array
    ) -> Iterator[Outcomes]:
        for rows in _row_chunks(base.shape):
            deltas = np.stack([delta.reshape(-1) for delta in _deltas(base, models, rows)])
            keep = np.stack([chance[rows].reshape(-1) for chance in chances])
            yield Outcomes(self.case, deltas, keep, factors)


class Outcomes:
    """Every outcome of the masks of some elements: probabilities and values of τ, shape (2^K, elements).

    ``deltas`` and ``keep``, the probabilities to survive, have shape (K, elements), ``factors`` rescale, (K,).
    """

    def __init__(self, case: Case, deltas: Array, keep: Array, factors: Array) -> None:
        weights = np.array(case.per_model("weight", 1.0))[:, None]
        self.live = (deltas != 0).any(axis=0)
        self._sizes = np.abs(deltas)
        self._masks = [np.array(mask, dtype=np.float64)[:, None] for mask in product((0, 1), repeat=len(deltas))]
        self._chances = np.stack([np.where(mask > 0, keep, 1 - keep).prod(axis=0) for mask in self._masks])
        outcomes = [_merge(case, weights, mask * deltas * factors[:, None]) for mask in self._masks]
        self._values = np.stack([part.sum(axis=0) for part in outcomes])
        # Σ E[f′(τ)·part] for f = τ and for f = τ², (2, K).
        self.parts = np.zeros((2, len(deltas)))
        for chance, value, part in zip(self._chances, self._values, outcomes, strict=True):
            self.parts += [part @ chance, part @ (2 * chance * value)]

    def expect(self, sums: Sums) -> None:
        """Add the expectations."""
        sums.elements += self.live.size
        sums.live += int(self.live.sum())
        sums.changed += float((self._chances * (self._values != 0)).sum())
        sums.first += float((self._chances * self._values).sum())
        sums.second += float((self._chances * self._values**2).sum())

    def vary(self, spread: Spread, slopes: Array) -> None:
        """Add the variances; ``slopes`` (2, K): C_i/E[L_i] of τ and of τ², zero where the factor is fixed."""
        drawn = [(mask * self._sizes) for mask in self._masks]
        first = self._values - np.stack([slopes[0] @ one for one in drawn])
        second = self._values**2 - np.stack([slopes[1] @ one for one in drawn])
        spread.changed += float(self._covariance(self._values != 0, self._values != 0))
        spread.first += self._covariance(first, first)
        spread.second += self._covariance(second, second)
        spread.both += self._covariance(first, second)

    def _covariance(self, one: Array | NDArray[np.bool_], other: Array | NDArray[np.bool_]) -> float:
        mean, other_mean = ((self._chances * values).sum(axis=0) for values in (one, other))
        return float((self._chances * (one - mean) * (other - other_mean)).sum())


def _merge(case: Case, weights: Array, sparse: Array) -> Array:
    """What each model gives to τ, (K, elements), for one outcome of the masks."""
    parts = weights * sparse
    voting = case.method in ("dare_ties", "della")
    agree = np.ones_like(parts)
    if voting:
        agree = (np.sign(parts) == np.where(parts.sum(axis=0) >= 0, 1.0, -1.0)).astype(np.float64)
    divisor = np.ones(parts.shape[1])
    if case.params.get("normalize", case.method == "della"):
        divisor = (weights * agree).sum(axis=0)
        divisor[divisor == 0] = 1.0
    merged: Array = agree * parts / divisor * float(case.params.get("lambda", 1.0))
    return merged


def _keep_chances(case: Case, base: Array, models: Sequence[Array]) -> list[Array]:
    """The probability of each element of each model to survive, (rows, columns)."""
    densities, epsilons = case.per_model("density", 1.0), case.per_model("epsilon", 0.15)
    if not case.method.startswith("della"):
        return [np.broadcast_to(np.float32(density), base.shape) for density in densities]
    chances = [np.empty(base.shape, dtype=np.float32) for _ in models]
    for rows in _row_chunks(base.shape):
        for chance, delta, density, epsilon in zip(
            chances, _deltas(base, models, rows), densities, epsilons, strict=True
        ):
            chance[rows] = rank_chances(delta, density, epsilon)
    return chances


def rank_chances(delta: Array, density: float, epsilon: float) -> Array:
    """Keep-probabilities of della: by rank of |Δ| in the row, from density − ε to density + ε."""
    columns = delta.shape[-1]
    order = np.argsort(np.abs(delta), axis=-1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(columns), order.shape), axis=-1)
    chances: Array = density - epsilon + 2 * epsilon * ranks / (columns - 1)
    return chances


def _deltas(base: Array, models: Sequence[Array], rows: slice) -> list[Array]:
    return [model[rows].astype(np.float64) - base[rows] for model in models]


def _row_chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, CHUNK_ELEMENTS // shape[-1])
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))
