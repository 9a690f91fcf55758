"""Reductions: sums that are the same to the last bit for any tile size, order and number of workers.

A tensor is cut into fixed blocks. The elements of a block are added in float64 by a fixed halving tree, and so
are the blocks' sums; where a tile starts and which worker took it cannot be seen in the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engine.graph import Attr, TensorSpec
from ..engine.opdef import GraphError, Reduction, Tile, op

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def halving_tree_(values: torch.Tensor) -> None:
    """Add up float64 ``values`` along their first dimension, into the first; the length must be a power of two."""
    array = values.numpy()  # whose slices cost less than a tensor's
    half = len(array) // 2
    while half:
        np.add(array[:half], array[half : 2 * half], out=array[:half])
        half //= 2


def power_of_two_at_least(count: int) -> int:
    """The least power of two that is not below ``count``; 1 for zero."""
    return 1 << max(count - 1, 0).bit_length()


def block_count(elements: int, block_elements: int) -> int:
    """Blocks of so many elements, the last one perhaps short; one for an empty tensor."""
    return max(-(-elements // block_elements), 1)


def _blocks_spec(_specs: Sequence[TensorSpec], elements: int, block_elements: int) -> TensorSpec:
    return TensorSpec((block_count(elements, block_elements),), torch.float64, "state")


def add_up(state: torch.Tensor, partial: torch.Tensor, _tile: Tile, _block_elements: int) -> None:
    """Fold of what adds up exactly in any order: counts, and sums of whole numbers."""
    state.add_(partial.view(state.shape))


def place_blocks(state: torch.Tensor, partial: torch.Tensor, tile: Tile, block_elements: int) -> None:
    """Fold of what there is for each block: a tile's blocks go to their places."""
    first = tile.lo // block_elements
    count = -(-tile.elements // block_elements)
    state[first : first + count] = partial.view(-1, *state.shape[1:])[:count]


def sum_blocks(state: torch.Tensor, out: torch.Tensor) -> None:
    """Finish of sums per block: add the blocks up, each of a block's numbers on its own."""
    padded = torch.zeros((power_of_two_at_least(state.shape[0]), *state.shape[1:]), dtype=torch.float64)
    padded[: state.shape[0]] = state
    halving_tree_(padded)
    out.copy_(padded[0])


BLOCK_SUMS = Reduction(_blocks_spec, _blocks_spec, place_blocks, sum_blocks)
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
