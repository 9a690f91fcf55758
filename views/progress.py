"""Progress while a merge runs: two live lines on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..engine.units import format_bytes, format_count, format_seconds
from .console import messages, print_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ..engine.progress import Progress

PLAIN_SECONDS = 5.0
"""Between two lines where there is no terminal."""

_RATE_SECONDS = 10.0
"""The rate is that of the last seconds: copies and merged tensors differ, and what counts is how it goes now."""

_SETTLE_SECONDS = 1.0
"""No time left is shown before this: the first tiles say little about the rest."""


class RunProgress:
    """A callback for a run that shows bytes, rate, time left, and memory now against the bound.

    ``resident_bytes`` tells what the process holds at the moment; ``bound_bytes`` is None where there is no bound.
    """

    def __init__(self, bound_bytes: int | None, resident_bytes: Callable[[], int], *, enabled: bool) -> None:
        self._bound_bytes, self._resident_bytes, self._enabled = bound_bytes, resident_bytes, enabled
        self._console = messages()
        self._live: Live | None = None
        self._last_line_seconds = 0.0
        self._recent: deque[tuple[float, int]] = deque([(0.0, 0)])

    def __enter__(self) -> RunProgress:
        if self._enabled and self._console.is_terminal:
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        """Show one state of the run."""
        if not self._enabled:
            return
        if progress.seconds < self._recent[-1][0]:  # the next part of the work, counted anew
            self._recent, self._last_line_seconds = deque([(0.0, 0)]), 0.0
        memory_bytes = self._resident_bytes()
        rate = self._rate(progress)
        if self._live is not None:
            self._live.update(_screen(progress, rate, memory_bytes, self._bound_bytes), refresh=True)
        elif progress.seconds - self._last_line_seconds >= PLAIN_SECONDS:
            self._last_line_seconds = progress.seconds
            line = f"{progress.share:4.0%}  {work(progress, rate)}, {time_left(progress, rate)}"
            print_lines(self._console, [Text(f"{line}, {memory(memory_bytes, self._bound_bytes)}")])

    def _rate(self, progress: Progress) -> float:
        """Bytes a second over the last seconds, read and written together."""
        moved_bytes = progress.bytes_read + progress.bytes_written
        self._recent.append((progress.seconds, moved_bytes))
        while len(self._recent) > 2 and progress.seconds - self._recent[1][0] >= _RATE_SECONDS:
            self._recent.popleft()
        seconds, before_bytes = self._recent[0]
        return (moved_bytes - before_bytes) / (progress.seconds - seconds) if progress.seconds > seconds else 0.0


def work(progress: Progress, rate: float) -> str:
    """Bytes, read and written together, and how fast."""
    moved_bytes = progress.bytes_read + progress.bytes_written
    return f"{format_bytes(moved_bytes)} of {format_bytes(progress.bytes_total)} at {format_bytes(rate)}/s"


def time_left(progress: Progress, rate: float) -> str:
    """How long it will take at a rate."""
    if rate <= 0 or progress.seconds < _SETTLE_SECONDS:
        return "time left not known yet"
    left_bytes = progress.bytes_total - progress.bytes_read - progress.bytes_written
    return f"{format_seconds(left_bytes / rate)} left"


def memory(now_bytes: int, bound_bytes: int | None) -> str:
    """Resident memory of this process and, where there is a bound, what it may take."""
    return f"memory {format_bytes(now_bytes)}" + (f" of {format_bytes(bound_bytes)}" if bound_bytes else "")


def _screen(progress: Progress, rate: float, memory_bytes: int, bound_bytes: int | None) -> Group:
    """A bar as wide as the screen leaves, and below it the figures."""
    tensors = f"{format_count(progress.tensors_done)} of {format_count(progress.tensors_total)} tensors"
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True, justify="right")
    bar.add_row(
        ProgressBar(total=1.0, completed=progress.share), Text(f"{progress.share:4.0%}, {time_left(progress, rate)}")
    )
    figures = Text(f"{work(progress, rate)}, {memory(memory_bytes, bound_bytes)}, {tensors}")
    figures.no_wrap, figures.overflow = True, "ellipsis"
    return Group(bar, figures)
