"""Reductions: sums that are the same to the last bit for any tile size, order and number of workers.

A tensor is cut into fixed blocks. The elements of a block are added in float64 by a fixed halving tree, and so
are the blocks' sums; where a tile starts and which worker took it cannot be seen in the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..engine.graph import Attr, TensorSpec
from ..engine.opdef import GraphError, Reduction, Tile, op

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def halving_tree_(values: torch.Tensor) -> None:
    """Add up 1-D float64 ``values`` into their first element; the length must be a power of two."""
    half = values.numel() // 2
    while half:
        values[:half].add_(values[half : 2 * half])
        half //= 2


def power_of_two_at_least(count: int) -> int:
    """The least power of two that is not below ``count``; 1 for zero."""
    return 1 << max(count - 1, 0).bit_length()


def _blocks_spec(_specs: Sequence[TensorSpec], elements: int, block_elements: int) -> TensorSpec:
    return TensorSpec((max(-(-elements // block_elements), 1),), torch.float64, "state")


def _place_blocks(state: torch.Tensor, partial: torch.Tensor, tile: Tile, block_elements: int) -> None:
    first = tile.lo // block_elements
    count = -(-tile.elements // block_elements)
    state[first : first + count] = partial[:count]


def _sum_blocks(state: torch.Tensor, out: torch.Tensor) -> None:
    padded = torch.zeros(power_of_two_at_least(state.numel()), dtype=torch.float64)
    padded[: state.numel()] = state
    halving_tree_(padded)
    out[0] = padded[0]


BLOCK_SUMS = Reduction(_blocks_spec, _blocks_spec, _place_blocks, _sum_blocks)
"""One float64 a block; the result is their sum, shape [1]."""


def _infer_sum(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    if not specs[0].dtype.is_floating_point or specs[0].space == "state":
        raise GraphError("a sum takes floating-point elements")
    return TensorSpec((1,), torch.float64, "state")


def _sum_scratch_bytes(specs: Sequence[TensorSpec], elements: int) -> int:
    # A block at a time; rows may be longer than the usual block.
    largest_block = max(1 << 16, specs[0].row_elements)
    return 8 * power_of_two_at_least(min(elements, largest_block))


@op("abs_sum", locality="reduce", infer=_infer_sum, scratch_bytes=_sum_scratch_bytes, reduction=BLOCK_SUMS)
def abs_sum(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, block_elements: int
) -> None:
    """The L1 norm Σ|x| in float64."""
    (x,) = ins
    for block, start in enumerate(range(0, x.numel(), block_elements)):
        part = x[start : start + block_elements]
        size = power_of_two_at_least(part.numel())
        wide = scratch[: 8 * size].view(torch.float64)
        wide[part.numel() :].zero_()
        wide[: part.numel()].copy_(part)
        wide.abs_()
        halving_tree_(wide)
        out[block] = wide[0]
    if x.numel() == 0:
        out.zero_()
