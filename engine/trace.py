"""What a thread did when, in a fixed amount of memory, and as a trace that chrome://tracing and Perfetto open."""

from __future__ import annotations

import gzip
import json
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from .samples import Sample

MOST_EVENTS = 1 << 15
"""Events that a track holds at most: 20 bytes each."""


class Track:
    """Stretches of time of one thread, one after the other. Where they get too many, the shorter half goes.

    ``code`` says what a stretch was; who writes the trace knows the names. A stretch shorter than
    ``shortest_seconds`` is left out from then on.
    """

    def __init__(self, most: int = MOST_EVENTS) -> None:
        self._most = most
        self._starts, self._seconds, self._codes = array("d"), array("d"), array("L")
        self.shortest_seconds = 0.0
        self.left_out = 0

    def add(self, code: int, started: float, ended: float) -> None:
        """Take a stretch; one that goes on where the last of the same code was is that one's rest."""
        seconds = ended - started
        if seconds < self.shortest_seconds:
            self.left_out += 1
            return
        self._starts.append(started)
        self._seconds.append(seconds)
        self._codes.append(code)
        if len(self._codes) > self._most:
            self._thin()

    def extend(self, code: int, started: float, ended: float) -> None:
        """Take a stretch; where the last one has the same code, it lasts until the end of this one."""
        if self._codes and self._codes[-1] == code:
            self._seconds[-1] = ended - self._starts[-1]
        else:
            self.add(code, started, ended)

    def stretches(self) -> Iterator[tuple[int, float, float]]:
        """Code, start and seconds of each, in the order of time."""
        return zip(self._codes, self._starts, self._seconds, strict=True)

    def _thin(self) -> None:
        self.shortest_seconds = sorted(self._seconds)[len(self._seconds) // 2 + 1]
        kept = [index for index, seconds in enumerate(self._seconds) if seconds >= self.shortest_seconds]
        if len(kept) > self._most // 2 + 1:  # many of the same length
            kept = kept[::2]
        self.left_out += len(self._codes) - len(kept)
        self._starts = array("d", (self._starts[index] for index in kept))
        self._seconds = array("d", (self._seconds[index] for index in kept))
        self._codes = array("L", (self._codes[index] for index in kept))


class NamedTrack:
    """A track, what it is called, and what its codes stand for: a name and the arguments shown with it."""

    def __init__(self, title: str, track: Track, name_of: Callable[[int], tuple[str, dict[str, object]]]) -> None:
        self.title, self.track, self.name_of = title, track, name_of


def write_trace(path: Path, tracks: Sequence[NamedTrack], samples: Sequence[Sample]) -> None:
    """Write a trace, gzip-compressed JSON, event by event. Raises OSError.

    The format is that of the Trace Event Format, version 2016: complete events (``X``) by thread and counters
    (``C``), times in microseconds.
    """
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
        separator = ""
        for event in _events(tracks, samples):
            file.write(separator + json.dumps(event))
            separator = ",\n"
        left_out = {
            each.title: {"events": each.track.left_out, "shorter_than_seconds": each.track.shortest_seconds}
            for each in tracks
            if each.track.left_out
        }
        file.write('\n], "otherData": ' + json.dumps({"left_out": left_out}) + "}\n")


def _events(tracks: Sequence[NamedTrack], samples: Sequence[Sample]) -> Iterator[dict[str, object]]:
    yield {"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": "plait"}}
    for thread, each in enumerate(tracks, 1):
        yield {"ph": "M", "pid": 1, "tid": thread, "name": "thread_name", "args": {"name": each.title}}
        yield {"ph": "M", "pid": 1, "tid": thread, "name": "thread_sort_index", "args": {"sort_index": thread}}
        end = 0.0
        for code, started, seconds in each.track.stretches():
            name, arguments = each.name_of(code)
            # Rounded to nanoseconds, neighbours still do not overlap.
            start = max(round(started * 1e6, 3), end)
            end = max(round((started + seconds) * 1e6, 3), start)
            duration = round(end - start, 3)
            end = round(start + duration, 3)
            yield {"ph": "X", "pid": 1, "tid": thread, "name": name, "ts": start, "dur": duration, "args": arguments}
    for sample in samples:
        micros = round(sample.seconds * 1e6, 3)
        held = {"resident": sample.resident_bytes}
        moved = {"read": sample.bytes_read, "written": sample.bytes_written}
        yield {"ph": "C", "pid": 1, "tid": 0, "name": "memory bytes", "ts": micros, "args": held}
        yield {"ph": "C", "pid": 1, "tid": 0, "name": "bytes so far", "ts": micros, "args": moved}
