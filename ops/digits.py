"""Counting magnitudes by their bits: all of their leading bits, a window of values, the last bits a block.

The bits of |x| as an unsigned integer order like |x| itself. What `ranks` does with the counts is written there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..engine.graph import Attr, TensorSpec
from ..engine.opdef import REDUCE_BLOCK_ELEMENTS, GraphError, Reduction, Tile, op, require_space
from .reduce import add_up, block_count, place_blocks
from .scratch import carve, carved_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

DIGIT_BITS = 16
FINE_BITS = 10
TAIL_BITS = 6

_DIGIT_VALUES = 1 << DIGIT_BITS
_LEADING_VALUES = 1 << DIGIT_BITS - 1  # the sign bit is never set
_TAIL_VALUES = 1 << TAIL_BITS

WINDOW_DIGITS = 16
"""Values of the leading 16 bits that a window has: 6 % of a magnitude to either side of a guess."""

WINDOW_VALUES = WINDOW_DIGITS << FINE_BITS
"""Values of the leading 26 bits that a window has."""

LAST_WINDOW = _LEADING_VALUES - WINDOW_DIGITS
"""Where the highest window starts."""

MISSED = -1
"""In place of bits: the rank is not in the window."""

UNSIGNED: Mapping[torch.dtype, type[np.unsignedinteger[Any]]] = {torch.float32: np.uint32, torch.float64: np.uint64}
_SIGNED: Mapping[torch.dtype, type[np.signedinteger[Any]]] = {torch.float32: np.int32, torch.float64: np.int64}


def magnitude_bits(x: torch.Tensor, out: NDArray[Any]) -> None:
    """The bits of |x| as unsigned integers of the same width, which order like |x|."""
    sign_bit = 8 * x.dtype.itemsize - 1
    np.bitwise_and(x.numpy().view(out.dtype), out.dtype.type((1 << sign_bit) - 1), out=out)


def width_bits(dtype: torch.dtype) -> int:
    """Bits of a number of this dtype."""
    return 8 * dtype.itemsize


def _count(values: NDArray[Any], minlength: int) -> torch.Tensor:
    # torch's count, unlike numpy's, lets the other workers go on.
    return torch.bincount(torch.from_numpy(values), minlength=minlength)


def _require_values(specs: Sequence[TensorSpec], op_name: str) -> None:
    if specs[0].dtype not in UNSIGNED or specs[0].space == "state":
        raise GraphError(f"magnitudes are counted in float32 or float64, not in {specs[0].dtype}")
    require_space(specs[1:], "state", op_name)


def is_missed(states: Sequence[torch.Tensor]) -> bool:
    """Whether what was located so far, the last of the states, is nothing."""
    return int(states[-1][0]) == MISSED


# ------------------------------------------------------------------------------------------------ digits


def _leading_spec(_specs: Sequence[TensorSpec], _elements: int, _block_elements: int) -> TensorSpec:
    return TensorSpec((_LEADING_VALUES,), torch.int64, "state")


def _infer_leading(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    _require_values(specs, "counting leading bits")
    return _leading_spec(specs, 0, 0)


def _leading_scratch_bytes(specs: Sequence[TensorSpec], elements: int) -> int:
    return carved_bytes((UNSIGNED[specs[0].dtype], elements))


def _leading_digits(x: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
    (bits,) = carve(scratch, (UNSIGNED[x.dtype], x.numel()))
    magnitude_bits(x, bits)
    np.right_shift(bits, bits.dtype.type(width_bits(x.dtype) - DIGIT_BITS), out=bits)
    return _count(bits.view(_SIGNED[x.dtype]), _LEADING_VALUES)


@op(
    "sample_digits",
    locality="reduce",
    infer=_infer_leading,
    scratch_bytes=_leading_scratch_bytes,
    reduction=Reduction(_leading_spec, _leading_spec, add_up, sampled=True),
)
def sample_digits(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, **_: object
) -> None:
    """How often each value of the leading 16 bits of |x| occurs in a sample."""
    out.copy_(_leading_digits(ins[0], scratch))


@op(
    "count_leading",
    locality="reduce",
    infer=_infer_leading,
    scratch_bytes=_leading_scratch_bytes,
    reduction=Reduction(_leading_spec, _leading_spec, add_up),
)
def count_leading(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, **_: object
) -> None:
    """How often each value of the leading 16 bits of |x| occurs."""
    out.copy_(_leading_digits(ins[0], scratch))


@op(
    "count_missed",
    locality="reduce",
    infer=_infer_leading,
    scratch_bytes=_leading_scratch_bytes,
    reduction=Reduction(_leading_spec, _leading_spec, add_up, needed=is_missed),
)
def count_missed(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, **_: object
) -> None:
    """How often each value of the leading 16 bits of |x| occurs, where the guess was wrong: inputs x, located."""
    if is_missed(ins):
        out.copy_(_leading_digits(ins[0], scratch))
    else:
        out.zero_()


def _digit_spec(_specs: Sequence[TensorSpec], _elements: int, _block_elements: int) -> TensorSpec:
    return TensorSpec((_DIGIT_VALUES,), torch.int64, "state")


def _infer_digit(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    _require_values(specs, "counting a digit")
    if not isinstance(attrs["shift"], int):
        raise GraphError("a digit is counted at a shift")
    return _digit_spec(specs, 0, 0)


def _inside_scratch_bytes(specs: Sequence[TensorSpec], elements: int) -> int:
    return carved_bytes((UNSIGNED[specs[0].dtype], elements), (np.bool_, elements))


@op(
    "count_digit",
    locality="reduce",
    infer=_infer_digit,
    scratch_bytes=_inside_scratch_bytes,
    reduction=Reduction(_digit_spec, _digit_spec, add_up),
)
def count_digit(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, shift: int, **_: object
) -> None:
    """How often each 16-bit digit occurs at ``shift`` in those |x| that share the bits above it: inputs x, located."""
    x, located = ins
    bits, positions = _inside(x, int(located[0]), _DIGIT_VALUES << shift, scratch)
    digits = bits[positions]
    out.copy_(_count((digits >> digits.dtype.type(shift)).view(_SIGNED[x.dtype]), _DIGIT_VALUES))


def _inside(x: torch.Tensor, first: int, length: int, scratch: torch.Tensor) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """|x| as bits, less ``first``, in the scratch, and the positions of the elements where that is below ``length``."""
    bits, inside = carve(scratch, (UNSIGNED[x.dtype], x.numel()), (np.bool_, x.numel()))
    magnitude_bits(x, bits)
    # What is below wraps around to beyond the length.
    np.subtract(bits, bits.dtype.type(first), out=bits)
    np.less(bits, bits.dtype.type(length), out=inside)
    return bits, np.flatnonzero(inside)  # positions are faster than a mask to take elements by


# ------------------------------------------------------------------------------------------------ the window


def _window_spec(_specs: Sequence[TensorSpec], _elements: int, _block_elements: int) -> TensorSpec:
    # One more at each end: what lies below the window and what above it.
    return TensorSpec((WINDOW_VALUES + 2,), torch.int64, "state")


def _infer_window(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    _require_values(specs, "counting a window")
    return _window_spec(specs, 0, 0)


def _count_window(out: torch.Tensor, x: torch.Tensor, first_digit: int, scratch: torch.Tensor) -> None:
    shift = width_bits(x.dtype) - DIGIT_BITS
    bits, positions = _inside(x, first_digit << shift, WINDOW_DIGITS << shift, scratch)
    found = bits[positions]
    np.right_shift(found, found.dtype.type(shift - FINE_BITS), out=found)
    out[1:-1] = _count(found.view(_SIGNED[x.dtype]), WINDOW_VALUES)
    # What is below wrapped around, and is larger than any that is above.
    _, below = carve(scratch, (UNSIGNED[x.dtype], x.numel()), (np.bool_, x.numel()))
    below_from = (1 << width_bits(x.dtype)) - (first_digit << shift)
    out[0] = int(np.count_nonzero(np.greater_equal(bits, bits.dtype.type(below_from), out=below))) if first_digit else 0
    out[-1] = x.numel() - len(found) - int(out[0])


@op(
    "count_window",
    locality="reduce",
    infer=_infer_window,
    scratch_bytes=_inside_scratch_bytes,
    reduction=Reduction(_window_spec, _window_spec, add_up),
)
def count_window(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, **_: object
) -> None:
    """How often each value of the leading 26 bits of |x| occurs in a window: inputs x, the window's first digit."""
    _count_window(out, ins[0], int(ins[1][0]), scratch)


