"""Which ranges of which stored tensors a load or a gather reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .opdef import Tile
from .row_map import RowMap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .graph import Node
    from .model import StoredTensor


class Piece(NamedTuple):
    """A range of a result: ``own`` of its elements, which are ``stored`` of a leaf, or zeros where there is none."""

    leaf: StoredTensor | None
    stored: Tile
    own: slice


def pieces(node: Node, leaves: Sequence[StoredTensor], part: Tile) -> Iterator[Piece]:
    """What a range of the result is made of, in its order; ``own`` counts from the start of the range."""
    if node.op.name == "load":
        yield Piece(leaves[node.slots[0]], part, slice(0, part.elements))
        return
    rows, row_elements = _rows(node)
    for first, stop, source, stored in rows.stretches(part, row_elements):
        own = slice(first - part.lo, stop - part.lo)
        leaf = leaves[node.slots[source]] if source >= 0 else None
        yield Piece(leaf, Tile(stored, stored + stop - first), own)


def read_elements(node: Node, part: Tile) -> int:
    """How many elements of a range are read rather than zeros."""
    if node.op.name == "load":
        return part.elements
    rows, row_elements = _rows(node)
    return rows.read_elements(part, row_elements)


def _rows(node: Node) -> tuple[RowMap, int]:
    rows = node.attr("rows")
    assert isinstance(rows, RowMap)
    return rows, node.spec.elements // max(len(rows.values), 1)
