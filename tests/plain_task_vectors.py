"""Plain expressions for the ops on task vectors: counts by comparing with every edge, signs by numpy."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np
import plait.ops.task_vectors
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

assert plait.ops.task_vectors  # registers the ops

EDGES = [0.0, *(2.0**power for power in range(-40, 17)), np.inf]


def sizes(delta: NDArray[np.floating]) -> list[int]:
    """Zeros, what is not finite, then by bin what is above zero and what is below."""
    found = [int((delta == 0).sum()), int((~np.isfinite(delta)).sum())]
    for side in (delta, -delta):
        found += [int(((side > 0) & (side >= low) & (side < high)).sum()) for low, high in pairwise(EDGES)]
    return found


def signs(deltas: Sequence[NDArray[np.floating]]) -> list[tuple[int, int]]:
    """For each pair, elements that both move, and those that they move the same way."""
    found = []
    for one, other in combinations(deltas, 2):
        both = (one != 0) & (other != 0) & ~np.isnan(one) & ~np.isnan(other)
        found.append((int(both.sum()), int((both & ((one > 0) == (other > 0))).sum())))
    return found


PLAIN: Mapping[str, Callable[..., torch.Tensor]] = {
    "delta_histogram": lambda ins: torch.tensor(sizes(ins[0].numpy().reshape(-1))),
    "sign_agreement": lambda ins: torch.tensor(signs([each.numpy().reshape(-1) for each in ins])),
    "side_by_side": lambda ins: torch.cat([each.reshape(-1).double() for each in ins]),
}
