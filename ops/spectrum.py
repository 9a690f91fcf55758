"""The spectrum of a matrix without the matrix: through its Gram matrix over the longer side, in float64.

Let the lines of an m×n task matrix be its rows, or its columns where m < n, so that P, lines as rows, is tall:
P = U·Σ·Vᵀ with V small. Then PᵀP = V·Σ²·Vᵀ, which is added up panel by panel, has V and Σ, and U = P·V·Σ⁻¹ comes
line by line. Lines as columns give the transposed result, so nothing below asks which they are.

A square loses half of the digits: singular values below √(max(width, 64)·2⁻⁵²) of the largest, about 1e-6 at a width of
4096, cannot be told from rounding noise and count as zero, and the directions that belong to them as absent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..engine.graph import Attr, Node, TensorSpec
from ..engine.opdef import GraphError, Tile, op, require_space, same_shape
from ..engine.panels import PANEL_LINES, lines_of
from .elementwise import is_zero, zeros

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_BLOCK = 512
"""Columns of a Gram matrix that are added up at once, below the diagonal only: the rest is the same again."""

_EIGEN_BYTES = 16 << 20
"""What matrix products and the eigenvalue solver take besides arrays: buffers, code pages, as measured with MKL."""


def eigen_bytes(width: int) -> int:
    """The most that `eigen_` allocates for a matrix of so many columns."""
    return 8 * 2 * width * (width + 4) + _EIGEN_BYTES


def eigen_(gram: torch.Tensor, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Singular values (ascending; 0 where they are noise) and the eigenvectors, as columns of ``vectors.mT``.

    ``gram`` is read below its diagonal only, ``vectors`` (square, contiguous) is overwritten: its rows are the vectors.
    """
    width = gram.shape[0]
    squares = torch.empty(width, dtype=torch.float64)
    torch.linalg.eigh(gram, UPLO="L", out=(squares, vectors.mT))
    noise = squares[-1] * (max(width, 64) * 2.0**-52)
    return torch.where(squares > noise, squares, 0.0).clamp_(min=0.0).sqrt_(), vectors


def as_lines(x: torch.Tensor, width: int, columns: bool) -> torch.Tensor:
    """A tile's elements as a matrix of its lines, (lines, width)."""
    return x.view(width, -1).mT if columns else x.view(-1, width)


def panels(tile: torch.Tensor) -> Iterator[slice]:
    """The lines of a tile in groups of PANEL_LINES, the last one may be smaller."""
    for start in range(0, tile.shape[0], PANEL_LINES):
        yield slice(start, min(start + PANEL_LINES, tile.shape[0]))


def fill_(panel: torch.Tensor, tile: torch.Tensor, lines: slice) -> None:
    """Copy lines of a tile into a panel (PANEL_LINES, width), filled up with zeros.

    Every panel lies in the same memory and has the same shape: how a product is added up depends on both.
    """
    count = lines.stop - lines.start
    panel[:count] = tile[lines]
    panel[count:] = 0.0


def matrices(scratch: torch.Tensor, *shapes: tuple[int, int]) -> list[torch.Tensor]:
    """Matrices of float64, one after the other in the scratch; their contents are anything."""
    room, found = scratch.view(torch.float64), []
    for rows, columns in shapes:
        found.append(room[: rows * columns].view(rows, columns))
        room = room[rows * columns :]
    return found


def add_square_(gram: torch.Tensor, panel: torch.Tensor) -> None:
    """Add panelᵀ·panel, (width, width), to what is on and below the diagonal."""
    for start in range(0, panel.shape[1], _BLOCK):
        left, right = panel[:, start:], panel[:, start : start + _BLOCK]
        gram[start:, start : start + _BLOCK].addmm_(left.mT, right)


def require_matrix(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr], op_name: str) -> TensorSpec:
    """GraphError unless all are task matrices of float32 or float64 with the lines that the attributes say."""
    require_space(specs, "delta", op_name)
    spec = same_shape(specs, op_name)
    lines = lines_of(spec.shape)
    if spec.dtype not in (torch.float32, torch.float64):
        raise GraphError(f"{op_name} takes float32 or float64 elements")
    if (attrs["width"], attrs["columns"]) != (lines.width, lines.columns):
        raise GraphError(f"{op_name}: the lines have {lines.width} elements, not {attrs['width']}")
    return spec


# ------------------------------------------------------------------------------------------------ gram matrix


def _infer_gram(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    width = lines_of(require_matrix(specs, attrs, "line_gram").shape).width
    return TensorSpec((width, width), torch.float64, "state")


@op(
    "line_gram",
    locality="whole",
    infer=_infer_gram,
    scratch_bytes=lambda specs, _elements: 8 * PANEL_LINES * lines_of(specs[0].shape).width,
)
def line_gram(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, width: int, columns: bool
) -> None:
    """The Gram matrix PᵀP of a task matrix's lines, on and below the diagonal."""
    (panel,), tile = matrices(scratch, (PANEL_LINES, width)), as_lines(ins[0], width, columns)
    for lines in panels(tile):
        fill_(panel, tile, lines)
        add_square_(out, panel)


# ------------------------------------------------------------------------------------------------ flat spectrum


def _infer_flattener(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "state", "flattener")
    if len(specs[0].shape) != 2 or specs[0].shape[0] != specs[0].shape[1]:
        raise GraphError("flattener takes a Gram matrix")
    return specs[0]


@op(
    "flattener",
    locality="state",
    infer=_infer_flattener,
    scratch_bytes=lambda specs, _elements: eigen_bytes(specs[0].shape[0]),
)
def flattener(out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile) -> None:
    """From PᵀP = VΣ²Vᵀ to σ̄·VΣ⁻¹Vᵀ, with which P becomes σ̄·UVᵀ; σ̄ is the mean of all singular values."""
    (gram,) = ins
    if not torch.isfinite(gram.sum()):
        out.fill_(torch.nan)
        return
    sigma, vectors = eigen_(gram, out)
    kept = sigma > 0
    factors = torch.where(kept, sigma.mean() / torch.where(kept, sigma, 1.0), 0.0)
    vectors.mul_(factors.sqrt_().unsqueeze(1))
    out.copy_(torch.mm(vectors.mT, vectors))


def _infer_times(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs[1:], "state", "times' matrix")
    spec = require_matrix(specs[:1], attrs, "times")
    width = lines_of(spec.shape).width
    if len(specs) != 2 or specs[1].shape != (width, width):
        raise GraphError("times takes a task matrix and a square one as wide as its lines")
    return spec


def _simplify_times(inputs: Sequence[Node], _attrs: Mapping[str, Attr]) -> Node | None:
    return zeros(inputs[0].spec) if is_zero(inputs[0]) else None


@op(
    "times",
    locality="panel",
    infer=_infer_times,
    simplify=_simplify_times,
    scratch_bytes=lambda specs, _elements: 2 * 8 * PANEL_LINES * lines_of(specs[0].shape).width,
)
def times(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, width: int, columns: bool
) -> None:
    """P·M: each line of a task matrix times a square matrix."""
    x, matrix = ins
    panel, product = matrices(scratch, (PANEL_LINES, width), (PANEL_LINES, width))
    tile, target = as_lines(x, width, columns), as_lines(out, width, columns)
    for lines in panels(tile):
        fill_(panel, tile, lines)
        torch.mm(panel, matrix, out=product)
        target[lines] = product[: lines.stop - lines.start]
