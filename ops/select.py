"""Ops that keep the elements of a tensor that come first by magnitude, from what `ranks` has counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engine.opdef import REDUCE_BLOCK_ELEMENTS, DeviceForm, GraphError, Tile, op, require_space
from .digits import UNSIGNED, magnitude_bits
from .elementwise import is_zero, zeros
from .ranks import rank

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine.graph import Attr, Node, TensorSpec


def _infer_keep(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs[1:], "state", "keep_ranked's threshold")
    if len(specs) != 2 or specs[0].dtype not in UNSIGNED:
        raise GraphError("keep_ranked takes values and the rank up to which they are chosen")
    if not isinstance(attrs["descending"], bool) or not isinstance(attrs["rest"], bool):
        raise GraphError("keep_ranked takes a direction, and whether the rest is kept")
    return specs[0]


_FLOATS = {torch.float32: np.float32, torch.float64: np.float64}
_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


def _device_scratch_bytes(specs: Sequence[TensorSpec], elements: int) -> int:
    itemsize = specs[0].dtype.itemsize
    # A tile, and for a block: its values, their magnitudes, two counts and two flags an element.
    return elements * itemsize + min(elements, REDUCE_BLOCK_ELEMENTS) * (2 * itemsize + 2 * 4 + 2)


def _keep_ranked_on_device(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    scratch: torch.Tensor,
    tile: Tile,
    *,
    descending: bool,
    rest: bool,
) -> None:
    """The same without positions of ties, which would have to come back to the host: ties are counted instead."""
    x, chosen = ins
    bits = int(chosen[0])
    lo, hi, left = _split(chosen, tile)
    upper = out if descending != rest else scratch[: x.numel() * x.itemsize].view(x.dtype)
    room, block = scratch[x.numel() * x.itemsize :], hi - lo
    sizes = [block * size for size in (x.itemsize, x.itemsize, 4, 4, 1, 1)]
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    parts = [room[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    values, magnitudes = parts[0].view(x.dtype), parts[1].view(_INTEGERS[x.dtype])
    counts, spare = (part.view(torch.int32) for part in parts[2:4])
    taken, near = (part.view(torch.bool) for part in parts[4:])
    values.copy_(x[lo:hi])
    torch.bitwise_and(values.view(magnitudes.dtype), (1 << 8 * x.itemsize - 1) - 1, out=magnitudes)
    torch.eq(magnitudes, bits, out=taken)
    counts.copy_(taken)
    distance = 1
    while distance < block:
        # What is counted up to each element, over twice as many elements before it each time.
        spare.copy_(counts)
        counts[distance:].add_(spare[: block - distance])
        distance *= 2
    (torch.le if descending else torch.gt)(counts, left, out=near)
    taken.bitwise_and_(near)
    _above(x[:lo], bits, upper[:lo], ties=descending)
    _above(x[lo:hi], bits, upper[lo:hi], ties=False)
    _above(x[hi:], bits, upper[hi:], ties=not descending)
    torch.where(taken, values, upper[lo:hi], out=upper[lo:hi])
    if upper is not out:
        torch.sub(x, upper, out=out)


def _split(chosen: torch.Tensor, tile: Tile) -> tuple[int, int, int]:
    """Which part of a tile is the block some of whose ties are chosen, and how many: the first ones."""
    wanted, before = int(chosen[1]), chosen[2:].numpy()
    # Ties of lower index are chosen first: all in the blocks before one, some of its own, none in those after.
    split = int(np.searchsorted(before, wanted, side="right")) - 1
    lo, hi = (min(max(block * REDUCE_BLOCK_ELEMENTS - tile.lo, 0), tile.elements) for block in (split, split + 1))
    return lo, hi, wanted - int(before[split])


@op(
    "keep_ranked",
    infer=_infer_keep,
    scratch_bytes=lambda specs, elements: elements * specs[0].dtype.itemsize,
    inplace=(0,),
    device=DeviceForm(_keep_ranked_on_device, _device_scratch_bytes),
)
def keep_ranked(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    scratch: torch.Tensor,
    tile: Tile,
    *,
    descending: bool,
    rest: bool,
) -> None:
    """Keep the values whose magnitude comes first, up to a rank; or, with ``rest``, the others: inputs x, `rank`."""
    x, chosen = ins
    bits = int(chosen[0])
    lo, hi, left = _split(chosen, tile)
    ties = _ties(x[lo:hi], bits)
    taken = ties[:left] if descending else ties[left:]
    values = x[lo:hi][taken]
    # What has the large magnitudes is a comparison away; what has the small ones is the difference to that.
    upper = out if descending != rest else scratch.view(x.dtype)[: x.numel()]
    _above(x[:lo], bits, upper[:lo], ties=descending)
    _above(x[lo:hi], bits, upper[lo:hi], ties=False)
    _above(x[hi:], bits, upper[hi:], ties=not descending)
    upper[lo:hi][taken] = values
    if upper is not out:
        torch.sub(x, upper, out=out)


def _ties(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Where a part of at most a block has the magnitude with these bits, ascending."""
    magnitudes = np.empty(x.numel(), UNSIGNED[x.dtype])
    magnitude_bits(x, magnitudes)
    return torch.from_numpy(np.flatnonzero(magnitudes == bits))


def _above(x: torch.Tensor, bits: int, out: torch.Tensor, *, ties: bool) -> None:
    """The values above the magnitude with these bits, and those equal to it if ``ties``; the others zero."""
    # Below any magnitude where zeros are to be kept.
    everything = ties and bits == 0
    bound = -1.0 if everything else float(np.array(bits - ties, UNSIGNED[x.dtype]).view(_FLOATS[x.dtype]))
    torch.hardshrink(x, bound, out=out)


def keep_largest(x: Node, count: int) -> Node:
    """The ``count`` elements of largest magnitude, the others zero; of equals the lower index is kept."""
    if count >= x.spec.elements or is_zero(x):
        return x
    return zeros(x.spec) if count <= 0 else keep_ranked(x, rank(x, count, descending=True), descending=True, rest=False)


def drop_smallest(x: Node, count: int) -> Node:
    """All but the first ``count`` elements in ascending order of magnitude, the lower index first among equals."""
    if count <= 0 or is_zero(x):
        return x
    if count >= x.spec.elements:
        return zeros(x.spec)
    return keep_ranked(x, rank(x, count, descending=False), descending=False, rest=True)
