"""Task singular vectors: the strongest singular triplets of several matrices, made orthogonal, without the matrices.

For each task matrix, as lines, P_i = U_i·Σ_i·V_iᵀ (see `spectrum`). Û is the strongest of all U_i, V̂ of all V_i. The
nearest matrix with orthonormal columns is Û·(ÛᵀÛ)^(-1/2), so what is needed of the long side is ÛᵀÛ, no larger than
a Gram matrix; it is added up in a second pass, in which each line of Û is worked out anew from those of the P_i.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..engine.graph import Attr, TensorSpec
from ..engine.opdef import GraphError, Tile, op, require_space
from ..engine.panels import PANEL_LINES, lines_of
from .spectrum import add_square_, as_lines, eigen_, eigen_bytes, fill_, matrices, panels, require_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# ------------------------------------------------------------------------------------------------ triplets of a task


def _infer_triplets(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "state", "strongest")
    count = attrs["count"]
    if len(specs) != 1 or len(specs[0].shape) != 2 or not isinstance(count, int) or not 0 < count <= specs[0].shape[0]:
        raise GraphError("strongest takes a Gram matrix and a number of its directions")
    return TensorSpec((count + 1, specs[0].shape[0]), torch.float64, "state")


@op(
    "strongest",
    locality="state",
    infer=_infer_triplets,
    scratch_bytes=lambda specs, _elements: eigen_bytes(specs[0].shape[0]) + specs[0].size_bytes,
)
def strongest(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, count: int
) -> None:
    """The strongest directions of a Gram matrix, as rows, from strong to weak; in the last row the singular values.

    Rows of directions that are absent are zero. Of equally strong ones at the end the solver's order takes some.
    """
    (gram,) = ins
    if not torch.isfinite(gram.sum()):
        out.fill_(torch.nan)
        return
    sigma, vectors = eigen_(gram, torch.empty_like(gram))
    sigma = sigma[-count:].flip(0)
    out[:count] = vectors[-count:].flip(0).mul_((sigma > 0).unsqueeze(1))
    out[count] = 0.0
    out[count, :count] = sigma


def _inverse(sigma: torch.Tensor) -> torch.Tensor:
    """1/σ, and 0 for 0: a direction that is absent has no left vector."""
    return torch.where(sigma == 0, 0.0, 1.0 / torch.where(sigma == 0, 1.0, sigma))


# ------------------------------------------------------------------------------------------------ left vectors


def _count_of(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr], op_name: str) -> int:
    """How many vectors all tasks have: inputs are the task matrices, then the triplets of each."""
    tasks = len(specs) // 2
    if not tasks or len(specs) != 2 * tasks:
        raise GraphError(f"{op_name} takes task matrices, and for each its triplets")
    spec = require_matrix(specs[:tasks], attrs, op_name)
    require_space(specs[tasks:], "state", f"{op_name}' triplets")
    if any(each.shape[1:] != (lines_of(spec.shape).width,) for each in specs[tasks:]):
        raise GraphError(f"{op_name}: triplets are as wide as the matrix's lines")
    return sum(each.shape[0] - 1 for each in specs[tasks:])


def _left_bytes(specs: Sequence[TensorSpec]) -> int:
    """Room for `_left`: a panel of one task, and the left vectors of a panel of all."""
    tasks = len(specs) // 2
    vectors = sum(each.shape[0] - 1 for each in specs[tasks : 2 * tasks])
    return 8 * PANEL_LINES * (lines_of(specs[0].shape).width + vectors)


def _left(
    tiles: Sequence[torch.Tensor],
    triplets: Sequence[torch.Tensor],
    lines: slice,
    panel: torch.Tensor,
    left: torch.Tensor,
) -> torch.Tensor:
    """A panel of Û, (PANEL_LINES, vectors): P_i·V_i·Σ_i⁻¹ side by side, worked out in ``left``, transposed."""
    start = 0
    for tile, each in zip(tiles, triplets, strict=True):
        fill_(panel, tile, lines)
        count = each.shape[0] - 1
        block = left[start : start + count]
        torch.mm(each[:count], panel.mT, out=block)
        block.mul_(_inverse(each[count, :count]).unsqueeze(1))
        start += count
    return left.mT


def _infer_left_gram(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    vectors = _count_of(specs, attrs, "left_gram")
    return TensorSpec((vectors, vectors), torch.float64, "state")


@op("left_gram", locality="whole", infer=_infer_left_gram, scratch_bytes=lambda specs, _elements: _left_bytes(specs))
def left_gram(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, width: int, columns: bool
) -> None:
    """The Gram matrix ÛᵀÛ of all tasks' left vectors, on and below the diagonal: task matrices, then their triplets."""
    tasks = len(ins) // 2
    tiles = [as_lines(x, width, columns) for x in ins[:tasks]]
    panel, left = matrices(scratch, (PANEL_LINES, width), (out.shape[0], PANEL_LINES))
    for lines in panels(tiles[0]):
        add_square_(out, _left(tiles, ins[tasks:], lines, panel, left))


