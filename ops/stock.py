"""How far to go from the base towards the mean of the models. Jang et al. 2024, "Model Stock", arXiv:2403.19522."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..engine.opdef import Tile, op
from .gram import input_count, pairs_of
from .spans import infer_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from .gram import Floats

_SINGULAR = 1e-6


def stock(dots: Floats) -> Floats:
    """Coefficients t/K of K task vectors, (K, vectors), from their dot products (pairs, vectors).

    t = K·c/(1 + (K−1)·c), c the mean cosine of two of them; a pair with a zero vector has cosine 0. Where the
    divisor is below 1e-6 in size there is no estimate, and t is 0.
    """
    count = input_count(len(dots))
    pairs = pairs_of(count)
    squares = {i: values for (i, j), values in zip(pairs, dots, strict=True) if i == j}
    total = np.zeros(dots.shape[1])
    for (i, j), values in zip(pairs, dots, strict=True):
        if i != j:
            norms = np.sqrt(squares[i]) * np.sqrt(squares[j])
            total += np.clip(values / np.where(norms > 0, norms, 1.0), -1.0, 1.0)
    cosine = total / max(len(pairs) - count, 1)
    divisor = 1.0 + (count - 1) * cosine
    singular = np.abs(divisor) < _SINGULAR
    share = np.where(singular, 0.0, cosine / np.where(singular, 1.0, divisor))
    return np.broadcast_to(share, (count, len(share)))


@op("stock_coefficients", locality="state", infer=infer_mean)
def stock_coefficients(out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile) -> None:
    """From the dot products of task vectors to the coefficients of Model Stock."""
    out.numpy()[:] = stock(ins[0].numpy().reshape(-1, 1))[:, 0]
