"""The ops that select by rank, size or agreement, as plain expressions, and calls to try them with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Tensor = Callable[[], torch.Tensor]
    Call = tuple[list[torch.Tensor], dict[str, Any], torch.dtype]

BLOCK = 1 << 16
WINDOW_DIGITS = 16  # values of the leading 16 bits in a window, each with 2^10 values of the next bits
WINDOW_VALUES = WINDOW_DIGITS << 10

# ------------------------------------------------------------------------------------------------ counting


def bits_of(x: torch.Tensor) -> torch.Tensor:
    """The bits of |x| as int64."""
    return x.abs().view(torch.int32 if x.dtype == torch.float32 else torch.int64).long()


def _width(x: torch.Tensor) -> int:
    return 8 * x.dtype.itemsize


def _leading(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    x = ins[0]
    return torch.bincount(bits_of(x) >> (_width(x) - 16), minlength=1 << 15)


def _where_missed(count: Callable[[Sequence[torch.Tensor]], torch.Tensor]) -> Callable[..., torch.Tensor]:
    def missed(ins: Sequence[torch.Tensor]) -> torch.Tensor:
        counts = count(ins[:-1])
        return counts if int(ins[-1][0]) == -1 else torch.zeros_like(counts)

    return missed


def _window(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    x, first = ins
    bins = (bits_of(x) >> (_width(x) - 26)) - (int(first[0]) << 10)
    return torch.bincount(bins.clamp(-1, WINDOW_VALUES) + 1, minlength=WINDOW_VALUES + 2)


def _digit(ins: Sequence[torch.Tensor], *, shift: int) -> torch.Tensor:
    bits, above = bits_of(ins[0]), shift + 16
    bits = bits[bits >> above == int(ins[1][0]) >> above]
    return torch.bincount((bits >> shift) & 0xFFFF, minlength=1 << 16)


def _tails(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    x, located = ins
    rows = []
    for start in range(0, max(x.numel(), 1), BLOCK):
        bits = bits_of(x)[start : start + BLOCK]
        rows.append(torch.bincount(bits[bits >> 6 == int(located[0]) >> 6] & 63, minlength=64))
    return torch.stack(rows).int()


# ------------------------------------------------------------------------------------------------ concluding


def _at(counts: torch.Tensor, wanted: int, *, descending: bool) -> tuple[int, int]:
    """The place of the element at a rank when each place has as many as it counts, and how many are before it."""
    places = torch.repeat_interleave(torch.arange(len(counts)), counts)
    place = int(places[-max(wanted, 1)] if descending else places[max(wanted, 1) - 1])
    return place, int((counts[place + 1 :] if descending else counts[:place]).sum())


def _wanted(start: Sequence[torch.Tensor], count: int) -> int:
    return int(start[0][1]) if start else count


def _aim(ins: Sequence[torch.Tensor], *, share: float, nonzero: bool, descending: bool) -> torch.Tensor:
    counts = ins[0].clone()
    if nonzero:
        counts[0] = 0
    digit, _ = _at(counts, round(share * int(counts.sum())), descending=descending)
    return torch.tensor([min(max(digit - WINDOW_DIGITS // 2, 0), 2**15 - WINDOW_DIGITS)])


def _aim_again(ins: Sequence[torch.Tensor], *, count: int, descending: bool) -> torch.Tensor:
    digit, _ = _at(ins[0], _wanted(ins[1:], count), descending=descending)
    return torch.tensor([min(digit, 2**15 - WINDOW_DIGITS)])


def _locate(ins: Sequence[torch.Tensor], *, count: int, descending: bool, width: int) -> torch.Tensor:
    counts, first, *start = ins
    wanted = _wanted(start, count)
    place, before = _at(counts, wanted, descending=descending)
    if place in (0, WINDOW_VALUES + 1):
        return torch.tensor([-1, 0])
    return torch.tensor([((int(first[0]) << 10) + place - 1) << (width - 26), wanted - before])


def _locate_digit(ins: Sequence[torch.Tensor], *, descending: bool, shift: int) -> torch.Tensor:
    counts, located = ins
    digit, before = _at(counts, int(located[1]), descending=descending)
    return torch.tensor([int(located[0]) + (digit << shift), int(located[1]) - before])


def _settle(ins: Sequence[torch.Tensor], *, descending: bool) -> torch.Tensor:
    tails, located = ins
    tail, before = _at(tails.sum(0), int(located[1]), descending=descending)
    ties = [int(tails[:block, tail].sum()) for block in range(len(tails) + 1)]
    return torch.tensor([int(located[0]) + tail, int(located[1]) - before, *ties])


def _keep_ranked(ins: Sequence[torch.Tensor], *, descending: bool, rest: bool) -> torch.Tensor:
    x, chosen = ins
    bits, threshold = bits_of(x), chosen[0]
    equal = bits == threshold
    kept = (bits > threshold) if descending else (bits < threshold)
    kept |= equal & (equal.long().cumsum(0) <= chosen[1])
    return torch.where(kept != rest, x, 0)


PLAIN: Mapping[str, Callable[..., torch.Tensor]] = {
    "aim": _aim,
    "aim_again": _aim_again,
    "count_digit": _digit,
    "count_leading": _leading,
    "count_missed": _where_missed(_leading),
    "count_tails": _tails,
    "count_window": _window,
    "found_in": lambda ins: ins[1] if int(ins[0][0]) == -1 else ins[0],
    "keep_ranked": _keep_ranked,
    "locate": _locate,
    "locate_digit": _locate_digit,
    "recount_window": _where_missed(_window),
    "sample_digits": _leading,
    "settle": _settle,
}

STATES: Mapping[str, Sequence[int]] = {
    "aim": (0,),
    "aim_again": (0, 1),
    "found_in": (0, 1),
    "locate": (0, 1, 2),
    "locate_digit": (0, 1),
    "settle": (0, 1),
    "count_digit": (1,),
    "count_missed": (1,),
    "count_tails": (1,),
    "count_window": (1,),
    "keep_ranked": (1,),
    "recount_window": (1, 2),
}

ALIGNED = frozenset({"keep_ranked"})
"""Ops whose tiles start where a reduction's block does, as all tiles of a program with reductions do."""


# ------------------------------------------------------------------------------------------------ calls


def _call_keep_ranked(draw: st.DrawFn, tensor: Tensor, _dtype: torch.dtype) -> Call:
    x = tensor()
    threshold = int(bits_of(x)[0]) if len(x) else 0
    ties = int((bits_of(x) == threshold).sum())
    chosen = torch.tensor([threshold, draw(st.integers(0, ties)), 0, ties])
    return [x, chosen], {"descending": draw(st.booleans()), "rest": draw(st.booleans())}, x.dtype


CALLS: Mapping[str, Callable[[st.DrawFn, Tensor, torch.dtype], Call]] = {"keep_ranked": _call_keep_ranked}
"""Inputs, attributes and output dtype for an element op, of tensors of one length."""


def ranks(x: torch.Tensor, *, descending: bool) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Flat indices in order of |x|, the lower index first among equals."""
    sizes = x.abs().numpy()
    return np.argsort(-sizes if descending else sizes, kind="stable")
