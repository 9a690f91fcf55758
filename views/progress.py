"""Progress while a merge runs: a live line on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..engine.units import format_bytes, format_seconds
from .console import messages

if TYPE_CHECKING:
    from types import TracebackType

    from ..engine.execute import Progress

PLAIN_SECONDS = 5.0
"""Between two lines where there is no terminal."""

_SETTLE_SECONDS = 1.0
"""No time left is shown before this: the first tiles say little about the rest."""


class RunProgress:
    """A callback for a run that shows bytes, rate, time left, and memory now against the bound."""

    def __init__(self, bound_bytes: int, *, enabled: bool) -> None:
        self._bound_bytes, self._enabled = bound_bytes, enabled
        self._console = messages()
        self._live: Live | None = None
        self._process = psutil.Process()
        self._last_line_seconds = 0.0

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
        memory_bytes = int(self._process.memory_info().rss)
        if self._live is not None:
            self._live.update(self._line(progress, memory_bytes), refresh=True)
        elif progress.seconds - self._last_line_seconds >= PLAIN_SECONDS:
            self._last_line_seconds = progress.seconds
            self._console.print(self._text(progress, memory_bytes))

    def _line(self, progress: Progress, memory_bytes: int) -> Table:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            ProgressBar(total=1.0, completed=progress.share, width=24), Text(self._text(progress, memory_bytes))
        )
        return grid

    def _text(self, progress: Progress, memory_bytes: int) -> str:
        moved_bytes = progress.bytes_read + progress.bytes_written
        rate = moved_bytes / progress.seconds if progress.seconds else 0.0
        left = "…"
        if rate and progress.seconds > _SETTLE_SECONDS:
            left = format_seconds((progress.bytes_total - moved_bytes) / rate)
        return (
            f"{progress.share:4.0%}  {format_bytes(moved_bytes)} of {format_bytes(progress.bytes_total)}"
            f"  {format_bytes(rate)}/s  {left} left"
            f"  memory {format_bytes(memory_bytes)} of {format_bytes(self._bound_bytes)}"
        )
