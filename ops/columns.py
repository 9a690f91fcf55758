"""Interpolation of columns: vectors along the first dimension, each in every block of the tensor.

A tile has only a part of each column, and the parts' sums are needed in an order that no tile decides. So they are
exact, and exact sums are the same in any order: what a column's largest element allows for is cut off each product
in two steps of whole numbers, which float64 adds without rounding. After Demmel and Nguyen 2013, "Fast reproducible
floating-point summation".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..engine.graph import Attr, TensorSpec
from ..engine.opdef import GraphError, Reduction, Tile, op, require_space, same_shape
from .arcs import arc
from .gram import pairs_of
from .reduce import add_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

_SPAN_ELEMENTS = 1 << 14
_PAIRS = pairs_of(2)
_EXACT_BITS = 52


def columns_of(spec: TensorSpec) -> int:
    """How many vectors lie along the first dimension."""
    return spec.elements // spec.shape[0] if spec.elements else 0


class Span(NamedTuple):
    """A rectangle of a tile: rows of ``stop - start`` neighbouring columns."""

    offset: int
    rows: int
    start: int
    stop: int

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """The rectangle of a tile's values, (rows, columns)."""
        width = self.stop - self.start
        return values[self.offset : self.offset + self.rows * width].reshape(self.rows, width)