# ------------------------------------------------------------------------------------------------ orthogonal again


def _infer_whitened(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "state", "whitened")
    gram, *triplets = specs
    vectors = sum(each.shape[0] - 1 for each in triplets)
    if gram.shape != (vectors, vectors) or len({each.shape[1:] for each in triplets}) != 1:
        raise GraphError("whitened takes the Gram matrix of left vectors, and the triplets that they are of")
    return TensorSpec((vectors, triplets[0].shape[1]), torch.float64, "state")


def _whitened_bytes(specs: Sequence[TensorSpec], _elements: int) -> int:
    vectors, width = specs[0].shape[0], specs[1].shape[1]
    return eigen_bytes(vectors) + 8 * vectors * (vectors + max(vectors, width))


def _inverse_root(gram: torch.Tensor) -> torch.Tensor:
    """G^(-1/2) of what is on and below a diagonal, without the directions that are absent or noise."""
    sigma, vectors = eigen_(gram, torch.empty_like(gram))
    vectors.mul_(_inverse(sigma).sqrt_().unsqueeze(1))
    return torch.mm(vectors.mT, vectors)


@op("whitened", locality="state", infer=_infer_whitened, scratch_bytes=_whitened_bytes)
def whitened(out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile) -> None:
    """(ÛᵀÛ)^(-1/2)·Σ·V⊥ᵀ with V⊥ = V̂·(V̂ᵀV̂)^(-1/2): what lines of Û are multiplied with."""
    gram, *triplets = ins
    torch.cat([each[:-1] for each in triplets], out=out)
    if not torch.isfinite(gram.sum() + out.sum()):
        out.fill_(torch.nan)
        return
    right = torch.mm(_inverse_root(torch.mm(out, out.mT)), out)
    right.mul_(torch.cat([each[-1, : each.shape[0] - 1] for each in triplets]).unsqueeze(1))
    torch.mm(_inverse_root(gram), right, out=out)


def _infer_left_times(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    *others, matrix = specs
    vectors = _count_of(others, attrs, "left_times")
    require_space([matrix], "state", "left_times' matrix")
    if matrix.shape != (vectors, lines_of(specs[0].shape).width):
        raise GraphError("left_times takes a line for each left vector")
    return specs[0]


def _left_times_bytes(specs: Sequence[TensorSpec], _elements: int) -> int:
    return _left_bytes(specs) + 8 * PANEL_LINES * lines_of(specs[0].shape).width


@op("left_times", locality="panel", infer=_infer_left_times, scratch_bytes=_left_times_bytes)
def left_times(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, width: int, columns: bool
) -> None:
    """Û·R: task matrices, their triplets, and a matrix R with a line for each left vector."""
    tasks = len(ins) // 2
    tiles, target = [as_lines(x, width, columns) for x in ins[:tasks]], as_lines(out, width, columns)
    shape = (PANEL_LINES, width)
    panel, product, left = matrices(scratch, shape, shape, (ins[-1].shape[0], PANEL_LINES))
    for lines in panels(tiles[0]):
        torch.mm(_left(tiles, ins[tasks:-1], lines, panel, left), ins[-1], out=product)
        target[lines] = product[: lines.stop - lines.start]
