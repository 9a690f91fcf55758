"""A matrix in lines along its longer side, so that what is known of all pairs of lines' elements is small.

A line is a row, or a column where the matrix is wider than tall. Either way a matrix has ``number`` lines of ``width``
elements, ``number`` ≥ ``width``, and its Gram matrix over the lines is ``width`` by ``width``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .opdef import GraphError, Tile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PANEL_LINES = 256
"""Lines that are multiplied at once. Fixed, because the order of a product's sums depends on its shape."""


class Lines(NamedTuple):
    """A matrix's lines: how many, of how many elements, and whether they are columns."""

    number: int
    width: int
    columns: bool

    def ranges(self, tile: Tile) -> Iterator[Tile]:
        """The contiguous ranges of the matrix that a tile is made of.

        A tile counts elements line by line: it has lines ``lo / width`` to ``hi / width``. Its own elements are a
        matrix in the same order of dimensions as the whole one.
        """
        if not self.columns:
            yield tile
            return
        first, lines = tile.lo // self.width, tile.elements // self.width
        for row in range(self.width):
            start = row * self.number + first
            yield Tile(start, start + lines)


def lines_of(shape: Sequence[int]) -> Lines:
    """The lines of a matrix that is not empty; GraphError for anything else."""
    if len(shape) != 2 or 0 in shape:
        raise GraphError(f"a matrix with elements has lines, not {list(shape)}")
    rows, columns = shape
    return Lines(max(rows, columns), min(rows, columns), rows < columns)
