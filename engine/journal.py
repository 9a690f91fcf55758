"""The journal of a run: which stretches of the output are on disk, so that an interrupted run can go on.

An append-only text file. A line is a checksum and a JSON value: first a head that says which run it is, then a line
for every batch of stretches that was made durable before the line was written. A line that was cut short when the
power went, and whatever follows it, does not count.
"""

from __future__ import annotations

import json
import os
import zlib
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .errors import OutputError
from .opdef import Tile
from .units import align_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path


class Stretch(NamedTuple):
    """A range of flat elements of a tensor, ``position`` in the graph's islands, as its last pass counts them.

    ``panels`` says that the pass counts line by line. ``probe`` is a checksum of bytes at the stretch's end, read
    back from the disk; None where there was no need for one.
    """

    position: int
    lo: int
    hi: int
    panels: bool
    probe: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What became durable at once, and the inputs' tensors, (model, name), whose NaN or infinity was let through.

    ``overflows`` has, for positions in the graph's islands, how many elements in these stretches became infinity.
    """

    stretches: tuple[Stretch, ...]
    nonfinite: tuple[tuple[str, str], ...] = ()
    overflows: tuple[tuple[int, int], ...] = ()


class Finished:
    """Finished stretches of every tensor, as few as can be, and how many elements in them became infinity."""

    def __init__(self) -> None:
        self._ranges: dict[int, list[tuple[int, int]]] = {}
        self.overflows: dict[int, int] = {}

    def add(self, position: int, lo: int, hi: int) -> None:
        """Add a range; it is joined with those that it touches or overlaps."""
        if lo >= hi:
            return
        ranges = self._ranges.setdefault(position, [])
        first = last = bisect_left(ranges, (lo, lo))
        if first and ranges[first - 1][1] >= lo:
            first -= 1
        while last < len(ranges) and ranges[last][0] <= hi:
            last += 1
        if first < last:
            lo, hi = min(lo, ranges[first][0]), max(hi, ranges[last - 1][1])
        ranges[first:last] = [(lo, hi)]

    def count(self, position: int, overflowed: int) -> None:
        """Add to the elements of a tensor's stretches that became infinity."""
        if overflowed:
            self.overflows[position] = self.overflows.get(position, 0) + overflowed

    def take(self, position: int, other: Finished) -> None:
        """Add what another one has of a tensor."""
        for lo, hi in other.ranges(position):
            self.add(position, lo, hi)
        self.count(position, other.overflows.get(position, 0))

    def only(self, positions: AbstractSet[int]) -> Finished:
        """What is finished of these tensors."""
        found = Finished()
        for position in positions & self._ranges.keys():
            found.take(position, self)
        return found

    def drop(self, position: int) -> None:
        """Forget a tensor."""
        self._ranges.pop(position, None)
        self.overflows.pop(position, None)

    def positions(self) -> tuple[int, ...]:
        """The tensors that have finished stretches."""
        return tuple(self._ranges)

    def ranges(self, position: int) -> tuple[tuple[int, int], ...]:
        """The finished ranges of a tensor, in order."""
        return tuple(self._ranges.get(position, ()))

    def elements(self, position: int) -> int:
        """Finished elements of a tensor."""
        return sum(hi - lo for lo, hi in self._ranges.get(position, ()))

    def gaps(self, position: int, elements: int, step: int) -> tuple[Tile, ...]:
        """What a tensor of so many elements still lacks, widened to multiples of ``step``."""
        found: list[Tile] = []
        at = 0
        for lo, hi in (*self._ranges.get(position, ()), (elements, elements)):
            if at < lo:
                start, end = at // step * step, min(align_up(lo, step), elements)
                if found and found[-1].hi >= start:
                    start = found.pop().lo
                found.append(Tile(start, end))
            at = hi
        return tuple(found)


class Journal:
    """A journal that is written: begun whole or not at all, then appended to. Raises OutputError, naming the file."""

    def __init__(self, path: Path, head: Mapping[str, object], batches: Iterable[Batch] = ()) -> None:
        self.path = path
        temporary = path.with_name(path.name + ".tmp")
        try:
            with temporary.open("wb") as file:
                for value in (dict(head), *map(_as_json, batches)):
                    file.write(_line(value))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}") from error

    def append(self, batch: Batch) -> None:
        """Add a batch; on disk when this returns."""
        try:
            self._file.write(_line(_as_json(batch)))
            getattr(os, "fdatasync", os.fsync)(self._file.fileno())
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._file.close()


def read_journal(path: Path) -> tuple[dict[str, object], tuple[Batch, ...]] | None:
    """The head and the batches of a journal as far as they are whole; None where not even the head is.

    Raises OutputError if the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}") from error
    values = _values(data)
    if not values or not isinstance(values[0], dict):
        return None
    return values[0], tuple(_as_batch(value) for value in values[1:])


def _values(data: bytes) -> Sequence[dict[str, object]]:
    values = []
    for line in data.split(b"\n")[:-1]:  # what follows the last line end was cut short
        digest, _, text = line.partition(b" ")
        if digest != b"%08x" % zlib.crc32(text):
            break
        values.append(json.loads(text))
    return values


def _line(value: object) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _as_json(batch: Batch) -> dict[str, object]:
    value: dict[str, object] = {"done": [list(stretch) for stretch in batch.stretches]}
    for name, pairs in (("nonfinite", batch.nonfinite), ("overflows", batch.overflows)):
        if pairs:
            value[name] = [list(pair) for pair in pairs]
    return value


def _as_batch(value: Mapping[str, object]) -> Batch:
    done, nonfinite, overflows = value["done"], value.get("nonfinite", []), value.get("overflows", [])
    assert isinstance(done, list)
    assert isinstance(nonfinite, list)
    assert isinstance(overflows, list)
    return Batch(
        tuple(Stretch(*entry) for entry in done),
        tuple((model, name) for model, name in nonfinite),
        tuple((position, count) for position, count in overflows),
    )
