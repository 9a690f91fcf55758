"""The ops of Gram coordinates, rows and columns as plain expressions over whole tensors."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hypothesis import strategies as st
from reference import Question, reference_spheres

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

F64 = torch.float64


def _gram(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    wide = [x.double().numpy() for x in ins]
    pairs = itertools.combinations_with_replacement(wide, 2)
    return torch.tensor([reference_spheres.dot(a, b) for a, b in pairs], dtype=F64)


def _combine(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    coefficients, first, *others = ins
    total = first * float(coefficients[0])
    for factor, x in zip(coefficients[1:].tolist(), others, strict=True):
        total = total + x * factor
    return total


def _combine_columns(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    coefficients, *parts = ins
    place = torch.arange(parts[0].numel()) % coefficients.shape[1]
    factors = coefficients.to(parts[0].dtype)[:, place]
    return parts[0] * factors[0] + parts[1] * factors[1]


def vectors_with(dots: torch.Tensor) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """Vectors that have these dot products: the rows of a root of their matrix."""
    count = (math.isqrt(8 * dots.numel() + 1) - 1) // 2
    matrix = np.zeros((count, count))
    for (i, j), value in zip(itertools.combinations_with_replacement(range(count), 2), dots.tolist(), strict=True):
        matrix[i, j] = matrix[j, i] = value
    values, axes = np.linalg.eigh(matrix)
    return list(axes * np.sqrt(np.maximum(values, 0)))


def _coefficients(method: str) -> Callable[..., torch.Tensor]:
    """What a method of the reference makes of vectors with the given dot products, solved for its coefficients."""

    def plain(ins: Sequence[torch.Tensor], **attrs: Any) -> torch.Tensor:
        vectors = vectors_with(ins[0])
        first = np.zeros_like(vectors[0]) if method in ("geometric_median", "model_stock") else None
        weights = attrs.pop("weights", (1.0,) * len(vectors))
        if method == "geometric_median":
            assert first is not None
            models, base = (first, *vectors), None
        elif method == "slerp":
            models, base = tuple(vectors[1:]), vectors[0]
        else:
            models, base = tuple(vectors), first
        if method == "nuslerp":
            weights = (1 - attrs["t"], attrs["t"])
        settings = {**attrs, "normalize_weights": False}
        of_models = tuple({"weight": weight} for weight in weights)
        question = Question("x", base, models, settings, of_models, 0, F64)
        value = reference_spheres.METHODS[method](question).value
        return torch.from_numpy(np.linalg.lstsq(np.stack(vectors).T, value, rcond=None)[0])

    return plain


def _rows(method: str, **fixed: Any) -> Callable[..., torch.Tensor]:
    def plain(ins: Sequence[torch.Tensor], *, row_elements: int, t: float = 0.5) -> torch.Tensor:
        parts = tuple(x.double().numpy().reshape(-1, row_elements) for x in ins)
        base = np.zeros_like(parts[0])
        of_models = ({"weight": 1 - t}, {"weight": t})
        question = Question("x", base, parts, fixed, of_models, 0, F64)
        return torch.from_numpy(reference_spheres.METHODS[method](question).value.reshape(-1))

    return plain


def _shares(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    total = math.fsum(float(x) for x in ins)
    return torch.tensor([float(x) / (total or 1.0) for x in ins], dtype=F64)


def _column_sizes(ins: Sequence[torch.Tensor], *, columns: int) -> torch.Tensor:
    return torch.stack([x.double().abs().reshape(-1, columns).amax(0) for x in ins])


def _column_dots(ins: Sequence[torch.Tensor], *, columns: int, rows: int) -> torch.Tensor:
    """The sums themselves: how the op splits them in two is its own affair."""
    a, b = (x.double().reshape(rows, columns) for x in ins[:2])
    return torch.stack([(a * a).sum(0), (a * b).sum(0), (b * b).sum(0)])


def _column_arcs(ins: Sequence[torch.Tensor], *, t: float, rows: int) -> torch.Tensor:
    (high, low), sizes = ins
    bits = 52 - max(rows - 1, 0).bit_length()
    _, e = torch.frexp(sizes)
    scale = torch.stack([e[0] + e[0], e[0] + e[1], e[1] + e[1]]) - bits
    dots = torch.ldexp(high + low * 2.0**-bits, scale)
    found = []
    for aa, ab, bb in dots.T.tolist():
        cosine = min(max(ab / (max(math.sqrt(aa), 1e-7) * max(math.sqrt(bb), 1e-7)), -1), 1)
        found.append(reference_spheres.arc(cosine, t, straight=1 - cosine**2 <= 1e-14))
    return torch.tensor(found, dtype=F64).T


PLAIN: Mapping[str, Callable[..., torch.Tensor]] = {
    "column_arcs": _column_arcs,
    "column_dots": _column_dots,
    "column_sizes": _column_sizes,
    "combine": _combine,
    "combine_columns": _combine_columns,
    "geometric_median_coefficients": _coefficients("geometric_median"),
    "gram": _gram,
    "karcher_coefficients": _coefficients("karcher"),
    "multislerp_coefficients": _coefficients("multislerp"),
    "nuslerp_coefficients": _coefficients("nuslerp"),
    "row_slerp": _rows("nuslerp", nuslerp_flatten=False),
    "row_stock": _rows("model_stock", filter_wise=True),
    "shares": _shares,
    "slerp_coefficients": _coefficients("slerp"),
    "stock_coefficients": _coefficients("model_stock"),
}

STATES: Mapping[str, Sequence[int]] = {"column_dots": (2,), "combine": (0,), "combine_columns": (0,)}


def _draw_combine(draw: st.DrawFn, tensor: Callable[[], torch.Tensor], dtype: torch.dtype) -> Any:
    parts = [tensor() for _ in range(draw(st.integers(1, 4)))]
    factors = draw(st.lists(st.floats(-2, 2, width=32), min_size=len(parts), max_size=len(parts)))
    return [torch.tensor(factors, dtype=F64), *parts], {}, dtype


def _draw_combine_columns(draw: st.DrawFn, tensor: Callable[[], torch.Tensor], dtype: torch.dtype) -> Any:
    random = np.random.default_rng(draw(st.integers(0, 99)))
    return [torch.from_numpy(random.normal(size=(2, draw(st.integers(1, 9))))), tensor(), tensor()], {}, dtype


CALLS: Mapping[str, Callable[..., Any]] = {"combine": _draw_combine, "combine_columns": _draw_combine_columns}
