"""Ops that keep the elements of a tensor that come first by magnitude, from what `ranks` has counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engine.opdef import REDUCE_BLOCK_ELEMENTS, GraphError, Tile, op, require_space
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


@op(
    "keep_ranked",
    infer=_infer_keep,
    scratch_bytes=lambda specs, elements: elements * specs[0].dtype.itemsize,
    inplace=(0,),
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
    bits, wanted, before = int(chosen[0]), int(chosen[1]), chosen[2:].numpy()
    # Ties of lower index are chosen first: all in the blocks before one, some of its own, none in those after.
    split = int(np.searchsorted(before, wanted, side="right")) - 1
    lo, hi = (min(max(block * REDUCE_BLOCK_ELEMENTS - tile.lo, 0), tile.elements) for block in (split, split + 1))
    ties = _ties(x[lo:hi], bits)
    left = wanted - int(before[split])
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
    if ties and bits == 0:
        bound = -1.0  # below any magnitude
    else:
        kind = UNSIGNED[x.dtype]
        bound = float(np.array(bits - ties, kind).view(x.numpy().dtype))
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
