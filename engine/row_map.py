"""Tables with an entry a row, as attributes of ops: compared and hashed by what they hold."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .opdef import Tile


class RowTable:
    """A number for each row of a tensor, [rows]; two with the same numbers are equal."""

    __slots__ = ("__dict__", "values")

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = np.ascontiguousarray(values)
        self.values.setflags(write=False)

    @cached_property
    def _key(self) -> tuple[str, bytes]:
        return (str(self.values.dtype), hashlib.sha256(self.values.tobytes()).digest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowTable) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"<{len(self.values)} rows>"


class Stretch(NamedTuple):
    """Elements ``first`` to ``stop`` of a gathered tensor: from element ``stored`` on of the source, or zeros (−1)."""

    first: int
    stop: int
    source: int
    stored: int


class RowMap(RowTable):
    """Which row of which source each row of a tensor is, ``source`` and ``row`` [rows]; source −1 is a row of zeros."""

    __slots__ = ()

    def __init__(self, source: NDArray[Any], row: NDArray[Any]) -> None:
        super().__init__(np.where(source < 0, np.int64(-1), (source.astype(np.int64) << 32) | row.astype(np.int64)))

    def __repr__(self) -> str:
        return f"<{len(self.values)} rows in {len(self._starts)} stretches>"

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The rows at which a stretch of neighbours, or of zeros, begins."""
        steps = np.diff(self.values)
        goes_on = np.where(self.values[:-1] >= 0, steps == 1, steps == 0)
        return np.concatenate([np.zeros(min(len(self.values), 1), np.int64), np.flatnonzero(~goes_on) + 1])

    @property
    def is_identity(self) -> bool:
        """Whether the rows are those of the first source from its first on, in their order."""
        return len(self._starts) == 1 and int(self.values[0]) == 0

    @cached_property
    def _present(self) -> NDArray[np.int64]:
        """Rows before each one that are not zeros, [rows + 1]."""
        return np.concatenate([[0], np.cumsum(self.values >= 0)])

    def stretches(self, tile: Tile, row_elements: int) -> Iterator[Stretch]:
        """What a range of elements is made of, in its order."""
        if tile.lo >= tile.hi:
            return
        starts = self._starts
        index = int(np.searchsorted(starts, tile.lo // row_elements, side="right")) - 1
        first = tile.lo
        while first < tile.hi:
            start = int(starts[index])
            stop_row = int(starts[index + 1]) if index + 1 < len(starts) else len(self.values)
            stop = min(stop_row * row_elements, tile.hi)
            found = int(self.values[start])
            stored = (found & 0xFFFFFFFF) * row_elements + first - start * row_elements
            yield Stretch(first, stop, found >> 32, stored) if found >= 0 else Stretch(first, stop, -1, 0)
            first, index = stop, index + 1

    def read_elements(self, tile: Tile, row_elements: int) -> int:
        """How many elements of a range are read."""
        if row_elements == 0 or tile.lo >= tile.hi:
            return 0
        first, last = tile.lo // row_elements, (tile.hi - 1) // row_elements
        whole = int(self._present[last + 1] - self._present[first]) * row_elements
        before = (tile.lo - first * row_elements) if self.values[first] >= 0 else 0
        after = ((last + 1) * row_elements - tile.hi) if self.values[last] >= 0 else 0
        return whole - before - after
