"""Ops of Arcee Fusion: how much rows differ as distributions, what that makes of an element, and the outliers of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engine.graph import Attr, Node, TensorSpec
from ..engine.opdef import GraphError, Reduction, Tile, op, require_space, same_shape
from .elementwise import is_zero, zeros
from .reduce import place_blocks
from .scratch import carve, carved_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_GROUP_ELEMENTS = 1 << 15
"""Elements of the rows that are treated at once: they stay in a core's cache."""

_EPSILON = 1e-8
"""Added to each probability."""

_UNIT = 2.0**64
"""Divergences count this much larger, so that in float32 the products with small differences are not 0."""

_ROUNDING = {torch.float32: 2.0**-20, torch.float64: 2.0**-40}
"""What is below the threshold by this share of it is at the threshold: rounding noise must not decide."""

_ARITHMETIC = (torch.float32, torch.float64)


# ------------------------------------------------------------------------------------------------ divergence


def _infer_divergence(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "weight", "row_divergence")
    spec = same_shape(specs, "row_divergence")
    if len(specs) != 2 or spec.dtype not in _ARITHMETIC:
        raise GraphError("row_divergence takes two tensors of float32 or float64 weights")
    return TensorSpec((spec.elements // max(spec.row_elements, 1),), spec.dtype, "state")


def _rows_spec(_specs: Sequence[TensorSpec], elements: int, block_elements: int) -> TensorSpec:
    return TensorSpec((elements // block_elements,), torch.float64, "state")


def _in_units(state: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(state.mul_(_UNIT))


def _divergence_parts(elements: int, row_elements: int) -> list[tuple[type[np.float64], int]]:
    """Scratch: four arrays of a group's elements, and two of its rows."""
    rows = _group_rows(row_elements)
    group = min(rows * row_elements, elements)
    return [(np.float64, group)] * 4 + [(np.float64, rows)] * 2


def _group_rows(row_elements: int) -> int:
    return max(_GROUP_ELEMENTS // max(row_elements, 1), 1)


@op(
    "row_divergence",
    locality="reduce",
    infer=_infer_divergence,
    scratch_bytes=lambda specs, elements: carved_bytes(*_divergence_parts(elements, specs[0].row_elements)),
    reduction=Reduction(_rows_spec, _rows_spec, place_blocks, _in_units, by_row=True),
)
def row_divergence(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, block_elements: int
) -> None:
    """2⁶⁴·KL(p ‖ q) of each row, with p and q the softmax of the first and the second input plus 1e-8.

    Both add up to the same, so that Σ p·log(p/q) = Σ q·((1+r)·log(1+r) - r) with r = (p-q)/q. The terms of the
    left side are of the order of r and cancel to that of r²; those of the right side are of that order, and positive.
    All is float64, and rounded to the dtype of the inputs at the end.
    """
    x, base = (values.numpy() for values in ins)
    result, columns = out.numpy(), block_elements
    step = _group_rows(columns) * columns
    *wide, ones, twos = carve(scratch, *_divergence_parts(len(x), columns))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        rows = len(x[part]) // columns
        ratio, q, logarithm, product = (each[: rows * columns].reshape(rows, columns) for each in wide)
        _softmax(x[part], ratio, ones[:rows])
        _softmax(base[part], q, twos[:rows])
        np.subtract(ratio, q, out=ratio)
        np.add(q, _EPSILON, out=q)
        np.divide(ratio, q, out=ratio)
        np.log1p(ratio, out=logarithm)
        np.multiply(ratio, logarithm, out=product)
        np.subtract(logarithm, ratio, out=logarithm)
        np.add(logarithm, product, out=product)
        np.multiply(product, q, out=product)
        found = result[start // columns : start // columns + rows]
        np.add.reduce(product, axis=1, out=found)
        np.maximum(found, 0, out=found)


def _softmax(values: NDArray[Any], out: Floats, spare: Floats) -> None:
    """The softmax of each row; ``spare`` has a number a row."""
    out[:] = values.reshape(out.shape)
    np.maximum.reduce(out, axis=1, out=spare)
    np.subtract(out, spare[:, None], out=out)
    np.exp(out, out=out)
    # Along the rows numpy adds in an order that their length alone decides.
    np.add.reduce(out, axis=1, out=spare)
    np.divide(1.0, spare, out=spare)
    np.multiply(out, spare[:, None], out=out)


# ------------------------------------------------------------------------------------------------ importance


def _infer_importance(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    delta, divergence = specs
    require_space([delta], "delta", "importance")
    require_space([divergence], "state", "importance's divergences")
    rows = delta.elements // max(delta.row_elements, 1)
    if attrs["row_elements"] != delta.row_elements or divergence.shape != (rows,) or divergence.dtype != delta.dtype:
        raise GraphError(f"importance takes {rows} rows of {delta.row_elements} elements, and a divergence for each")
    return delta


@op(
    "importance",
    infer=_infer_importance,
    simplify=lambda inputs, _attrs: inputs[0] if is_zero(inputs[0]) else None,
    inplace=(0,),
)
def importance(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, tile: Tile, *, row_elements: int
) -> None:
    """|Δ|·KL of the row, in the units of `row_divergence`: inputs Δ, divergences.

    In the dtype of Δ: float32 has digits enough to compare, and half the passes to rank.
    """
    delta, divergence = (values.numpy() for values in ins)
    result = np.abs(delta, out=out.numpy())
    factors = divergence[tile.lo // row_elements : -(-tile.hi // row_elements)]
    # The rest of the row that the tile begins in, whole rows, the start of the row that it ends in.
    head = min(-tile.lo % row_elements, len(result))
    skipped = 1 if head else 0
    rows = (len(result) - head) // row_elements
    tail = head + rows * row_elements
    result[:head] *= factors[:1]
    result[tail:] *= factors[-1:]
    whole = result[head:tail].reshape(rows, row_elements)
    np.multiply(whole, factors[skipped : skipped + rows, None], out=whole)


# ------------------------------------------------------------------------------------------------ outliers


def _infer_threshold(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "state", "outlier_threshold")
    if len(specs) != 3 or attrs["dtype"] not in _ARITHMETIC:
        raise GraphError("outlier_threshold takes three quartiles, and the dtype whose bits they are")
    return TensorSpec((1,), torch.float64, "state")


@op("outlier_threshold", locality="state", infer=_infer_threshold)
def outlier_threshold(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, dtype: torch.dtype
) -> None:
    """The median + 1.5·(Q₃ - Q₁), less rounding errors; inputs are what `rank` located for Q₁, the median and Q₃."""
    low, median, high = (_value(int(located[0]), dtype) for located in ins)
    out[0] = (median + 1.5 * (high - low)) * (1.0 - _ROUNDING[dtype])


def _value(bits: int, dtype: torch.dtype) -> float:
    """The number that has these bits."""
    if dtype == torch.float32:
        return float(np.uint32(bits).view(np.float32))
    return float(np.uint64(bits).view(np.float64))


def _infer_at_least(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    values, ranking, threshold = specs
    require_space([values, ranking], "delta", "keep_at_least")
    require_space([threshold], "state", "keep_at_least's threshold")
    return same_shape([values, ranking], "keep_at_least")


def _simplify_at_least(inputs: Sequence[Node], _attrs: Mapping[str, Attr]) -> Node | None:
    return zeros(inputs[0].spec) if is_zero(inputs[0]) else None


@op("keep_at_least", infer=_infer_at_least, simplify=_simplify_at_least)
def keep_at_least(out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile) -> None:
    """The values whose ranking is not below a threshold, the others zero: inputs values, ranking, threshold."""
    values, ranking, threshold = ins
    torch.ge(ranking, _not_below(float(threshold[0]), ranking.dtype), out=out)
    out.mul_(values)


def _not_below(value: float, dtype: torch.dtype) -> float:
    """The least number of a dtype that is not below ``value``: comparisons with it are comparisons with the value."""
    if dtype == torch.float64:
        return value
    near = np.float32(value)
    return float(near if float(near) >= value else np.nextafter(near, np.float32(np.inf)))
