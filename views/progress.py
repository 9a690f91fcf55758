"""Progress while a run works: live lines on a terminal, a live table in a notebook, plain lines elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..engine.units import format_bytes, format_count, format_seconds
from .console import messages, print_lines, showable
from .notebook import NotebookTable, display_of
from .pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from rich.console import Console

    from ..engine.progress import Callback, Progress

PLAIN_SECONDS = 5.0
"""Between two lines where there is no terminal."""

STAGE_TITLES = {"tensors": "tensors", "finish": "flush, index, card", "verify": "verify"}


@contextmanager
def callback_of(
    progress: Callback | bool | None, bound_bytes: int | None, resident_bytes: Callable[[], int]
) -> Iterator[Callback | None]:
    """The callback that was given; for True one that shows what the command line shows."""
    if progress is True:
        with RunProgress(bound_bytes, resident_bytes, enabled=True) as shown:
            yield shown
    else:
        yield progress or None


class RunProgress:
    """A callback that shows stages, bytes in and out, time left, workers, and memory now and at its peak.

    ``resident_bytes`` tells what the process holds at the moment; ``bound_bytes`` is None where there is no bound.
    Where IPython runs a kernel, the figures are a table below the cell. Use it in a ``with`` block.
    """

    def __init__(self, bound_bytes: int | None, resident_bytes: Callable[[], int], *, enabled: bool) -> None:
        self._resident_bytes, self._enabled = resident_bytes, enabled
        self._pace = Pace(bound_bytes)
        self._console = messages()
        self._live: Live | None = None
        self._table: NotebookTable | None = None
        self._last_line_seconds = 0.0

    def __enter__(self) -> RunProgress:
        if not self._enabled:
            return self
        display = display_of()
        if display is not None:
            self._table = NotebookTable(display)
        elif self._console.is_terminal:
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._table is not None and kind is None:  # it stays, so its last state is that of the end
            self._table.show(rows(self._pace, over=True), 1.0)

    def __call__(self, progress: Progress) -> None:
        """Show one state of the run."""
        if not self._enabled:
            return
        if self._pace.take(progress, self._resident_bytes()):
            self._last_line_seconds = 0.0  # the next part of the work, counted anew
        if self._table is not None:
            self._table.show(rows(self._pace), self._pace.share)
        elif self._live is not None:
            self._live.update(screen(self._pace, self._console), refresh=True)
        elif progress.seconds - self._last_line_seconds >= PLAIN_SECONDS:
            self._last_line_seconds = progress.seconds
            print_lines(self._console, [Text(plain(self._pace))])


def plain(pace: Pace) -> str:
    """All of it in one line."""
    stage = f"{STAGE_TITLES.get(pace.now.stage, pace.now.stage)}: " if pace.now.stage != "tensors" else ""
    return f"{pace.share:4.0%}  {stage}{moved(pace)}, {time_left(pace)}, {memory(pace)}"


def moved(pace: Pace) -> str:
    """Bytes in and out, and how fast; of all of them where both go together."""
    now = pace.now
    parts = [f"in {format_bytes(now.bytes_read)} at {format_bytes(pace.read_rate)}/s"] if now.bytes_read else []
    if now.bytes_written:
        parts.append(f"out {format_bytes(now.bytes_written)} at {format_bytes(pace.write_rate)}/s")
    return ", ".join(parts) or "nothing moved yet"


def time_left(pace: Pace) -> str:
    """How long it will take."""
    if pace.seconds_left is None:
        return "done" if pace.share == 1.0 else "time left not known yet"
    return f"{format_seconds(pace.seconds_left)} left"


def memory(pace: Pace) -> str:
    """Resident memory of this process, the most of it so far, what it may take, and what it has on accelerators."""
    bound = f" of {format_bytes(pace.bound_bytes)}" if pace.bound_bytes else ""
    device = f", {format_bytes(pace.now.device_bytes)} on the device" if pace.now.device_bytes else ""
    return f"memory {format_bytes(pace.memory_bytes)}, peak {format_bytes(pace.peak_bytes)}{bound}{device}"


def workers(pace: Pace) -> str:
    """How many workers are busy."""
    return f"{pace.busy_workers:.1f} of {pace.now.workers} workers busy" if pace.now.workers else ""


def stages(pace: Pace, *, over: bool = False) -> str:
    """The stages of the run, and which one is under way, or all of them where it is over."""
    now = pace.now
    under_way = now.stages.index(now.stage) if now.stage in now.stages else 0
    under_way = len(now.stages) if over else under_way
    said = []
    for index, stage in enumerate(now.stages):
        mark = "✓ " if index < under_way else "· " if index > under_way else "→ "
        said.append(mark + STAGE_TITLES.get(stage, stage))
    return "  ".join(said)


def tensors(pace: Pace) -> str:
    """How many tensors are done, and of which sort."""
    now = pace.now
    done = f"{format_count(now.tensors_done)} of {format_count(now.tensors_total)} tensors"
    parts = [f"{part.title} {format_count(part.done)}/{format_count(part.total)}" for part in now.parts]
    return done + (f" ({', '.join(parts)})" if len(parts) > 1 else "")


def rows(pace: Pace, *, over: bool = False) -> list[tuple[str, str]]:
    """The figures by name, for a table; those of the end where the run is over."""
    busy = [("workers", workers(pace))] if pace.now.workers else []
    several = [("stage", stages(pace, over=over))] if len(pace.now.stages) > 1 else []
    return [
        *several,
        ("tensors", tensors(pace)),
        ("bytes", moved(pace)),
        ("memory", memory(pace).removeprefix("memory ")),
        *busy,
        ("time", f"{format_seconds(pace.now.seconds)}{'' if over else f' so far, {time_left(pace)}'}"),
    ]


def screen(pace: Pace, console: Console) -> Group:
    """A bar as wide as the screen leaves, and below it the figures."""
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True, justify="right")
    bar.add_row(ProgressBar(total=1.0, completed=pace.share), Text(f"{pace.share:4.0%}, {time_left(pace)}"))
    busy = f", {workers(pace)}" if pace.now.workers else ""
    lines = [*([stages(pace)] if len(pace.now.stages) > 1 else []), f"{tensors(pace)}{busy}", moved(pace), memory(pace)]
    figures = [Text(showable(console, line), no_wrap=True, overflow="ellipsis") for line in lines]
    return Group(bar, *figures)
