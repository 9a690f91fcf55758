"""The ops on a matrix's spectrum as plain expressions: singular value decompositions of whole matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def as_lines(x: torch.Tensor) -> torch.Tensor:
    """A matrix with its longer side first."""
    return x.double() if x.shape[0] >= x.shape[1] else x.double().mT


def _line_gram(ins: Sequence[torch.Tensor], **_: object) -> torch.Tensor:
    lines = as_lines(ins[0])
    return (lines.mT @ lines).tril()


def full(gram: torch.Tensor) -> torch.Tensor:
    """A symmetric matrix from what is on and below its diagonal."""
    return gram.tril() + gram.tril(-1).mT


def polar(matrix: torch.Tensor) -> torch.Tensor:
    """P·Qᵀ of P·D·Qᵀ, without the directions that a Gram matrix cannot tell from noise."""
    p, d, q = torch.linalg.svd(matrix, full_matrices=False)
    kept = d > d[0] * (max(min(matrix.shape), 64) * 2.0**-52) ** 0.5
    return (p * kept) @ q


def _flattener(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    squares, vectors = torch.linalg.eigh(full(ins[0]))
    sigma = squares.clamp(min=0).sqrt()
    kept = squares > squares[-1] * (max(len(squares), 64) * 2.0**-52)
    return (vectors * torch.where(kept, 1 / sigma, 0)) @ vectors.mT * (sigma * kept).mean()


def _times(ins: Sequence[torch.Tensor], **_: object) -> torch.Tensor:
    product = as_lines(ins[0]) @ ins[1]
    return (product if ins[0].shape[0] >= ins[0].shape[1] else product.mT).to(ins[0].dtype)


PLAIN: Mapping[str, Callable[..., torch.Tensor]] = {
    "flattener": _flattener,
    "line_gram": _line_gram,
    "times": _times,
}

STATES: Mapping[str, Sequence[int]] = {"flattener": (0,), "times": (1,)}
