"""Has the other processes of a run begin: starts them on this machine, or tells those that a launcher started."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from ..engine.errors import ProcessError
from ..engine.progress import Progress
from ..engine.resumption import remaining, spared_bytes
from .crew import Crew
from .job import Job

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..engine.journal import Finished
    from ..loaders.folder import OutputFolder
    from ..merge import MergePlan
    from .launching import Launch


def crew_of(
    merge: MergePlan,
    folder: OutputFolder,
    run: str,
    finished: Finished,
    launch: Launch | None,
    allow_nonfinite: bool,
) -> Crew:
    """The processes that make what process 0 does not; they begin when the crew's block does."""
    planned = {number: _planned(merge, shards, finished) for number, shards in enumerate(merge.parts.shares) if number}
    recipe = merge.source.as_tuple()

    def start() -> Mapping[int, subprocess.Popen[bytes]]:
        if launch is not None:
            launch.tell(
                {"run": run, "beside": folder.is_beside, "processes": len(merge.parts.shares), "recipe": recipe}
            )
            return {}
        job = Job(str(folder.path.absolute()), run, 0, recipe, merge.options, allow_nonfinite)
        return _start([replace(job, number=number) for number in planned])

    return Crew(folder.path, run, planned, start)


def _planned(merge: MergePlan, shards: tuple[int, ...], finished: Finished) -> Progress:
    """What a process has to do, nothing of it done."""
    part = merge.parts.of(shards)
    left = remaining(part, finished.only(part.positions))
    total_bytes = part.bytes_read + part.bytes_written - part.header_bytes - spared_bytes(part, left)
    return Progress(0, 0, total_bytes, 0, len(part.sequence), 0.0, work_share=0.0)


def _start(jobs: list[Job]) -> dict[int, subprocess.Popen[bytes]]:
    """Start a process for each job."""
    children: dict[int, subprocess.Popen[bytes]] = {}
    try:
        with _no_interrupt():
            for job in jobs:
                children[job.number] = subprocess.Popen(
                    [sys.executable, "-m", f"{__package__}.member"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )
        for job in jobs:
            standard_input = children[job.number].stdin
            assert standard_input is not None
            with suppress(BrokenPipeError), standard_input:
                standard_input.write(job.as_json())
    except BaseException as error:
        for child in children.values():
            child.kill()
            child.wait()
        if isinstance(error, OSError):
            raise ProcessError(4, f"process {len(children) + 1} cannot be started: {error.strerror}") from error
        raise
    return children


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Keep Ctrl-C from processes that are started inside until they can ignore it; here it comes a little later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
