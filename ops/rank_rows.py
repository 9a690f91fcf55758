"""Random dropping by rank: in each row, the larger an element the more likely it is kept.

Rows are sorted by 16-bit digits of their magnitudes, for which numpy has a stable radix sort: equal magnitudes stay
in the order of their columns. A random lane is then compared with the keep-probability of its element's rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engine.opdef import GraphError, Tile, op, require_space
from . import counter_rng
from .digits import UNSIGNED, magnitude_bits
from .elementwise import is_zero, scale, zeros
from .scratch import carve, carved_bytes
from .sparsify import bind_stream, drop

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import DTypeLike, NDArray

    from ..engine.graph import Attr, Node, TensorSpec

    Bits = NDArray[np.unsignedinteger[Any]]
    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

_GROUP_ELEMENTS = 1 << 16
"""Elements of the rows that are treated at once: what is computed for them stays in a core's cache."""


def keep_probabilities(density: float, epsilon: float, row_elements: int) -> Floats:
    """The probability that the element of each rank is kept, from the smallest magnitude in a row to the largest.

    A row of one element keeps it with probability ``density``.
    """
    if row_elements == 1:
        return np.array([density])
    # The share of the way comes first: it is at most 1, so that no rank goes beyond the ends.
    share = np.arange(row_elements) / (row_elements - 1)
    probabilities: Floats = lowest(density, epsilon) + 2 * epsilon * share
    return probabilities


def lowest(density: float, epsilon: float) -> float:
    """The keep-probability of a row's smallest element."""
    return density - epsilon


def highest(density: float, epsilon: float) -> float:
    """The keep-probability of a row's largest element."""
    return lowest(density, epsilon) + 2 * epsilon


def _infer_drop_ranked(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "delta", "drop_ranked")
    (spec,) = specs
    if spec.dtype not in UNSIGNED:
        raise GraphError(f"magnitudes are ranked in float32 or float64, not in {spec.dtype}")
    if attrs["row_elements"] != spec.row_elements:
        raise GraphError(f"rows have {spec.row_elements} elements, not {attrs['row_elements']}")
    if not isinstance(attrs["ordinal"], int) or not isinstance(attrs["divided"], bool):
        raise GraphError("drop_ranked takes the ordinal of its input, and whether what is kept is divided")
    density, epsilon = _numbers(attrs)
    if 0 < density < 1 and not 0 < lowest(density, epsilon) <= highest(density, epsilon) < 1:
        raise GraphError(f"keep-probabilities {density} ± {epsilon} are not between 0 and 1")
    return spec


def _numbers(attrs: Mapping[str, Attr]) -> tuple[float, float]:
    density, epsilon = attrs["density"], attrs["epsilon"]
    if not isinstance(density, (int, float)) or not isinstance(epsilon, (int, float)):
        raise GraphError("drop_ranked takes a density and an epsilon")
    return density, epsilon


def _simplify_drop_ranked(inputs: Sequence[Node], attrs: Mapping[str, Attr]) -> Node | None:
    """Density 1 and more keeps everything, 0 and less nothing; where ranks do not matter this is `drop`."""
    (delta,) = inputs
    density, epsilon = _numbers(attrs)
    if density >= 1 or is_zero(delta):
        return delta
    if density <= 0:
        return zeros(delta.spec)
    if epsilon == 0 or delta.spec.row_elements <= 1:
        kept = drop(delta, density=density, ordinal=attrs["ordinal"])
        return scale(kept, factor=1.0 / density) if attrs["divided"] else kept
    return None


