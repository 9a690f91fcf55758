"""How far apart two tensors are, in plain float64 numpy over whole tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plait.ops.distance
import torch
from support import as_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

assert plait.ops.distance  # registers the op


def plain(a: torch.Tensor, b: torch.Tensor) -> dict[str, Any]:
    """Counts and sums by name, over elements that are finite in both; only counts where there are no numbers."""
    x, y = (each.double().numpy().reshape(-1) for each in (a, b))
    if a.dtype == b.dtype:
        changed = (as_bytes(a) != as_bytes(b)).numpy().reshape(a.numel(), a.itemsize).any(1)
    else:
        changed = (x != y) & ~(np.isnan(x) & np.isnan(y))
    found = {"changed": int(changed.sum()), "nonfinite_a": 0, "nonfinite_b": 0}
    if not a.dtype.is_floating_point:
        return found | dict.fromkeys(("a_squared", "b_squared", "dot", "distance_squared", "largest"), 0.0)
    found |= {"nonfinite_a": int((~np.isfinite(x)).sum()), "nonfinite_b": int((~np.isfinite(y)).sum())}
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    return found | {
        "a_squared": (x * x).sum(),
        "b_squared": (y * y).sum(),
        "dot": (x * y).sum(),
        "distance_squared": ((x - y) ** 2).sum(),
        "largest": np.abs(x - y).max(initial=0.0),
    }


def _distances(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    found = plain(*ins)
    return torch.tensor([found[name] for name in plait.ops.distance.SUMS], dtype=torch.float64)


PLAIN: Mapping[str, Callable[..., torch.Tensor]] = {"distances": _distances}
