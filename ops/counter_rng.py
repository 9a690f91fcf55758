"""Random bits as a pure function of (seed, tensor name, input ordinal, element index).

There is no generator and no state, so a mask cannot depend on tiles, threads, order or device. The hash is
SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) of the element's
index; each 64-bit word serves four elements with 16 bits each.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]
    Lanes = NDArray[np.uint16]

LANES = 4
"""Elements that one 64-bit word serves."""

_MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
SHIFT_MULTIPLY = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
SECOND_KEY = 0xD1B54A32D192ED03
"""Sets the second hash, which settles equal lanes, apart from the first."""


def stream_key(seed: int, tensor_name: str, ordinal: int) -> int:
    """The 64-bit key of one input's mask: blake2b of seed, output tensor name and ordinal."""
    text = f"{seed}\0{tensor_name}\0{ordinal}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def lanes_scratch_bytes(elements: int) -> int:
    """Bytes that `lanes` needs for a range of so many elements, wherever it starts."""
    return 2 * 8 * (elements // LANES + 2)


def scratch_bytes(elements: int) -> int:
    """Bytes that `kept` needs for a range of so many elements, wherever it starts."""
    return lanes_scratch_bytes(elements) + elements


def _mix(words: Words, spare: Words) -> None:
    """SplitMix64's finaliser, in place."""
    for shift, factor in SHIFT_MULTIPLY:
        np.right_shift(words, np.uint64(shift), out=spare)
        np.bitwise_xor(words, spare, out=words)
        np.multiply(words, np.uint64(factor), out=words)
    np.right_shift(words, np.uint64(31), out=spare)
    np.bitwise_xor(words, spare, out=words)


_RAMP_WORDS = 1 << 14
_RAMP: Words = np.arange(_RAMP_WORDS, dtype=np.uint64) * np.uint64(GOLDEN)


def _ramp(words: Words, first: int, key: int) -> None:
    """Fill with ``key + (first + i)·golden`` modulo 2⁶⁴."""
    for lo in range(0, len(words), _RAMP_WORDS):
        part = words[lo : lo + _RAMP_WORDS]
        np.add(_RAMP[: len(part)], np.uint64((key + (first + lo) * GOLDEN) & _MASK), out=part)


def lanes(lo: int, hi: int, key: int, scratch: NDArray[np.uint8]) -> Lanes:
    """The 16 bits of each of the elements ``lo`` to ``hi`` - 1, a view into ``scratch``."""
    first, last = lo // LANES, -(-hi // LANES)
    count = max(last - first, 1)
    words = scratch[: 8 * count].view(np.uint64)
    _ramp(words, first, key)
    _mix(words, scratch[8 * count : 16 * count].view(np.uint64))
    start = lo - first * LANES
    drawn: Lanes = words.view("<u2")[start : start + hi - lo]
    return drawn


def kept(lo: int, hi: int, keep_probability: float, key: int, scratch: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the elements ``lo`` to ``hi`` - 1 are kept, one bool each, a view into ``scratch``.

    An element is kept if its lane is below p·65536; a lane equal to the whole part of that is settled by a
    second hash against the fraction, so that the kept share is p to 64 bits.
    """
    drawn = lanes(lo, hi, key, scratch)
    start = lanes_scratch_bytes(hi - lo)
    flags = scratch[start : start + hi - lo].view(np.bool_)
    threshold = math.floor(keep_probability * 65536)
    fraction = keep_probability * 65536 - threshold
    if fraction > 0:
        np.equal(drawn, np.uint16(threshold), out=flags)
        undecided = np.flatnonzero(flags)
        np.less(drawn, np.uint16(threshold), out=flags)
        flags[undecided] = _second_draw(undecided + lo, key) < np.uint64(fraction * 2.0**64)
    else:
        np.less(drawn, np.uint16(threshold), out=flags)
    return flags


def below(
    drawn: Lanes, indices: NDArray[np.int64], keep_probability: NDArray[np.float64], key: int
) -> NDArray[np.bool_]:
    """The same decision for elements with a probability each, in [0, 1): their lanes and flat indices are given."""
    scaled = keep_probability * 65536
    threshold = np.floor(scaled)
    flags: NDArray[np.bool_] = drawn < threshold
    undecided = np.flatnonzero(drawn == threshold)
    fraction = (scaled - threshold)[undecided]
    flags[undecided] = _second_draw(indices[undecided], key) < (fraction * 2.0**64).astype(np.uint64)
    return flags


def _second_draw(indices: NDArray[np.int64], key: int) -> Words:
    """64 more bits for a few elements (one in 65536)."""
    words: Words = (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN)
    words += np.uint64((key ^ SECOND_KEY) & _MASK)
    _mix(words, np.empty_like(words))
    return words
