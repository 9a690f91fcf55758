"""Gram coordinates: what stays in the span of the inputs is worked out on their dot products alone.

One pass gathers ⟨x_i, x_j⟩, a state op turns these K(K+1)/2 numbers into coefficients, and one pass applies
Σ c_i·x_i. Products of float32 are exact in float64, and they are added in an order that only the place in a block
decides.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engine.graph import Attr, TensorSpec
from ..engine.opdef import GraphError, Reduction, Tile, op, require_space, same_shape
from .reduce import halving_tree_, place_blocks, power_of_two_at_least, sum_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypeAlias

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

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
    """How many partial sums of a dot product run side by side: as many as stay in a core's cache, a power of two."""
    lanes = _MOST_LANES
    while lanes > _LEAST_LANES and _lane_bytes(inputs) * lanes > _CACHED_BYTES:
        lanes //= 2
    return lanes


def _lane_bytes(inputs: int) -> int:
    """Bytes of a lane: an element of each input, a product, and the sums of all pairs."""
    return 8 * (inputs + 1 + pair_count(inputs))


def dots_scratch_bytes(inputs: int) -> int:
    """Scratch that `block_dots` needs, for blocks of any size."""
    return _lane_bytes(inputs) * _lanes(inputs)


def block_dots(out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, block_elements: int) -> None:
    """Dot products of every pair of inputs within each block, float64.

    ``out`` is (blocks, pairs); the last block may be short. A block's numbers depend on its elements alone.
    """
    memory = scratch[: dots_scratch_bytes(len(ins))].numpy().view(np.float64)
    most_lanes = _lanes(len(ins))
    wide, sums = np.split(memory, [(len(ins) + 1) * most_lanes])
    arrays = [x.numpy() for x in ins]
    elements = ins[0].numel()
    whole = elements // block_elements
    group = max(most_lanes // power_of_two_at_least(block_elements), 1)
    for first in range(0, whole, group):
        count = min(group, whole - first)
        cut = slice(first * block_elements, (first + count) * block_elements)
        _dots([x[cut].reshape(count, block_elements) for x in arrays], wide, sums, out[first : first + count])
    if elements > whole * block_elements:
        _dots([x[whole * block_elements :].reshape(1, -1) for x in arrays], wide, sums, out[whole : whole + 1])
    if not elements:
        out.zero_()


def _dots(blocks: Sequence[NDArray[Any]], wide: Floats, sums: Floats, out: torch.Tensor) -> None:
    """Dot products of a few blocks at once: element i of a block goes to lane i modulo the lanes, in order."""
    count, elements = blocks[0].shape
    lanes = min(power_of_two_at_least(elements), _lanes(len(blocks)))
    pairs = pairs_of(len(blocks))
    table = sums[: len(pairs) * count * lanes].reshape(len(pairs), count, lanes)
    table.fill(0)
    for start in range(0, elements, lanes):
        width = min(lanes, elements - start)
        *parts, product = wide[: (len(blocks) + 1) * count * width].reshape(-1, count, width)
        for part, block in zip(parts, blocks, strict=True):
            part[:] = block[:, start : start + width]
        for (i, j), lane in zip(pairs, table[:, :, :width], strict=True):
            np.multiply(parts[i], parts[j], out=product)
            np.add(lane, product, out=lane)
    added = torch.from_numpy(table).permute(2, 1, 0)
    halving_tree_(added)
    out.copy_(added[0])


# ------------------------------------------------------------------------------------------------ gram


def _infer_gram(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    if same_shape(specs, "gram").dtype not in (torch.float32, torch.float64) or specs[0].space == "state":
        raise GraphError("gram takes float32 or float64 elements")
    return TensorSpec((pair_count(len(specs)),), torch.float64, "state")


def _blocks_spec(specs: Sequence[TensorSpec], elements: int, block_elements: int) -> TensorSpec:
    return TensorSpec((max(-(-elements // block_elements), 1), pair_count(len(specs))), torch.float64, "state")


@op(
    "gram",
    locality="reduce",
    infer=_infer_gram,
    scratch_bytes=lambda specs, _elements: dots_scratch_bytes(len(specs)),
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
