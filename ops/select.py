"""The exact k-th largest magnitude of a tensor that is never held: radix selection over tiles.

The bits of |x| order like |x| itself. A pass counts the leading 16 bits, `locate` finds the one value of them that
holds the k-th element, and the next pass counts the following 16 bits of those elements alone, until all bits are
known. Elements equal to the threshold share what is left of k, the lower index first: they are counted per block,
so that a tile knows how many came before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..engine.graph import Attr, Node, TensorSpec
from ..engine.opdef import REDUCE_BLOCK_ELEMENTS, GraphError, Reduction, Tile, op, require_space
from .elementwise import is_zero, zeros
from .scratch import carve, carved_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

DIGIT_BITS = 16
_DIGIT_VALUES = 1 << DIGIT_BITS

_UNSIGNED: dict[torch.dtype, type[np.unsignedinteger[Any]]] = {torch.float32: np.uint32, torch.float64: np.uint64}


def _magnitude_bits(x: torch.Tensor, out: NDArray[Any]) -> None:
    """The bits of |x| as unsigned integers of the same width, which order like |x|."""
    sign_bit = 8 * x.dtype.itemsize - 1
    np.bitwise_and(x.numpy().view(out.dtype), out.dtype.type((1 << sign_bit) - 1), out=out)


# ------------------------------------------------------------------------------------------------ counting


def _infer_counts(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    if specs[0].dtype not in _UNSIGNED or specs[0].space == "state":
        raise GraphError(f"magnitudes are counted in float32 or float64, not in {specs[0].dtype}")
    if any(spec.space != "state" for spec in specs[1:]) or not isinstance(attrs["shift"], int):
        raise GraphError("digit_counts takes values, perhaps what was located so far, and a shift")
    return TensorSpec((_DIGIT_VALUES,), torch.int64, "state")


def _counts_spec(_specs: Sequence[TensorSpec], _elements: int, _block_elements: int) -> TensorSpec:
    return TensorSpec((_DIGIT_VALUES,), torch.int64, "state")


def _add_counts(state: torch.Tensor, partial: torch.Tensor, _tile: Tile, _block_elements: int) -> None:
    state.add_(partial)


def _as_is(state: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(state)


def _counts_scratch_bytes(specs: Sequence[TensorSpec], elements: int) -> int:
    # The last part is the table that bincount makes itself.
    return carved_bytes((_UNSIGNED[specs[0].dtype], elements), (np.int64, elements), (np.int64, _DIGIT_VALUES + 1))


@op(
    "digit_counts",
    locality="reduce",
    infer=_infer_counts,
    scratch_bytes=_counts_scratch_bytes,
    reduction=Reduction(_counts_spec, _counts_spec, _add_counts, _as_is),
)
def digit_counts(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, shift: int, **_: object
) -> None:
    """How often each 16-bit digit occurs at ``shift`` in the bits of |x|: inputs x and, perhaps, what is located.

    With a located threshold only elements that share its bits above the digit count.
    """
    x, *located = ins
    bits, indices = carve(scratch, (_UNSIGNED[x.dtype], x.numel()), (np.int64, x.numel()))
    _magnitude_bits(x, bits)
    if located:
        # The shared bits cancel; whatever differs in them stays above every digit and is counted apart.
        np.bitwise_xor(bits, bits.dtype.type(int(located[0][0])), out=bits)
    np.right_shift(bits, bits.dtype.type(shift), out=bits)
    np.minimum(bits, bits.dtype.type(_DIGIT_VALUES), out=bits)
    indices[:] = bits
    out.copy_(torch.from_numpy(np.bincount(indices, minlength=_DIGIT_VALUES + 1)[:_DIGIT_VALUES]))


# ------------------------------------------------------------------------------------------------ locating


def _infer_locate(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "state", "locate")
    if not isinstance(attrs["count"], int) or not isinstance(attrs["descending"], bool):
        raise GraphError("locate takes counts, perhaps what was located so far, a count and a direction")
    return TensorSpec((2,), torch.int64, "state")


@op("locate", locality="state", infer=_infer_locate)
def locate(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    _scratch: torch.Tensor,
    _tile: Tile,
    *,
    count: int,
    descending: bool,
    shift: int,
) -> None:
    """Narrow down the magnitude at rank ``count`` by one digit: its bits so far, and how many ties are chosen.

    Ranks count from 1, from the largest where ``descending``.
    """
    counts, *located = ins
    bits, wanted = (int(located[0][0]), int(located[0][1])) if located else (0, count)
    table = counts.numpy()
    running = np.cumsum(table[::-1] if descending else table)
    # At rank 0 nothing is chosen: no element is beyond the first, and none of its ties is wanted.
    position = min(int(np.searchsorted(running, max(wanted, 1))), _DIGIT_VALUES - 1)
    before = int(running[position - 1]) if position else 0
    digit = _DIGIT_VALUES - 1 - position if descending else position
    out[0] = bits | (digit << shift)
    out[1] = wanted - before


# ------------------------------------------------------------------------------------------------ ties


def _infer_ties(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs[1:], "state", "ties_before's threshold")
    return TensorSpec((_block_count(specs[0].elements, REDUCE_BLOCK_ELEMENTS),), torch.int64, "state")


def _block_count(elements: int, block_elements: int) -> int:
    return max(-(-elements // block_elements), 1)


def _blocks_spec(_specs: Sequence[TensorSpec], elements: int, block_elements: int) -> TensorSpec:
    return TensorSpec((_block_count(elements, block_elements),), torch.int64, "state")


def _place_blocks(state: torch.Tensor, partial: torch.Tensor, tile: Tile, block_elements: int) -> None:
    first = tile.lo // block_elements
    state[first : first + partial.numel()] = partial


def _sum_before(state: torch.Tensor, out: torch.Tensor) -> None:
    out[0] = 0
    torch.cumsum(state[:-1], 0, out=out[1:])


def _ties_scratch_bytes(specs: Sequence[TensorSpec], elements: int) -> int:
    return carved_bytes((_UNSIGNED[specs[0].dtype], elements), (np.bool_, elements))


@op(
    "ties_before",
    locality="reduce",
    infer=_infer_ties,
    scratch_bytes=_ties_scratch_bytes,
    reduction=Reduction(_blocks_spec, _blocks_spec, _place_blocks, _sum_before),
)
def ties_before(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, block_elements: int
) -> None:
    """For each block, how many elements of the blocks before it are equal to the threshold in magnitude."""
    x, located = ins
    bits, equal = carve(scratch, (_UNSIGNED[x.dtype], x.numel()), (np.bool_, x.numel()))
    _magnitude_bits(x, bits)
    np.equal(bits, bits.dtype.type(int(located[0])), out=equal)
    for block in range(out.numel()):
        out[block] = int(np.count_nonzero(equal[block * block_elements : (block + 1) * block_elements]))


# ------------------------------------------------------------------------------------------------ keeping


def _infer_keep(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs[2:], "state", "keep_ranked's threshold")
    if specs[0].shape != specs[1].shape or specs[1].dtype not in _UNSIGNED:
        raise GraphError("keep_ranked takes values, what ranks them, a threshold and the ties before each block")
    if not isinstance(attrs["descending"], bool) or not isinstance(attrs["rest"], bool):
        raise GraphError("keep_ranked takes a direction, and whether the rest is kept")
    return specs[0]


def _keep_scratch_bytes(specs: Sequence[TensorSpec], elements: int) -> int:
    # The last part is for the positions of the ties, which numpy makes itself.
    return carved_bytes(
        (_UNSIGNED[specs[1].dtype], elements), (np.bool_, elements), (np.bool_, elements), (np.int64, elements)
    )


@op("keep_ranked", infer=_infer_keep, scratch_bytes=_keep_scratch_bytes, inplace=(0,))
def keep_ranked(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    scratch: torch.Tensor,
    tile: Tile,
    *,
    descending: bool,
    rest: bool,
) -> None:
    """Keep the values whose ranking magnitude comes first, up to the located rank; or, with ``rest``, the others.

    Inputs: values, what ranks them, the located threshold, the ties before each block.
    """
    values, ranking, located, before = ins
    elements = ranking.numel()
    bits, chosen, equal = carve(
        scratch, (_UNSIGNED[ranking.dtype], elements), (np.bool_, elements), (np.bool_, elements)
    )
    threshold = bits.dtype.type(int(located[0]))
    _magnitude_bits(ranking, bits)
    (np.greater if descending else np.less)(bits, threshold, out=chosen)
    np.equal(bits, threshold, out=equal)
    left = int(located[1]) - int(before[tile.lo // REDUCE_BLOCK_ELEMENTS])
    if left > 0:
        ties = np.flatnonzero(equal)
        chosen[ties[:left]] = True
    if rest:
        np.logical_not(chosen, out=chosen)
    # A product and not a masked copy: a random mask makes branches unpredictable.
    np.multiply(values.numpy(), chosen, out=out.numpy())


# ------------------------------------------------------------------------------------------------ selections


def rank(ranking: Node, start: int | Node, *, descending: bool) -> Node:
    """State (bits of the magnitude at a rank, how many of its ties are chosen): a counting pass a digit.

    ``start`` is the rank, from 1, or a state (0, rank) where only the run can tell it. Ranks over the same values
    share their first pass.
    """
    count, states = (start, []) if isinstance(start, int) else (0, [start])
    counted: list[Node] = []
    for shift in range(8 * ranking.spec.dtype.itemsize - DIGIT_BITS, -1, -DIGIT_BITS):
        counts = digit_counts(ranking, *counted, shift=shift)
        states = counted = [locate(counts, *states, count=count, descending=descending, shift=shift)]
    return counted[0]


def keep_from(values: Node, ranking: Node, located: Node, *, descending: bool, rest: bool = False) -> Node:
    """Keep the values whose ranking comes first, up to a located `rank`; or, with ``rest``, the others."""
    return keep_ranked(values, ranking, located, ties_before(ranking, located), descending=descending, rest=rest)


def keep_largest(x: Node, count: int) -> Node:
    """The ``count`` elements of largest magnitude, the others zero; of equals the lower index is kept."""
    if count >= x.spec.elements or is_zero(x):
        return x
    return zeros(x.spec) if count <= 0 else keep_from(x, x, rank(x, count, descending=True), descending=True)


def keep_smallest(x: Node, ranking: Node, count: int) -> Node:
    """Of ``x`` the first ``count`` elements in ascending order of ``ranking``'s magnitude, the others zero."""
    if count >= x.spec.elements or is_zero(x):
        return x
    if count <= 0:
        return zeros(x.spec)
    return keep_from(x, ranking, rank(ranking, count, descending=False), descending=False)


def drop_smallest(x: Node, ranking: Node, count: int) -> Node:
    """Of ``x`` all but the first ``count`` elements in ascending order of ``ranking``'s magnitude."""
    if count <= 0 or is_zero(x):
        return x
    if count >= x.spec.elements:
        return zeros(x.spec)
    return keep_from(x, ranking, rank(ranking, count, descending=False), descending=False, rest=True)
