"""`counter_rng` with operations that any device has: the same words, lanes and masks, bit for bit.

Devices have signed integers only. Sums and products modulo 2⁶⁴ are the same for these, a shift to the right leaves its
sign bits behind and needs a mask, and numbers compare as unsigned ones do when their highest bit is turned.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from .counter_rng import GOLDEN, LANES, SECOND_KEY, SHIFT_MULTIPLY, lanes_scratch_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

_TURN_LANES = -0x7FFF7FFF7FFF8000
"""The highest bit of each of the four lanes of a word, 0x8000800080008000."""

_MOST_WORDS_MORE = 2
"""A few elements may have more words than they are: one begins in a word, and one ends in another."""


def signed(word: int) -> int:
    """The signed number with the lowest 64 bits of an integer."""
    return (word + (1 << 63)) % (1 << 64) - (1 << 63)


def _mix(words: torch.Tensor, spare: torch.Tensor) -> None:
    """SplitMix64's finaliser, in place."""
    for shift, factor in (*SHIFT_MULTIPLY, (31, 1)):
        torch.bitwise_right_shift(words, shift, out=spare)
        spare.bitwise_and_((1 << 64 - shift) - 1)
        words.bitwise_xor_(spare)
        if factor != 1:
            words.mul_(signed(factor))


def scratch_bytes(elements: int) -> int:
    """Bytes that `mask` needs for a range of so many elements, wherever it starts."""
    return lanes_scratch_bytes(elements) // 2 + 8 * (elements + _MOST_WORDS_MORE) + (8 + 1 + 1) * elements


def _cut(scratch: torch.Tensor, sizes: Sequence[int]) -> list[torch.Tensor]:
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [scratch[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def mask(
    lo: int, hi: int, keep_probability: float, key: int, scratch: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Which of the elements ``lo`` to ``hi`` - 1 are kept: ones and zeros of a dtype, a view into ``scratch``."""
    first, last, elements = lo // LANES, -(-hi // LANES), hi - lo
    count = max(last - first, 1)
    parts = _cut(scratch, [8 * count, 8 * elements, 8 * (elements + _MOST_WORDS_MORE), elements, elements])
    words, second, spare = (part.view(torch.int64) for part in parts[:3])
    kept, equal = (part.view(torch.bool) for part in parts[3:])
    torch.arange(first, first + count, out=words)
    words.mul_(signed(GOLDEN)).add_(signed(key))
    _mix(words, spare[:count])
    words.bitwise_xor_(_TURN_LANES)
    drawn = words.view(torch.int16)[lo - first * LANES : hi - first * LANES]
    threshold = math.floor(keep_probability * 65536)
    fraction = keep_probability * 65536 - threshold
    torch.lt(drawn, threshold - (1 << 15), out=kept)
    if fraction > 0:
        torch.eq(drawn, threshold - (1 << 15), out=equal)
        torch.arange(lo + 1, hi + 1, out=second)
        second.mul_(signed(GOLDEN)).add_(signed(key ^ SECOND_KEY))
        _mix(second, spare[:elements])
        second.bitwise_xor_(-(1 << 63))
        settled = spare.view(torch.bool)[:elements]
        torch.lt(second, int(fraction * 2.0**64) - (1 << 63), out=settled)
        kept.bitwise_or_(equal.bitwise_and_(settled))
    factors = second.view(dtype)[:elements]
    factors.copy_(kept)
    return factors
