"""NaN and infinity: found where a tile is read, named by model, tensor and place, or let through on request.

One NaN in an input makes a whole tensor NaN where a norm is taken of it, and a model with it is worth nothing. So
every tile that arithmetic reads is looked at, once, while it is in the cache. Copies are not looked into.

What always reaches the result is looked for there: one walk over what is written instead of one over each input, and
it finds what became too large for the output, too. Only where that walk finds something is the tile computed once
more, with a look into every input, which tells the one from the other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from .errors import NonfiniteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .graph import Node
    from .model import StoredTensor
    from .tiling import Pass

_CHUNK_ELEMENTS = 1 << 14
"""Where something was found, a tile is gone through in pieces: masks of a tile's size are not in the plan."""

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_QUIET_NAN = {
    torch.bfloat16: 0x7FC0,
    torch.float16: 0x7E00,
    torch.float32: 0x7FC00000,
    torch.float64: 0x7FF8000000000000,
}


def looked_into(passes: Sequence[Pass], index: int) -> frozenset[Node]:
    """The loads that one of a program's passes looks into: those that no pass before it has read in full.

    As early as can be, so that no threshold or norm is made of NaN before anybody says so; and once, because it
    costs a walk over the tile. What the output of the pass tells of is left out.
    """
    # A pass that reads a sample, or that may be left out, looks too, and leaves the load to the next all the same.
    seen = {load for each in passes[:index] if not (each.sampled or each.optional) for load in each.loads}
    return frozenset(load for load in passes[index].loads if load not in seen | told_by_output(passes[index]))


def told_by_output(current: Pass) -> frozenset[Node]:
    """The loads of a pass whose NaN and infinity are NaN or infinity in what it writes, at the same place.

    Those that a chain of ops leads from to the write which all keep them.
    """
    told = {source for node in current.nodes if node.op.name == "write" for source in node.inputs}
    for node in reversed(current.nodes):
        if node in told and node.op.keeps_nonfinite(node):
            told.update(node.inputs)
    return frozenset(load for load in current.loads if load in told)


def all_finite(x: torch.Tensor) -> bool:
    """Whether a 1-D tensor of floats has neither NaN nor infinity; allocates two numbers.

    A sum keeps NaN and infinity, whatever is added to them, and is the fastest walk there is: 0.06 ns an element in
    16 and 32 bits, half of what the extremes cost. It may overflow without either, and then the extremes decide.
    """
    if math.isfinite(torch.sum(x).item()) or not x.numel():
        return True
    low, high = torch.aminmax(x)
    return math.isfinite(low.item()) and math.isfinite(high.item())


def refuse(tensor: StoredTensor, x: torch.Tensor, first: int) -> NonfiniteError:
    """What is wrong with a tile of a stored tensor that is not all finite; ``first`` is its first flat element."""
    position = next(
        lo + int(bad.nonzero()[0].item())
        for lo in range(0, x.numel(), _CHUNK_ELEMENTS)
        if bool((bad := ~torch.isfinite(x[lo : lo + _CHUNK_ELEMENTS])).any())
    )
    value = float(x[position].item())
    what = "NaN" if math.isnan(value) else "infinity" if value > 0 else "-infinity"
    place: list[int] = []
    rest = first + position
    for extent in reversed(tensor.spec.shape):
        rest, index = divmod(rest, extent)
        place.insert(0, index)
    return NonfiniteError(
        f"{tensor.model}: {tensor.name} {list(tensor.spec.shape)} holds {what} at {place}; "
        "mend the model, or let NaN and infinity through with --allow-nonfinite"
    )


def canonical(x: torch.Tensor) -> None:
    """Make every NaN of a 1-D tensor the same one, in place.

    A NaN has a sign and a payload. What becomes of them is up to the processor and to whether an element is in the
    vector body or in the tail of a loop, so they would tell where a tile ended.
    """
    bits = x.view(_BITS[x.dtype.itemsize])
    for lo in range(0, x.numel(), _CHUNK_ELEMENTS):
        part = slice(lo, lo + _CHUNK_ELEMENTS)
        bits[part].masked_fill_(torch.isnan(x[part]), _QUIET_NAN[x.dtype])


class Overflows:
    """How many elements of a tile became infinity on the way to the output: ``count``.

    Those that are infinity there, and at whose place no input of the pass has NaN or infinity.
    """

    def __init__(self, elements: int) -> None:
        self.count = 0
        self._excused = np.zeros(-(-elements // 8), np.uint8)  # a bit an element

    def excuse(self, x: torch.Tensor) -> None:
        """What an input has NaN or infinity at does not count."""
        for lo in range(0, x.numel(), _CHUNK_ELEMENTS):
            bits = np.packbits(~torch.isfinite(x[lo : lo + _CHUNK_ELEMENTS]).numpy())
            self._excused[lo // 8 : lo // 8 + len(bits)] |= bits

    def add(self, out: torch.Tensor) -> None:
        """Count in the output."""
        for lo in range(0, out.numel(), _CHUNK_ELEMENTS):
            infinite = torch.isinf(out[lo : lo + _CHUNK_ELEMENTS]).numpy()
            excused = np.unpackbits(self._excused[lo // 8 :], count=len(infinite))
            self.count += int(np.count_nonzero(infinite & ~excused.view(bool)))
