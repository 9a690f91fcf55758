"""Means of rows: each row of the last dimension is a vector of its own, and a tile holds whole rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engine.opdef import GraphError, Tile, op, same_shape
from .arcs import arc
from .gram import block_dots, dots_scratch_bytes, pair_count
from .stock import stock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..engine.graph import Attr, TensorSpec
    from .gram import Floats

_GROUP_ELEMENTS = 1 << 14
"""Elements of the rows that are treated at once: they stay in a core's cache from the sums to the result."""


def _infer_rows(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    spec = same_shape(specs, "a mean of rows")
    if spec.dtype not in (torch.float32, torch.float64) or spec.space not in ("weight", "delta"):
        raise GraphError("means of rows take float32 or float64 weights or deltas")
    if any(other.space != spec.space for other in specs):
        raise GraphError("means of rows take either weights or deltas")
    if attrs["row_elements"] != spec.row_elements:
        raise GraphError(f"rows have {spec.row_elements} elements, not {attrs['row_elements']}")
    return spec


def _group_rows(row_elements: int) -> int:
    return max(_GROUP_ELEMENTS // max(row_elements, 1), 1)


def _rows_scratch_bytes(specs: Sequence[TensorSpec], _elements: int) -> int:
    rows = _group_rows(specs[0].row_elements)
    # Dot products, their working room, and one product of a group.
    return dots_scratch_bytes(len(specs), specs[0].row_elements) + 8 * rows * (
        pair_count(len(specs)) + specs[0].row_elements
    )


def _mean_of_rows(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    scratch: torch.Tensor,
    row_elements: int,
    coefficients: Callable[[Floats], Floats],
) -> None:
    """Σ c_i·x_i with coefficients (inputs, rows) from the dot products (pairs, rows) of each row."""
    room_bytes = dots_scratch_bytes(len(ins), row_elements)
    room, rest = scratch[:room_bytes], scratch[room_bytes:]
    pairs, most_rows = pair_count(len(ins)), _group_rows(row_elements)
    table = rest[: 8 * pairs * most_rows].view(torch.float64)
    spare = rest[8 * pairs * most_rows :].view(out.dtype).numpy()
    step = most_rows * row_elements
    for start in range(0, out.numel(), max(step, 1)):
        group = [x[start : start + step] for x in ins]
        rows = group[0].numel() // row_elements
        dots = table[: pairs * rows].view(rows, pairs)
        block_dots(dots, group, room, row_elements)
        factors = coefficients(np.ascontiguousarray(dots.numpy().T)).astype(out.numpy().dtype)
        result = out[start : start + step].numpy().reshape(rows, row_elements)
        product = spare[: rows * row_elements].reshape(rows, row_elements)
        for index, (x, factor) in enumerate(zip(group, factors, strict=True)):
            values = x.numpy().reshape(rows, row_elements)
            np.multiply(values, factor[:, None], out=product if index else result)
            if index:
                np.add(result, product, out=result)


@op("row_slerp", locality="row", infer=_infer_rows, scratch_bytes=_rows_scratch_bytes)
def row_slerp(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    scratch: torch.Tensor,
    _tile: Tile,
    *,
    t: float,
    row_elements: int,
) -> None:
    """NuSLERP of each row of two tensors, at ``t`` from the first to the second."""
    _mean_of_rows(out, ins, scratch, row_elements, lambda dots: arc(dots, t))


@op("row_stock", locality="row", infer=_infer_rows, scratch_bytes=_rows_scratch_bytes)
def row_stock(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, row_elements: int
) -> None:
    """Model Stock's task vector t·mean(Δ), with a ratio t for each row."""
    _mean_of_rows(out, ins, scratch, row_elements, stock)
