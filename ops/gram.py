"""Gram coordinates: what stays in the span of the inputs is worked out on their dot products alone.

One pass gathers ⟨x_i, x_j⟩, a state op turns these K(K+1)/2 numbers into coefficients, and one pass applies
Σ c_i·x_i. Products of float32 are exact in float64, and they are added in an order that only the place in a block
decides.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch

from ..engine.graph import Attr, TensorSpec
from ..engine.opdef import REDUCE_BLOCK_ELEMENTS, GraphError, Reduction, Tile, op, require_space, same_shape
from .reduce import block_count, halving_tree_, place_blocks, power_of_two_at_least, sum_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

_LARGE_ELEMENTS = 1 << 15
"""From here on blocks are multiplied as matrices; smaller ones, rows mostly, in lanes and many at once."""

_BLOCK_LANES = 1 << 11
"""Partial sums of a block's dot product that run side by side; part of the result's definition, for its last bits."""

_MOST_LANES = 1 << 14
_LEAST_LANES = 1 << 12
_CACHED_BYTES = 1 << 20


def pair_count(inputs: int) -> int:
    """How many dot products so many inputs have, those with themselves among them."""
    return inputs * (inputs + 1) // 2


def input_count(pairs: int) -> int:
    """How many inputs have so many dot products."""
    return (math.isqrt(8 * pairs + 1) - 1) // 2


def pairs_of(inputs: int) -> list[tuple[int, int]]:
    """The pairs of inputs in the order of their dot products: (0, 0), (0, 1), …, (1, 1), …"""
    return list(itertools.combinations_with_replacement(range(inputs), 2))


def _lanes(inputs: int) -> int:
    """How many lanes, of several blocks, run side by side: as many as stay in a core's cache, a power of two."""
    lanes = _MOST_LANES
    while lanes > _LEAST_LANES and _lane_bytes(inputs) * lanes > _CACHED_BYTES:
        lanes //= 2
    return lanes


def _block_lanes(elements: int) -> int:
    return min(power_of_two_at_least(elements), _BLOCK_LANES)


def _lane_bytes(inputs: int) -> int:
    """Bytes of a lane: an element of each input, a product, and the sums of all pairs."""
    return 8 * (inputs + 1 + pair_count(inputs))


def dots_scratch_bytes(inputs: int, block_elements: int) -> int:
    """Scratch that `block_dots` needs for blocks of so many elements."""
    if block_elements >= _LARGE_ELEMENTS:
        return 8 * inputs * block_elements
    return _lane_bytes(inputs) * _lanes(inputs)


