"""Rows of vocabulary tensors that a model does not have: taken from others, from their mean, or from an average.

An average over a vocabulary is the same for any tiles because its sums are exact; see `columns`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engine.graph import Attr, TensorSpec
from ..engine.opdef import GraphError, Reduction, Tile, op, require_space, same_shape
from ..engine.row_map import RowTable
from .columns import Span, add_whole_parts, columns_of, span_elements, spans, step_bits
from .reduce import add_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

_PARTS = 2


def _row_elements(spec: TensorSpec, attrs: Mapping[str, Attr]) -> int:
    rows = attrs["rows"]
    if not isinstance(rows, RowTable) or spec.elements % max(len(rows.values), 1):
        raise GraphError(f"{list(spec.shape)} has no such rows")
    return spec.elements // max(len(rows.values), 1)


def _infer_rows(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    spec = same_shape(specs, "rows")
    _row_elements(spec, attrs)
    if spec.dtype not in (torch.float32, torch.float64):
        raise GraphError(f"rows are put together in float32 or float64, not in {spec.dtype}")
    return spec


@op("put_rows", infer=_infer_rows, inplace=(0,))
def put_rows(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, tile: Tile, *, rows: RowTable, columns: int
) -> None:
    """The first input with some rows of the second: those that are not 0 in ``rows``."""
    x, other = ins
    source = other.numpy()
    for span, result, chosen in _chosen(out, x, tile, rows, columns):
        result[chosen] = span.of(source)[chosen]


def _chosen(
    out: torch.Tensor, x: torch.Tensor, tile: Tile, rows: RowTable, columns: int
) -> Iterator[tuple[Span, NDArray[Any], NDArray[np.intp]]]:
    """The parts of ``out``, a copy of ``x``, where ``rows`` is not 0 everywhere, with the numbers of those rows."""
    if out is not x:
        out.copy_(x)
    result = out.numpy()
    for span in spans(tile, columns):
        first = (tile.lo + span.offset) // columns
        chosen = np.flatnonzero(rows.values[first : first + span.rows])
        if chosen.size:
            yield span, span.of(result), chosen


@op("divide_rows", infer=_infer_rows, inplace=(0,))
def divide_rows(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, tile: Tile, *, rows: RowTable, columns: int
) -> None:
    """Each row divided by its number in ``rows``, with 0 for 1."""
    (x,) = ins
    source, result = x.numpy(), out.numpy()
    for span in spans(tile, columns):
        first = (tile.lo + span.offset) // columns
        divisors = np.maximum(rows.values[first : first + span.rows], 1).astype(result.dtype)
        np.divide(span.of(source), divisors[:, None], out=span.of(result))


# ------------------------------------------------------------------------------------------------ averages


def _infer_sums(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs[1:], "state", "column_sums' sizes")
    if len(specs) != 2 or attrs["columns"] != columns_of(specs[0]) or specs[1].shape != (1, columns_of(specs[0])):
        raise GraphError("column_sums takes a tensor and the sizes of its columns")
    return _sums_spec(specs, specs[0].elements, 1)


def _sums_spec(specs: Sequence[TensorSpec], _elements: int, _block_elements: int) -> TensorSpec:
    return TensorSpec((_PARTS, columns_of(specs[0])), torch.float64, "state")


@op(
    "column_sums",
    locality="reduce",
    infer=_infer_sums,
    scratch_bytes=lambda specs, elements: 16 * span_elements(specs, elements),
    reduction=Reduction(_sums_spec, _sums_spec, add_up),
)
def column_sums(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    scratch: torch.Tensor,
    tile: Tile,
    *,
    columns: int,
    rows: int,
    **_: object,
) -> None:
    """Sums of a tensor's columns over its first ``rows`` rows, in two parts of whole numbers: the tensor, its sizes."""
    x, sizes = ins
    sums, bits = out.zero_().numpy().reshape(_PARTS, columns), step_bits(rows)
    scales, data = np.ldexp(1.0, bits - np.frexp(sizes.numpy()[0])[1]), x.numpy()
    room = scratch.numpy().view(np.float64)
    for span in spans(Tile(tile.lo, max(min(tile.hi, rows * columns), tile.lo)), columns):
        cut, width = slice(span.start, span.stop), span.stop - span.start
        values, whole = room[: 2 * span.rows * width].reshape(2, span.rows, width)
        np.multiply(span.of(data), scales[cut], out=values)
        add_whole_parts(sums[:, cut], values, whole, bits)


def _infer_means(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "state", "column_means")
    return TensorSpec(specs[1].shape[1:], torch.float64, "state")


@op("column_means", locality="state", infer=_infer_means)
def column_means(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, rows: int
) -> None:
    """Means of columns, from their sums in two parts and their sizes."""
    (high, low), (sizes,) = ins[0].numpy(), ins[1].numpy()
    bits = step_bits(rows)
    out.numpy()[:] = (high + low * 2.0**-bits) * np.ldexp(1.0, np.frexp(sizes)[1] - bits) / max(rows, 1)


def _infer_put_means(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs[1:], "state", "put_means' means")
    if specs[1].shape != (_row_elements(specs[0], attrs),):
        raise GraphError("put_means takes a tensor and a mean for each of its columns")
    return _infer_rows(specs[:1], attrs)


@op("put_means", infer=_infer_put_means, inplace=(0,))
def put_means(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, tile: Tile, *, rows: RowTable, columns: int
) -> None:
    """A tensor with the columns' means in those rows that are not 0 in ``rows``."""
    x, means = ins
    for span, result, chosen in _chosen(out, x, tile, rows, columns):
        result[chosen] = means.numpy()[span.start : span.stop]
