"""What a run held and moved over time, in a fixed amount of memory however long it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_SAMPLES = 200


class Sample(NamedTuple):
    """One moment of a run: since when, what was read and written so far, and the resident memory then."""

    seconds: float
    bytes_read: int
    bytes_written: int
    resident_bytes: int


class Samples:
    """Moments of a run, evenly thinned: every n-th of those that were added, n doubling as they become too many."""

    def __init__(self, most: int = MOST_SAMPLES) -> None:
        self._most = most
        self._kept: list[Sample] = []
        self._last: Sample | None = None
        self._stride = 1
        self._count = 0

    def add(self, sample: Sample) -> None:
        """Take a moment later than the ones before."""
        self._last = sample
        if self._count % self._stride == 0:
            if len(self._kept) == self._most - 1:  # one place is for the last
                del self._kept[1::2]
                self._stride *= 2
            if self._count % self._stride == 0:
                self._kept.append(sample)
        self._count += 1

    def rows(self) -> Sequence[Sample]:
        """What is kept, the first and the last moment always, in the order of time."""
        last = [self._last] if self._last is not None and self._last is not self._kept[-1] else []
        return (*self._kept, *last)

    def columns(self) -> Mapping[str, list[float] | list[int]]:
        """The same by column, as plain numbers; seconds in milliseconds' precision."""
        rows = self.rows()
        return {
            "seconds": [round(row.seconds, 3) for row in rows],
            "bytes_read": [row.bytes_read for row in rows],
            "bytes_written": [row.bytes_written for row in rows],
            "resident_bytes": [row.resident_bytes for row in rows],
        }
