"""Writes shards, or what they lack: the part of a run that is a process's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from ..engine import host
from ..engine.device_use import DevicesInUse
from ..engine.errors import OutputError
from ..engine.execute import execute
from ..engine.recorder import Recorder
from ..engine.resumption import kept_bytes, remaining
from ..loaders.positioned_io import FilePool
from ..loaders.writer import ShardWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ..engine.execute import Run
    from ..engine.journal import Finished, Journal
    from ..engine.model import StoredTensor
    from ..engine.progress import Callback, Progress
    from ..engine.timing import Profiler
    from ..engine.worker import Worker
    from ..loaders.shards import ShardState
    from ..merge import MergePlan

CACHED_SHARE = 0.5
"""Inputs above this share of free memory are read past the page cache: it could not keep them anyway."""

_INPUT_FILES, _OTHER_FILES = 64, 64
"""Input files that are open at once, and what else a process has open."""


@dataclass(frozen=True)
class Written:
    """What was done: how far it came, the bytes written, headers and all, and the seconds of waiting for the disk.

    ``notes`` are what devices have to say, ``device_peaks_bytes`` the most that was taken of each one's memory.
    """

    progress: Progress
    bytes_written: int
    flush_seconds: float
    notes: Sequence[str] = ()
    device_peaks_bytes: Mapping[str, int] = field(default_factory=dict)


def write_part(
    merge: MergePlan,
    shards: Sequence[int],
    folder: Path,
    states: Mapping[str, ShardState],
    finished: Finished,
    journal: Journal,
    *,
    let_through: set[StoredTensor] | None,
    progress: Callback | None,
    profiler: Profiler | None = None,
    flushing: Callable[[], None] | None = None,
) -> Written:
    """Write shards, or what they lack.

    ``finished`` is what an earlier run has finished of their tensors; what this one does is added. ``flushing`` is
    called when all is computed, and some of it still on its way to the disk.
    """
    plan = merge.parts.of(shards)
    left = remaining(plan, finished)
    expected = {file.path: file.size_bytes for model in merge.models.values() for file in model.files}
    direct = sum(expected.values()) > host.free_memory_bytes() * CACHED_SHARE
    with (
        FilePool(_INPUT_FILES, expected, direct=direct) as files,
        ShardWriter(folder, [merge.shards[number] for number in shards], files, states) as writer,
    ):
        writer.keep(kept_bytes(plan, left))
        recorder = Recorder(journal, plan, writer, finished, let_through)
        use = DevicesInUse(plan) if plan.placement.devices else None
        final = execute(
            plan,
            files,
            writer,
            progress,
            let_through=let_through,
            left=left,
            recorder=recorder,
            rates=merge.rates,
            timed=_workers(use, profiler),
        )
        if flushing is not None:
            flushing()
        writer.finish()
        notes, peaks_bytes = (use.notes, use.measured_peaks_bytes()) if use is not None else ((), {})
        return Written(final, writer.bytes_written, recorder.flush_seconds, notes, peaks_bytes)


def _workers(use: DevicesInUse | None, profiler: Profiler | None) -> Callable[[Run], Worker] | None:
    """What makes the workers; None for the usual ones."""
    if profiler is not None:
        return partial(profiler.worker, use=use)
    return use.worker if use is not None else None


def check_open_files(out: Path, shards: int) -> None:
    """OutputError if too few files may be open for so many shards."""
    # A file that is read or written past the page cache is open twice.
    open_files = 2 * (shards + _INPUT_FILES) + _OTHER_FILES
    if not host.allow_open_files(open_files):
        raise OutputError(
            f"{out}: {shards} shards need {open_files} open files, which is more than the system "
            "allows; raise the limit (ulimit -n), or choose a larger --shard-size"
        )
