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

# ------------------------------------------------------------------------------------------------ selection


def bits_of(x: torch.Tensor) -> torch.Tensor:
    """The bits of |x| as int64."""
    return x.abs().view(torch.int32 if x.dtype == torch.float32 else torch.int64).long()


def _digit_counts(ins: Sequence[torch.Tensor], *, shift: int) -> torch.Tensor:
    bits = bits_of(ins[0])
    if len(ins) == 2:
        above = shift + 16
        bits = bits[bits >> above == int(ins[1][0]) >> above]
    return torch.bincount((bits >> shift) & 0xFFFF, minlength=1 << 16)


def _locate(ins: Sequence[torch.Tensor], *, count: int, descending: bool, shift: int) -> torch.Tensor:
    counts, *located = ins
    bits, left = located[0].tolist() if located else (0, count)
    digits = torch.repeat_interleave(torch.arange(1 << 16), counts)
    digit = int(digits[-max(left, 1)] if descending else digits[max(left, 1) - 1])
    before = counts[digit + 1 :] if descending else counts[:digit]
    return torch.tensor([bits + (digit << shift), left - int(before.sum())])


def _ties_before(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    x, located = ins
    equal = (bits_of(x) == located[0]).long()
    return torch.tensor([int(equal[:start].sum()) for start in range(0, max(x.numel(), 1), BLOCK)])


def _keep_ranked(ins: Sequence[torch.Tensor], *, descending: bool, rest: bool) -> torch.Tensor:
    values, ranking, located, _ = ins
    bits, threshold = bits_of(ranking), located[0]
    equal = bits == threshold
    chosen = (bits > threshold) if descending else (bits < threshold)
    chosen |= equal & (equal.long().cumsum(0) <= located[1])
    return torch.where(chosen != rest, values, 0)


PLAIN: Mapping[str, Callable[..., torch.Tensor]] = {
    "digit_counts": _digit_counts,
    "keep_ranked": _keep_ranked,
    "locate": _locate,
    "ties_before": _ties_before,
}

STATES: Mapping[str, Sequence[int]] = {"digit_counts": (1,), "ties_before": (1,), "keep_ranked": (2, 3)}

ALIGNED = frozenset({"keep_ranked"})
"""Ops whose tiles start where a reduction's block does, as all tiles of a program with reductions do."""


# ------------------------------------------------------------------------------------------------ calls


def _call_keep_ranked(draw: st.DrawFn, tensor: Tensor, dtype: torch.dtype) -> Call:
    values, ranking = tensor(), tensor()
    threshold = int(bits_of(ranking)[0]) if len(ranking) else 0
    located = torch.tensor([threshold, draw(st.integers(0, 4))])
    attrs = {"descending": draw(st.booleans()), "rest": draw(st.booleans())}
    return [values, ranking, located, torch.zeros(1, dtype=torch.int64)], attrs, dtype


CALLS: Mapping[str, Callable[[st.DrawFn, Tensor, torch.dtype], Call]] = {"keep_ranked": _call_keep_ranked}
"""Inputs, attributes and output dtype for an element op, of tensors of one length."""


def ranks(x: torch.Tensor, *, descending: bool) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Flat indices in order of |x|, the lower index first among equals."""
    sizes = x.abs().numpy()
    return np.argsort(-sizes if descending else sizes, kind="stable")