def _group_rows(row_elements: int) -> int:
    return max(_GROUP_ELEMENTS // max(row_elements, 1), 1)


def _parts(dtype: DTypeLike, row_elements: int, elements: int) -> list[tuple[DTypeLike, int]]:
    """What the kernel carves from its scratch for a group of rows: see there."""
    group = min(_group_rows(row_elements) * row_elements, elements)
    words = counter_rng.lanes_scratch_bytes(group)
    kinds: list[DTypeLike] = [dtype, dtype, np.uint16, np.uint16, np.bool_, np.bool_]
    return [(np.uint8, words), *((kind, group) for kind in kinds)]


_MADE_BYTES = 72
"""Bytes an element that numpy makes itself: orders, and where all has to be sorted twice, what is sorted."""


def _scratch_bytes(specs: Sequence[TensorSpec], elements: int) -> int:
    parts = _parts(UNSIGNED[specs[0].dtype], specs[0].row_elements, elements)
    return carved_bytes(*parts) + _MADE_BYTES * parts[-1][1]


@op(
    "drop_ranked",
    locality="row",
    infer=_infer_drop_ranked,
    simplify=_simplify_drop_ranked,
    bind=bind_stream,
    scratch_bytes=_scratch_bytes,
    inplace=(0,),
)
def drop_ranked(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    scratch: torch.Tensor,
    tile: Tile,
    *,
    density: float,
    epsilon: float,
    row_elements: int,
    divided: bool,
    key: int,
    **_: object,
) -> None:
    """Keep elements at random, with a probability from density - ε to density + ε by the rank of |x| in its row.

    What is kept is divided by its keep-probability where ``divided``. Deep et al., "DELLA-Merging" (2024).
    """
    x, row = ins[0], row_elements
    all_words, *arrays = carve(scratch, *_parts(UNSIGNED[x.dtype], row, x.numel()))
    probabilities = keep_probabilities(density, epsilon, row)
    limits = np.floor(probabilities * 65536).astype(np.uint16)
    for start in range(0, x.numel(), max(_group_rows(row) * row, 1)):
        part = x[start : start + _group_rows(row) * row]
        elements, first = part.numel(), tile.lo + start
        bits, spare, digits, lanes, chosen, kept = (array[:elements] for array in arrays)
        magnitude_bits(part, bits)
        order = _ascending(bits, spare, digits, row)
        _gather(counter_rng.lanes(first, first + elements, key, all_words), order, lanes)
        np.equal(lanes.reshape(-1, row), limits, out=chosen.reshape(-1, row))
        equal = np.flatnonzero(chosen)
        np.less(lanes.reshape(-1, row), limits, out=chosen.reshape(-1, row))
        chosen[equal] = counter_rng.below(lanes[equal], order[equal] + first, probabilities[equal % row], key)
        torch.from_numpy(kept).scatter_(0, torch.from_numpy(order), torch.from_numpy(chosen))
        # A product and not a masked copy: a random mask makes branches unpredictable.
        share = out[start : start + elements].numpy()
        np.multiply(part.numpy(), kept, out=share)
        if divided:
            each = np.empty(elements)
            each[order] = np.resize(probabilities, elements)
            np.divide(share, each, out=share, casting="same_kind")


def _gather(values: NDArray[Any], order: Ints, out: NDArray[Any]) -> None:
    """``values[order]``, of flags or 16 bits; of 16-bit integers, torch knows only signed ones."""
    kind = np.bool_ if values.dtype == np.bool_ else np.int16
    source, target = (torch.from_numpy(array.view(kind)) for array in (values, out))
    torch.index_select(source, 0, torch.from_numpy(order), out=target)


# ------------------------------------------------------------------------------------------------ ranks


def _ascending(bits: Bits, spare: Bits, digits: NDArray[np.uint16], row_elements: int) -> Ints:
    """Places of the elements of whole rows: row by row, by magnitude, the lower place first among equals."""
    if bits.dtype == np.uint32:
        return _ascending_at_once(bits, spare, digits, row_elements)
    order: Ints | None = None
    for shift in range(0, 8 * bits.itemsize, 16):
        np.right_shift(bits, bits.dtype.type(shift), out=spare)
        digits[:] = spare & bits.dtype.type(0xFFFF)
        if order is None:
            if digits.any() or shift + 16 == 8 * bits.itemsize:
                order = _sorted_rows(digits, row_elements)
        else:
            order = order[_sorted_rows(digits[order], row_elements)]
    assert order is not None
    return order


def _sorted_rows(digits: NDArray[np.uint16], row_elements: int) -> Ints:
    """Places in order of the digit in each row, the lower place first among equals."""
    table: Ints = np.argsort(digits.reshape(-1, row_elements), axis=1, kind="stable")
    table += np.arange(0, len(digits), row_elements)[:, None]
    return table.reshape(-1)


_SHIFT = np.uint32(12)
"""Bits of a float32 that its digit leaves out: few differences of 16-bit weights have any of them."""
_MOST = (1 << 16) - 1


def _ascending_at_once(bits: Bits, spare: Bits, digits: NDArray[np.uint16], row_elements: int) -> Ints:
    """The same for float32, with one sort for almost all.

    A magnitude rounded down plus the same rounded up is a digit that is even where nothing was cut off, so that
    its elements are equal. Elements with an odd digit are sorted once more, and take each other's places. So do those
    that are 2¹⁶ times smaller than the largest of all; zeros have a digit of their own.
    """
    np.add(bits, (np.uint32(1) << _SHIFT) - np.uint32(1), out=spare)
    np.right_shift(spare, _SHIFT, out=spare)
    np.add(spare, np.right_shift(bits, _SHIFT), out=spare)
    # The least digit that is told apart becomes 1, and is odd.
    least = np.uint32(max(int(spare.max()) - _MOST + 1, 0) | 1)
    np.maximum(spare, least, out=spare)
    np.subtract(spare, least - np.uint32(1), out=spare)
    digits[:] = spare
    np.multiply(digits, bits != 0, out=digits)
    order = _sorted_rows(digits, row_elements)
    odd = np.bitwise_and(digits, np.uint16(1), out=spare.view(np.uint16)[: len(digits)]) != 0
    in_order = np.empty_like(odd)
    _gather(odd, order, in_order)
    places = np.flatnonzero(in_order)
    if places.size:
        again = np.sort(order[places])
        order[places] = again[_by_number(bits[again], again // row_elements)]
    return order


def _by_number(bits: Bits, rows: Ints) -> Ints:
    """Positions in order of row and magnitude, the lower one first among equals: all three in one number."""
    position_bits = np.uint64(len(bits).bit_length())
    numbers = (rows.astype(np.uint64) << np.uint64(31) | bits) << position_bits
    numbers |= np.arange(len(bits), dtype=np.uint64)
    numbers.sort()
    numbers &= (np.uint64(1) << position_bits) - np.uint64(1)
    order: Ints = numbers.view(np.int64)
    return order