@op(
    "recount_window",
    locality="reduce",
    infer=_infer_window,
    scratch_bytes=_inside_scratch_bytes,
    reduction=Reduction(_window_spec, _window_spec, add_up, needed=is_missed),
)
def recount_window(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, **_: object
) -> None:
    """Like count_window, where the first window missed: inputs x, the window's first digit, located."""
    if is_missed(ins):
        _count_window(out, ins[0], int(ins[1][0]), scratch)
    else:
        out.zero_()


# ------------------------------------------------------------------------------------------------ the last bits


def _tails_spec(_specs: Sequence[TensorSpec], elements: int, block_elements: int) -> TensorSpec:
    return TensorSpec((block_count(elements, block_elements), _TAIL_VALUES), torch.int32, "state")


def _infer_tails(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    _require_values(specs, "counting tails")
    return _tails_spec(specs, specs[0].elements, REDUCE_BLOCK_ELEMENTS)


@op(
    "count_tails",
    locality="reduce",
    infer=_infer_tails,
    scratch_bytes=_inside_scratch_bytes,
    reduction=Reduction(_tails_spec, _tails_spec, place_blocks),
)
def count_tails(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, block_elements: int
) -> None:
    """For each block, how often each value of the last 6 bits occurs in those |x| that share all bits above them.

    Inputs x, located; shape (blocks, 64).
    """
    x, located = ins
    bits, positions = _inside(x, int(located[0]), _TAIL_VALUES, scratch)
    tails = bits[positions].astype(np.int64)
    positions //= block_elements
    positions *= _TAIL_VALUES
    positions += tails
    out.view(-1).copy_(_count(positions, out.numel()))
