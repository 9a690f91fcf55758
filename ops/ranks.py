"""The exact magnitude at a rank of a tensor that is never held: radix selection over tiles.

The bits of |x| order like |x| itself, so the magnitude at a rank is found from its leading bits to its last ones, by
counting. A sample says where the leading bits will lie; one pass counts a window of values around that, 26 bits deep,
and tells what is below and above, so that a wrong guess is noticed: then the leading 16 bits are counted in full, and
the window is put where they say. For float64 two passes of 16 bits follow. The last 6 bits are counted a block, which
tells for any of their values how many elements equal to it come before a block: of those, the first are chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..engine.graph import Attr, Node, TensorSpec
from ..engine.opdef import GraphError, Tile, op, require_space
from .digits import (
    DIGIT_BITS,
    FINE_BITS,
    LAST_WINDOW,
    MISSED,
    WINDOW_DIGITS,
    WINDOW_VALUES,
    count_digit,
    count_leading,
    count_missed,
    count_tails,
    count_window,
    is_missed,
    recount_window,
    sample_digits,
    width_bits,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


def _first_reaching(counts: NDArray[np.int64], wanted: int, *, descending: bool) -> tuple[int, int]:
    """The place where counts add up to ``wanted``, from the last place where ``descending``; and what came before."""
    running = np.cumsum(counts[::-1] if descending else counts)
    # At rank 0 nothing is chosen: no element is beyond the first, and none of its ties is wanted.
    position = min(int(np.searchsorted(running, max(wanted, 1))), len(counts) - 1)
    before = int(running[position - 1]) if position else 0
    return len(counts) - 1 - position if descending else position, before


def _wanted(start: Sequence[torch.Tensor], count: int) -> int:
    """The rank: from a state (0, rank) where there is one, else the count that the graph has."""
    return int(start[0][1]) if start else count


def _infer_state(*shape: int) -> Any:
    def infer(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
        require_space(specs, "state", "locating a rank")
        if not isinstance(attrs["descending"], bool):
            raise GraphError("ranks are ascending or descending")
        return TensorSpec(shape, torch.int64, "state")

    return infer


@op("aim", locality="state", infer=_infer_state(1))
def aim(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    _scratch: torch.Tensor,
    _tile: Tile,
    *,
    share: float,
    nonzero: bool,
    descending: bool,
) -> None:
    """The first digit of the window around a rank, a share of all elements or of those that are not zero."""
    counts = ins[0].numpy().copy()
    if nonzero:
        counts[0] = 0  # and with the zeros a few that are less than a normal number
    digit, _ = _first_reaching(counts, round(share * int(counts.sum())), descending=descending)
    out[0] = min(max(digit - WINDOW_DIGITS // 2, 0), LAST_WINDOW)


@op("aim_again", locality="state", infer=_infer_state(1))
def aim_again(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    _scratch: torch.Tensor,
    _tile: Tile,
    *,
    count: int,
    descending: bool,
) -> None:
    """The first digit of a window that holds a rank: inputs counts of leading digits and, perhaps, (0, rank)."""
    counts, *start = ins
    digit, _ = _first_reaching(counts.numpy(), _wanted(start, count), descending=descending)
    out[0] = min(digit, LAST_WINDOW)


@op("locate", locality="state", infer=_infer_state(2))
def locate(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    _scratch: torch.Tensor,
    _tile: Tile,
    *,
    count: int,
    descending: bool,
    width: int,
) -> None:
    """The leading 26 bits of the magnitude at a rank, and what is left of the rank within; MISSED where it is outside.

    Inputs: counts of a window, its first digit and, perhaps, (0, rank). Ranks count from 1, from the largest where
    ``descending``; ``width`` is that of the magnitudes in bits.
    """
    counts, first_digit, *start = ins
    wanted = _wanted(start, count)
    place, before = _first_reaching(counts.numpy(), wanted, descending=descending)
    if 0 < place <= WINDOW_VALUES:
        out[0] = (int(first_digit[0]) << FINE_BITS) + place - 1 << width - DIGIT_BITS - FINE_BITS
        out[1] = wanted - before
    else:
        out[0], out[1] = MISSED, 0


def _infer_found(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "state", "found_in")
    return specs[0]


@op("found_in", locality="state", infer=_infer_found)
def found_in(out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile) -> None:
    """What was located first, or else what was located instead: two such states."""
    first, second = ins
    out.copy_(second if is_missed([first]) else first)


@op("locate_digit", locality="state", infer=_infer_state(2))
def locate_digit(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, descending: bool, shift: int
) -> None:
    """16 more bits of what is located, and what is left of the rank: inputs counts of the digit, located."""
    counts, located = ins
    digit, before = _first_reaching(counts.numpy(), int(located[1]), descending=descending)
    out[0] = int(located[0]) | digit << shift
    out[1] = int(located[1]) - before


def _infer_settle(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    spec: TensorSpec = _infer_state(3 + specs[0].shape[0])(specs, attrs)
    return spec


@op("settle", locality="state", infer=_infer_settle)
def settle(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, descending: bool
) -> None:
    """All bits of the magnitude at a rank, how many of its ties are chosen, and the ties before each block and in all.

    Inputs: tails a block, located.
    """
    tails, located = ins
    table = tails.numpy()
    tail, before = _first_reaching(table.sum(0, dtype=np.int64), int(located[1]), descending=descending)
    out[0] = int(located[0]) | tail
    out[1] = int(located[1]) - before
    out[2] = 0
    out[3:] = torch.from_numpy(np.cumsum(table[:, tail], dtype=np.int64))


# ------------------------------------------------------------------------------------------------ the graph


def _may_be_sampled(ranking: Node) -> bool:
    """Whether an element's value depends on the inputs' elements alone, and not on where in the tensor it stands."""
    if ranking.op.locality != "element" or ranking.op.bind is not None or ranking.settled:
        return False
    return all(_may_be_sampled(source) for source in ranking.inputs)


def rank(ranking: Node, start: int | Node, *, descending: bool, share: float | None = None) -> Node:
    """State with the magnitude at a rank, exactly: its bits, how many of its ties are chosen, ties before each block.

    ``start`` is the rank, from 1, or a state (0, rank) where only the run can tell it; then the rank is expected at a
    ``share`` of what is not zero. Takes a sample and two passes, for float64 four.
    """
    width = width_bits(ranking.spec.dtype)
    count, begin = (start, []) if isinstance(start, int) else (0, [start])
    guess: dict[str, Attr] = {"descending": descending, "nonzero": share is not None}
    guess["share"] = count / max(ranking.spec.elements, 1) if share is None else share
    exact: dict[str, Attr] = {"count": count, "descending": descending}
    if _may_be_sampled(ranking):
        first = aim(sample_digits(ranking), **guess)
        hit = locate(count_window(ranking, first), first, *begin, **exact, width=width)
        again = aim_again(count_missed(ranking, hit), *begin, **exact)
        second = locate(recount_window(ranking, again, hit), again, *begin, **exact, width=width)
        located = found_in(hit, second)
    else:
        first = aim_again(count_leading(ranking), *begin, **exact)
        located = locate(count_window(ranking, first), first, *begin, **exact, width=width)
    for shift in range(width - 2 * DIGIT_BITS - FINE_BITS, 0, -DIGIT_BITS):
        located = locate_digit(count_digit(ranking, located, shift=shift), located, descending=descending, shift=shift)
    return settle(count_tails(ranking, located), located, descending=descending)
