"""Which elements are not zero, a bit each, kept from one pass to the next: for what costs more than to read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engine.graph import Attr, TensorSpec
from ..engine.opdef import GraphError, Reduction, Tile, op, require_space, row_block_elements
from .elementwise import is_zero
from .reduce import block_count, place_blocks
from .scratch import carve, carved_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine.graph import Node


def _block_bytes(block_elements: int) -> int:
    return -(-block_elements // 8)


def _marks_spec(_specs: Sequence[TensorSpec], elements: int, block_elements: int) -> TensorSpec:
    return TensorSpec((block_count(elements, block_elements), _block_bytes(block_elements)), torch.uint8, "state")


def _infer_marks(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "delta", "marks")
    return _marks_spec(specs, specs[0].elements, row_block_elements(specs[0].row_elements))


@op(
    "marks",
    locality="reduce",
    infer=_infer_marks,
    scratch_bytes=lambda _specs, elements: carved_bytes((np.bool_, elements)),
    reduction=Reduction(_marks_spec, _marks_spec, place_blocks),
)
def marks(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, block_elements: int
) -> None:
    """A bit for each element that is not zero, the first in the highest bit of a byte: (blocks, bytes a block).

    Blocks are those of a pass over rows.
    """
    x = ins[0].numpy()
    (flags,) = carve(scratch, (np.bool_, len(x)))
    np.not_equal(x, 0, out=flags)
    rows = out.view(-1, _block_bytes(block_elements)).numpy()
    rows[-1] = 0
    for row, start in zip(rows, range(0, len(x), block_elements), strict=False):
        packed = np.packbits(flags[start : start + block_elements])
        row[: len(packed)] = packed


def _infer_keep_marked(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs[:1], "delta", "keep_marked")
    require_space(specs[1:], "state", "keep_marked's marks")
    if _infer_marks(specs[:1], {}) != specs[1] or attrs["row_elements"] != specs[0].row_elements:
        raise GraphError("keep_marked takes a task vector and the marks of one like it")
    return specs[0]


@op(
    "keep_marked",
    locality="row",
    infer=_infer_keep_marked,
    inplace=(0,),
    leaner=lambda inputs: inputs[1].inputs[0],
    simplify=lambda inputs, _attrs: inputs[0] if is_zero(inputs[0]) else None,
)
def keep_marked(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, tile: Tile, *, row_elements: int
) -> None:
    """Keep the elements that are marked, the others become zero; tiles begin where blocks of marks do."""
    x, bits, block = ins[0].numpy(), ins[1].numpy(), row_block_elements(row_elements)
    for start in range(0, len(x), block):
        part = slice(start, start + block)
        kept = np.unpackbits(bits[(tile.lo + start) // block], count=len(x[part])).view(np.bool_)
        # A product and not a masked copy: a random mask makes branches unpredictable.
        np.multiply(x[part], kept, out=out.numpy()[part])


def as_marked(delta: Node, kept: Node) -> Node:
    """What was kept of a task vector, told by marks in a later pass, where to find it out again by rows costs more."""
    if kept.op.locality != "row":
        return kept
    return keep_marked(delta, marks(kept), row_elements=delta.spec.row_elements)