def spans(tile: Tile, columns: int) -> Iterator[Span]:
    """Rectangles that make up a tile, of `_SPAN_ELEMENTS` or a row at most."""
    position = tile.lo
    while position < tile.hi:
        start = position % columns
        if start or tile.hi - position < columns:
            rows, stop = 1, min(columns, start + tile.hi - position)
        else:
            rows, stop = min((tile.hi - position) // columns, max(_SPAN_ELEMENTS // columns, 1)), columns
        yield Span(position - tile.lo, rows, start, stop)
        position += rows * (stop - start)


def span_elements(specs: Sequence[TensorSpec], elements: int) -> int:
    """The most elements that one of a tile's rectangles has."""
    return min(elements, max(_SPAN_ELEMENTS, columns_of(specs[0])))


# ------------------------------------------------------------------------------------------------ sizes


def _infer_sizes(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    spec = same_shape(specs, "column_sizes")
    if spec.dtype not in (torch.float32, torch.float64) or not spec.shape:
        raise GraphError("columns are those of float32 or float64 tensors with one dimension or more")
    if attrs["columns"] != columns_of(spec):
        raise GraphError(f"there are {columns_of(spec)} columns, not {attrs['columns']}")
    return _sizes_spec(specs, spec.elements, 1)


def _sizes_spec(specs: Sequence[TensorSpec], _elements: int, _block_elements: int) -> TensorSpec:
    return TensorSpec((len(specs), columns_of(specs[0])), torch.float64, "state")


def _keep_largest(state: torch.Tensor, partial: torch.Tensor, _tile: Tile, _block_elements: int) -> None:
    torch.maximum(state, partial.view(state.shape), out=state)


@op(
    "column_sizes",
    locality="reduce",
    infer=_infer_sizes,
    scratch_bytes=lambda specs, elements: 8 * span_elements(specs, elements),
    reduction=Reduction(_sizes_spec, _sizes_spec, _keep_largest),
)
def column_sizes(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, tile: Tile, *, columns: int, **_: object
) -> None:
    """The largest magnitude in each column of one tensor or more."""
    sizes, room = out.zero_().numpy().reshape(len(ins), columns), scratch.numpy().view(np.float64)
    for span in spans(tile, columns):
        magnitudes = room[: span.rows * (span.stop - span.start)].reshape(span.rows, -1)
        for x, size in zip(ins, sizes, strict=True):
            np.abs(span.of(x.numpy()), out=magnitudes)
            for row in magnitudes if span.rows < 8 else [magnitudes.max(axis=0)]:
                np.maximum(size[span.start : span.stop], row, out=size[span.start : span.stop])


# ------------------------------------------------------------------------------------------------ dot products


def _infer_dots(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs[2:], "state", "column_dots' sizes")
    if len(specs) != 3:
        raise GraphError("column_dots takes two tensors and their sizes")
    _infer_sizes(specs[:2], attrs)
    return _dots_spec(specs, specs[0].elements, 1)


def _dots_spec(specs: Sequence[TensorSpec], _elements: int, _block_elements: int) -> TensorSpec:
    return TensorSpec((2, len(_PAIRS), columns_of(specs[0])), torch.float64, "state")


def step_bits(rows: int) -> int:
    """Bits of a whole number of which so many add up exactly in float64."""
    return _EXACT_BITS - max(rows - 1, 0).bit_length()


def add_whole_parts(
    sums: NDArray[np.float64], values: NDArray[np.float64], whole: NDArray[np.float64], bits: int
) -> None:
    """Add columns of scaled ``values`` (rows, columns) to sums of whole numbers, a part of ``bits`` after the other.

    ``sums`` is (parts, columns); ``values`` is used up, ``whole`` is room as large.
    """
    for part in sums:
        np.rint(values, out=whole)
        np.subtract(values, whole, out=values)
        np.multiply(values, 2.0**bits, out=values)
        for row in whole if len(whole) < 8 else [whole.sum(axis=0)]:
            np.add(part, row, out=part)


def exponents(sizes: NDArray[np.float64]) -> NDArray[np.int32]:
    """For each pair and column an exponent e with |product| ≤ 2^e, from the sizes (2, columns)."""
    _, each = np.frexp(sizes)
    return np.stack([each[i] + each[j] for i, j in _PAIRS]).astype(np.int32)


@op(
    "column_dots",
    locality="reduce",
    infer=_infer_dots,
    scratch_bytes=lambda specs, elements: 16 * span_elements(specs, elements),
    reduction=Reduction(_dots_spec, _dots_spec, add_up),
)
def column_dots(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    scratch: torch.Tensor,
    tile: Tile,
    *,
    columns: int,
    rows: int,
    **_: object,
) -> None:
    """Dot products of the columns of two tensors in two parts of whole numbers: inputs x_0, x_1, their sizes."""
    *parts, sizes = ins
    sums, bits = out.zero_().numpy().reshape(2, len(_PAIRS), columns), step_bits(rows)
    scales = np.ldexp(1.0, bits - exponents(sizes.numpy()))
    room = scratch.numpy().view(np.float64)
    for span in spans(tile, columns):
        cut, width = slice(span.start, span.stop), span.stop - span.start
        values, whole = room[: 2 * span.rows * width].reshape(2, span.rows, width)
        for pair, (i, j) in enumerate(_PAIRS):
            values[:] = span.of(parts[i].numpy())
            np.multiply(values, span.of(parts[j].numpy()), out=values)
            np.multiply(values, scales[pair, cut], out=values)
            add_whole_parts(sums[:, pair, cut], values, whole, bits)


# ------------------------------------------------------------------------------------------------ interpolation


def _infer_arcs(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "state", "column_arcs")
    return TensorSpec((2, specs[1].shape[1]), torch.float64, "state")


@op("column_arcs", locality="state", infer=_infer_arcs)
def column_arcs(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, t: float, rows: int
) -> None:
    """Coefficients of NuSLERP for each column, from the dot products in two parts and the sizes."""
    (high, low), sizes = ins[0].numpy(), ins[1].numpy()
    bits = step_bits(rows)
    dots = (high + low * 2.0**-bits) * np.ldexp(1.0, exponents(sizes) - bits)
    out.numpy()[:] = arc(dots, t)


def _infer_combine_columns(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs[:1], "state", "combine_columns' coefficients")
    require_space(specs[1:], specs[1].space, "combine_columns")
    if specs[0].shape != (len(specs) - 1, columns_of(specs[1])):
        raise GraphError("combine_columns takes coefficients for each of its inputs and columns")
    return same_shape(specs[1:], "combine_columns")


def _combine_columns_scratch_bytes(specs: Sequence[TensorSpec], elements: int) -> int:
    columns = specs[0].shape[1]
    return specs[1].dtype.itemsize * (specs[0].elements + min(elements, max(_SPAN_ELEMENTS, columns)))


@op("combine_columns", infer=_infer_combine_columns, scratch_bytes=_combine_columns_scratch_bytes)
def combine_columns(out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, tile: Tile) -> None:
    """Σ c_i·x_i with a coefficient for each column: coefficients (inputs, columns), then the inputs."""
    coefficients, *parts = ins
    result, columns = out.numpy(), coefficients.shape[1]
    room = scratch.numpy().view(result.dtype)
    factors, spare = room[: coefficients.numel()].reshape(coefficients.shape), room[coefficients.numel() :]
    factors[:] = coefficients.numpy()
    for span in spans(tile, columns):
        target, cut = span.of(result), slice(span.start, span.stop)
        product = spare[: target.size].reshape(target.shape)
        for index, x in enumerate(parts):
            np.multiply(span.of(x.numpy()), factors[index, cut], out=product if index else target)
            if index:
                np.add(target, product, out=target)
