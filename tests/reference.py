"""What every method is defined to be: whole tensors, float64, straight from the formulas.

Nothing here shares code with the engine or the ops, and nothing is fast. A new method is one function more in
METHODS, unless it brings its definition along; the accuracy tests find it there by its name.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[np.float64]"
Mask: TypeAlias = "NDArray[np.bool_]"

CANCELS = {torch.float32: 2.0**-20, torch.float64: 2.0**-40}


@dataclass(frozen=True)
class Question:
    """One tensor of one merge. ``models`` in recipe order without the base, ``settings`` as the recipe gives them."""

    tensor_name: str
    base: Array | None
    models: tuple[Array, ...]
    settings: Mapping[str, Any]
    of_models: tuple[Mapping[str, Any], ...]
    seed: int
    compute: torch.dtype


@dataclass(frozen=True)
class Answer:
    """The merged tensor.

    ``origin`` is what it is a change of. ``magnitude`` is the same expression with every term made positive, which
    is what rounding errors are relative to. ``undecided`` marks votes too close to the limit of a cancelled one for
    float32 and float64 to agree on.
    """

    value: Array
    origin: Array
    magnitude: Array
    undecided: Mask


# ------------------------------------------------------------------------------------------------ masks

_ALL = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def stream_key(seed: int, tensor_name: str, ordinal: int) -> int:
    """Blake2b, 64 bits, of seed, name and ordinal in decimal, joined by NUL."""
    text = "\0".join([str(seed), tensor_name, str(ordinal)])
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def splitmix64(state: int) -> int:
    """The output of SplitMix64 for one state."""
    z = state & _ALL
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _ALL
    return z ^ (z >> 31)


def is_kept(index: int, density: float, key: int) -> bool:
    """Whether one element survives: its 16-bit lane against density·65536, an equal lane by a second hash."""
    word = splitmix64(key + (index >> 2) * GOLDEN)
    lane = (word >> (16 * (index & 3))) & 0xFFFF
    whole = math.floor(density * 65536)
    if lane != whole:
        return lane < whole
    second = splitmix64((key ^ 0xD1B54A32D192ED03) + (index + 1) * GOLDEN)
    return second < int((density * 65536 - whole) * 2**64)


def mask(elements: int, density: float | Array, key: int) -> Mask:
    """`is_kept` of every element, of one density or one each: lanes all at once, equal ones one by one."""
    each = np.broadcast_to(np.asarray(density, dtype=np.float64), (elements,))
    index = np.arange(elements, dtype=np.uint64)
    z = np.uint64(key) + (index >> np.uint64(2)) * np.uint64(GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    lane = (z >> (np.uint64(16) * (index & np.uint64(3)))) & np.uint64(0xFFFF)
    whole = np.floor(each * 65536)
    kept: Mask = lane < whole
    for equal in np.flatnonzero(lane == whole):
        kept[equal] = is_kept(int(equal), float(each[equal]), key)
    return kept


# ------------------------------------------------------------------------------------------------ rounding

_FORMATS = {torch.bfloat16: (8, -126), torch.float16: (11, -14), torch.float32: (24, -126)}
"""Bits of the significand, and the exponent of the least normal number."""


def rounded(x: Array, dtype: torch.dtype) -> Array:
    """Round float64 to the nearest number of a dtype, ties to even, in one step; too large is infinite."""
    if dtype == torch.float64:
        return x
    bits, least_exponent = _FORMATS[dtype]
    _, exponent = np.frexp(x)  # x = m·2^exponent with 0.5 ≤ |m| < 1
    step = np.ldexp(1.0, np.maximum(exponent - bits, least_exponent - bits + 1))
    with np.errstate(over="ignore"):
        result: Array = np.rint(x / step) * step
    return np.where(np.abs(result) > float(torch.finfo(dtype).max), np.copysign(np.inf, x), result)


# ------------------------------------------------------------------------------------------------ averages


def linear(q: Question) -> Answer:
    weights = [of["weight"] for of in q.of_models]
    divisor = sum(weights) if q.settings.get("normalize", True) else 1.0
    value = _sum(w * x for w, x in zip(weights, q.models, strict=True)) / divisor
    magnitude = _sum(np.abs(w * x) for w, x in zip(weights, q.models, strict=True)) / abs(divisor)
    return _certain(value, _sum(q.models) / len(q.models), magnitude)


def passthrough(q: Question) -> Answer:
    (x,), (of,) = q.models, q.of_models
    factor = of.get("scale", 1.0)
    return _certain(x * factor, x, np.abs(x * factor))


# ------------------------------------------------------------------------------------------------ task arithmetic

Sparsify: TypeAlias = "Callable[[Question, Array, int], Array]"


def keep_all(_q: Question, delta: Array, _ordinal: int) -> Array:
    return delta


def random_drop(q: Question, delta: Array, ordinal: int) -> Array:
    density: float = q.of_models[ordinal].get("density", 1.0)
    if density >= 1:
        return delta
    if density <= 0:
        return np.zeros_like(delta)
    key = stream_key(q.seed, q.tensor_name, ordinal)
    kept = np.where(mask(delta.size, density, key).reshape(delta.shape), delta, 0.0)
    rescale = str(q.settings.get("rescale", True)).lower()
    if rescale in ("true", "density"):
        return kept / density
    if rescale == "l1":
        before, after = math.fsum(np.abs(delta).flat), math.fsum(np.abs(kept).flat)
        return kept if before < 1e-7 or after < 1e-7 else kept * (before / after)
    return kept


def plain_sum(sparsify: Sparsify) -> Callable[[Question], Answer]:
    """b + λ·Σp or, normalised, b + λ·Σp/Σw."""

    def method(q: Question) -> Answer:
        base, parts, weights = _weighted(q, sparsify)
        divisor = sum(weights) if q.settings.get("normalize", False) else 1.0
        divisor = 1.0 if abs(divisor) < 1e-8 else divisor
        factor = q.settings.get("lambda", 1.0) / divisor
        value = base + factor * _sum(parts)
        return _certain(value, base, np.abs(base) + abs(factor) * _sum(map(np.abs, parts)))

    return method


def consensus(sparsify: Sparsify, *, normalize: bool) -> Callable[[Question], Answer]:
    """The same of the p that have the sign of Σp; a cancelled vote is +1."""

    def method(q: Question) -> Answer:
        base, parts, weights = _weighted(q, sparsify)
        total, size = _sum(parts), _sum(map(np.abs, parts))
        limit = CANCELS[q.compute] * size
        sign = np.where((total >= 0) | (np.abs(total) <= limit), 1.0, -1.0)
        undecided = (np.abs(total + limit) <= 0.75 * limit) & (size > 0)
        agree = [np.sign(p) == sign for p in parts]
        numerator = _sum(np.where(m, p, 0.0) for m, p in zip(agree, parts, strict=True))
        terms = _sum(np.where(m, np.abs(p), 0.0) for m, p in zip(agree, parts, strict=True))
        if q.settings.get("normalize", normalize):
            divisor = _sum(np.where(m, w, 0.0) for m, w in zip(agree, weights, strict=True))
            divisor = np.where(divisor == 0, 1.0, divisor)
            # A divisor that cancels has an error of its own.
            spread = _sum(np.where(m, abs(w), 0.0) for m, w in zip(agree, weights, strict=True))
            numerator, terms = numerator / divisor, terms / np.abs(divisor) * (1 + spread / np.abs(divisor))
        factor = q.settings.get("lambda", 1.0)
        return Answer(base + factor * numerator, base, np.abs(base) + abs(factor) * terms, undecided)

    return method


def _weighted(q: Question, sparsify: Sparsify) -> tuple[Array, list[Array], list[float]]:
    assert q.base is not None
    weights = [of["weight"] for of in q.of_models]
    deltas = [x - q.base for x in q.models]
    parts = [w * sparsify(q, delta, ordinal) for ordinal, (w, delta) in enumerate(zip(weights, deltas, strict=True))]
    return q.base, parts, weights


def _sum(arrays: Iterable[Array]) -> Array:
    first, *others = arrays
    total: Array = first.copy()
    for array in others:
        total = total + array
    return total


def _certain(value: Array, origin: Array, magnitude: Array) -> Answer:
    return Answer(value, origin, magnitude, np.zeros(value.shape, dtype=np.bool_))


import reference_declared  # noqa: E402 -- it is made of the parts above
import reference_fusion  # noqa: E402 -- it is made of the parts above
import reference_overlap  # noqa: E402 -- likewise
import reference_ranks  # noqa: E402 -- likewise
import reference_spectrum  # noqa: E402 -- likewise
import reference_spheres  # noqa: E402 -- likewise

METHODS: Mapping[str, Callable[[Question], Answer]] = {
    "dare_linear": plain_sum(random_drop),
    "dare_ties": consensus(random_drop, normalize=False),
    "linear": linear,
    "passthrough": passthrough,
    "task_arithmetic": plain_sum(keep_all),
    **reference_declared.METHODS,
    **reference_fusion.METHODS,
    **reference_overlap.METHODS,
    **reference_ranks.METHODS,
    **reference_spectrum.METHODS,
    **reference_spheres.METHODS,
}

ON_TASK_VECTORS = frozenset({"dare_linear", "dare_ties", "task_arithmetic"}) | reference_ranks.ON_TASK_VECTORS
ON_TASK_VECTORS |= reference_overlap.ON_TASK_VECTORS | reference_spheres.ON_TASK_VECTORS
ON_TASK_VECTORS |= reference_declared.ON_TASK_VECTORS
ON_TASK_VECTORS |= reference_fusion.ON_TASK_VECTORS | reference_spectrum.ON_TASK_VECTORS
"""The methods in which a base listed among the models does not count."""


# ------------------------------------------------------------------------------------------------ how right is right


def shortfalls(out: torch.Tensor, answer: Answer, compute: torch.dtype) -> list[str]:
    """In what a merged tensor misses the bars of accuracy; an empty list if in nothing."""
    got = out.double().numpy()
    decided = ~answer.undecided
    error = np.abs(got - answer.value)[decided]
    floor = np.abs(rounded(answer.value, out.dtype) - answer.value)[decided]
    magnitude, change = answer.magnitude[decided], np.abs(answer.value - answer.origin)[decided]
    found = []
    if answer.undecided.sum() > 1 + got.size // 1000:
        found.append(f"{answer.undecided.sum()} of {got.size} votes are undecided: this compares nothing")
    if not np.isfinite(got).all():
        found.append("not finite")
    if not error.size:
        return found
    if out.dtype.itemsize > 2:
        allowed = np.maximum(1e-6 * change.mean(), floor + 2.0**-48 * magnitude)
    else:
        # Per element: rounding once, and what arithmetic in the compute type may be off before it.
        allowed = floor + (2.0**-19 if compute == torch.float32 else 2.0**-46) * magnitude
        if error.size >= 64 and error.mean() > 1.002 * floor.mean():
            found.append(f"mean error {error.mean():.4g} is {error.mean() / floor.mean():.4f} of rounding")
    excess = error - allowed
    if (excess > 0).any():
        worst = int(excess.argmax())
        found.append(f"{(excess > 0).sum()} of {error.size} elements: {error[worst]:.4g} > {allowed[worst]:.4g}")
    return found
