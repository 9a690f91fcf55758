"""How fast a run goes, from what it tells of itself: rates of the last seconds, peak, time left."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ..engine.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

RATE_SECONDS = 10.0
"""Rates are those of the last seconds: copies and merged tensors differ, and what counts is how it goes now."""

SETTLE_SECONDS = 1.0
"""No time left is shown before this: the first tiles say little about the rest."""


class _Moment(NamedTuple):
    seconds: float
    bytes_read: int
    bytes_written: int
    busy_seconds: float


class Pace:
    """The last state of a run and what follows from those before it. ``bound_bytes`` is None without a bound."""

    def __init__(self, bound_bytes: int | None) -> None:
        self.bound_bytes = bound_bytes
        self.now = Progress(0, 0, 0, 0, 0, 0.0)
        self.memory_bytes = self.peak_bytes = 0
        self._recent = deque([_Moment(0.0, 0, 0, 0.0)])

    def take(self, now: Progress, memory_bytes: int) -> bool:
        """Take the next state, and what the process holds; True where another part of the work has begun."""
        another = now.seconds < self._recent[-1].seconds
        if another:
            self._recent = deque([_Moment(0.0, 0, 0, 0.0)])
        self.now, self.memory_bytes = now, memory_bytes
        self.peak_bytes = max(self.peak_bytes, memory_bytes)
        self._recent.append(_Moment(now.seconds, now.bytes_read, now.bytes_written, now.busy_seconds))
        while len(self._recent) > 2 and now.seconds - self._recent[1].seconds >= RATE_SECONDS:
            self._recent.popleft()
        return another

    @property
    def read_rate(self) -> float:
        """Bytes read a second."""
        return self._rate(lambda moment: moment.bytes_read)

    @property
    def write_rate(self) -> float:
        """Bytes written a second."""
        return self._rate(lambda moment: moment.bytes_written)

    @property
    def busy_workers(self) -> float:
        """How many workers are at work, on average."""
        return min(self._rate(lambda moment: moment.busy_seconds), float(self.now.workers))

    @property
    def share(self) -> float:
        """Part of the work that is done, 0 to 1: by the time it takes where that is known, else by bytes."""
        return self.now.share if self.now.work_share is None else self.now.work_share

    @property
    def seconds_left(self) -> float | None:
        """As the run itself knows it, else by the bytes; None as long as nothing can be said."""
        now, rate = self.now, self.read_rate + self.write_rate
        if now.seconds < SETTLE_SECONDS and now.stage == "tensors":
            return None
        if now.seconds_left is not None or now.work_share is not None:
            return now.seconds_left
        return (now.bytes_total - now.bytes_read - now.bytes_written) / rate if rate > 0.0 else None

    def _rate(self, figure: Callable[[_Moment], float]) -> float:
        first, last = self._recent[0], self._recent[-1]
        return (figure(last) - figure(first)) / (last.seconds - first.seconds) if last.seconds > first.seconds else 0.0
