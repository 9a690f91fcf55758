"""The ops on task singular vectors as plain expressions over whole matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from plain_spectrum import as_lines, full

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def _strongest(ins: Sequence[torch.Tensor], *, count: int) -> torch.Tensor:
    squares, vectors = torch.linalg.eigh(full(ins[0]))
    kept = squares > squares[-1] * (max(len(squares), 64) * 2.0**-52)
    sigma = (squares * kept).sqrt().flip(0)[:count]
    rows = (vectors * kept).mT.flip(0)[:count]
    padded = torch.zeros(1, len(squares), dtype=torch.float64)
    padded[0, :count] = sigma
    return torch.cat([rows, padded])


def left_vectors(parts: Sequence[torch.Tensor], triplets: Sequence[torch.Tensor]) -> torch.Tensor:
    """P·V·Σ⁻¹ of each task, side by side."""
    found = []
    for part, each in zip(parts, triplets, strict=True):
        sigma = each[-1, : len(each) - 1]
        found.append(as_lines(part) @ each[:-1].mT * torch.where(sigma > 0, 1 / sigma, 0))
    return torch.cat(found, 1)


def _left_gram(ins: Sequence[torch.Tensor], **_: object) -> torch.Tensor:
    left = left_vectors(ins[: len(ins) // 2], ins[len(ins) // 2 :])
    return (left.mT @ left).tril()


def _inverse_root(gram: torch.Tensor) -> torch.Tensor:
    squares, vectors = torch.linalg.eigh(gram)
    kept = squares > squares[-1] * (max(len(squares), 64) * 2.0**-52)
    return (vectors * torch.where(kept, squares.abs() ** -0.5, 0)) @ vectors.mT


def _whitened(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    gram, *triplets = ins
    right = torch.cat([each[:-1] for each in triplets])
    sigma = torch.cat([each[-1, : len(each) - 1] for each in triplets])
    return _inverse_root(full(gram)) @ torch.diag(sigma) @ _inverse_root(right @ right.mT) @ right


def _left_times(ins: Sequence[torch.Tensor], **_: object) -> torch.Tensor:
    tasks = len(ins) // 2
    product = left_vectors(ins[:tasks], ins[tasks:-1]) @ ins[-1]
    return (product if ins[0].shape[0] >= ins[0].shape[1] else product.mT).to(ins[0].dtype)


PLAIN: Mapping[str, Callable[..., torch.Tensor]] = {
    "left_gram": _left_gram,
    "left_times": _left_times,
    "strongest": _strongest,
    "whitened": _whitened,
}