def block_dots(out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, block_elements: int) -> None:
    """Dot products of every pair of inputs within each block, float64.

    ``out`` is (blocks, pairs); the last block may be short. A block's numbers depend on its elements alone.
    """
    memory = scratch.view(torch.float64)
    if block_elements >= _LARGE_ELEMENTS:
        _large_dots(out, ins, memory, block_elements)
        return
    most_lanes = _lanes(len(ins))
    wide, sums = memory[: (len(ins) + 1) * most_lanes], memory[(len(ins) + 1) * most_lanes :]
    elements = ins[0].numel()
    whole = elements // block_elements
    group = max(most_lanes // _block_lanes(block_elements), 1)
    for first in range(0, whole, group):
        count = min(group, whole - first)
        cut = slice(first * block_elements, (first + count) * block_elements)
        _dots([x[cut].view(count, block_elements) for x in ins], wide, sums, out[first : first + count])
    if elements > whole * block_elements:
        _dots([x[whole * block_elements :].view(1, -1) for x in ins], wide, sums, out[whole : whole + 1])
    if not elements:
        out.zero_()


def _large_dots(out: torch.Tensor, ins: Sequence[torch.Tensor], memory: torch.Tensor, block_elements: int) -> None:
    """Dot products of large blocks, each by one product of matrices: few calls, so that workers seldom wait.

    The order of a product's sums is the linear algebra library's, which the shape and the processor decide.
    """
    firsts, seconds = (list(each) for each in zip(*pairs_of(len(ins)), strict=True))
    for block, start in enumerate(range(0, ins[0].numel(), block_elements)):
        parts = [x[start : start + block_elements] for x in ins]
        wide = memory[: len(ins) * parts[0].numel()].view(len(ins), -1)
        for row, part in zip(wide, parts, strict=True):
            row.copy_(part)
        out[block] = torch.mm(wide, wide.mT)[firsts, seconds]
    if not ins[0].numel():
        out.zero_()


def _dots(blocks: Sequence[torch.Tensor], wide: torch.Tensor, sums: torch.Tensor, out: torch.Tensor) -> None:
    """Dot products of a few blocks at once: element i of a block goes to lane i modulo the lanes, in order."""
    count, elements = blocks[0].shape
    lanes = _block_lanes(elements)
    pairs = pairs_of(len(blocks))
    table = sums[: len(pairs) * count * lanes].view(len(pairs), count, lanes).zero_()
    # Products of float32 are exact, so that a fused step rounds as two do: once, in the sum.
    exact = blocks[0].dtype == torch.float32
    width = 0
    for chunk in zip(*(torch.split(block, lanes, dim=1) for block in blocks), strict=True):
        if chunk[0].shape[1] != width:
            # Views cost as much as what is done with them: they are made once, and once more for a short end.
            width = chunk[0].shape[1]
            *parts, product = wide[: (len(blocks) + 1) * count * width].view(-1, count, width).unbind()
            steps = [(lane, parts[i], parts[j]) for (i, j), lane in zip(pairs, table[:, :, :width], strict=True)]
        for part, values in zip(parts, chunk, strict=True):
            part.copy_(values)
        for lane, one, other in steps:
            if exact:
                lane.addcmul_(one, other)
            else:
                lane.add_(torch.mul(one, other, out=product))
    added = table.permute(2, 1, 0)
    halving_tree_(added)
    out.copy_(added[0])


# ------------------------------------------------------------------------------------------------ gram


def _infer_gram(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    if same_shape(specs, "gram").dtype not in (torch.float32, torch.float64) or specs[0].space == "state":
        raise GraphError("gram takes float32 or float64 elements")
    return TensorSpec((pair_count(len(specs)),), torch.float64, "state")


def _gram_scratch_bytes(specs: Sequence[TensorSpec], elements: int) -> int:
    # A pass has blocks of this size, or larger ones where a row is larger; or of a row, if another op wants that.
    large_bytes = 8 * len(specs) * min(elements, max(REDUCE_BLOCK_ELEMENTS, specs[0].row_elements))
    return max(large_bytes, dots_scratch_bytes(len(specs), 1))


def _blocks_spec(specs: Sequence[TensorSpec], elements: int, block_elements: int) -> TensorSpec:
    return TensorSpec((block_count(elements, block_elements), pair_count(len(specs))), torch.float64, "state")


@op(
    "gram",
    locality="reduce",
    infer=_infer_gram,
    scratch_bytes=_gram_scratch_bytes,
    reduction=Reduction(_blocks_spec, _blocks_spec, place_blocks, sum_blocks),
)
def gram(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, block_elements: int
) -> None:
    """The dot products ⟨x_i, x_j⟩, i ≤ j, in float64."""
    block_dots(out.view(-1, pair_count(len(ins))), ins, scratch, block_elements)


# ------------------------------------------------------------------------------------------------ combine


def _infer_combine(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    coefficients, *parts = specs
    require_space([coefficients], "state", "combine's coefficients")
    if not parts or coefficients.shape != (len(parts),):
        raise GraphError("combine takes a coefficient for each of its inputs")
    require_space(parts, parts[0].space, "combine")
    if parts[0].space not in ("weight", "delta"):
        raise GraphError("combine takes weights or deltas")
    return same_shape(parts, "combine")


def _combine_scratch_bytes(specs: Sequence[TensorSpec], elements: int) -> int:
    return elements * specs[1].dtype.itemsize if len(specs) > 2 else 0


@op("combine", infer=_infer_combine, scratch_bytes=_combine_scratch_bytes, inplace=(1,))
def combine(out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile) -> None:
    """Σ c_i·x_i in the order of the inputs: coefficients, then x_1 to x_K."""
    coefficients, first, *others = ins
    factors = coefficients.tolist()
    torch.mul(first, factors[0], out=out)
    for factor, x in zip(factors[1:], others, strict=True):
        part = scratch[: x.numel() * x.itemsize].view(x.dtype)
        torch.mul(x, factor, out=part)
        torch.add(out, part, out=out)
