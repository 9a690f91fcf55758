"""How the processes of a run come to be: started here, or by ``accelerate launch``, maybe on several machines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .crew import Crew
from .engine.errors import ProcessError, UsageError
from .engine.execute import Progress
from .engine.resumption import remaining, spared_bytes
from .loaders.folder import folder_beside
from .member import Job, work

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .engine.journal import Finished
    from .loaders.folder import OutputFolder
    from .merge import MergePlan

_MEETING = timedelta(hours=1)
"""How long processes may wait for process 0 to begin; if it is gone, they hear of it at once."""

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers say how many processes they started."""


class Launch:
    """The place of this process among those of an ``accelerate launch``; ``local_size`` are on this machine.

    They meet once, through torch.distributed: when process 0 has begun, or cannot. From then on files are enough.
    """

    def __init__(self, number: int, size: int, local_size: int) -> None:
        self.number, self.size, self.local_size = number, size, local_size
        self._met = False

    def tell(self, message: Mapping[str, Any] | None) -> None:
        """As process 0: tell the others how to begin, or with None that there is nothing to do."""
        if not self._met:
            self._meet(message)

    def hear(self) -> Mapping[str, Any] | None:
        """As another process: what process 0 tells."""
        return self._meet(None)

    def join(self, recipe: str, out: str | Path | None, options: Mapping[str, Any], *, allow_nonfinite: bool) -> int:
        """Do this process's part of a run; the exit code."""
        heard = self.hear()
        if heard is None or out is None:
            return 0 if heard is None else 2
        if self.number >= heard["processes"]:
            return 0  # there are fewer shards than processes
        from .api import recipe_text

        folder = folder_beside(Path(out)) if heard["beside"] else Path(out)
        # Standard input is process 0's alone.
        text = tuple(heard["recipe"]) if recipe == "-" else recipe_text(recipe).as_tuple()
        return work(Job(str(folder), heard["run"], self.number, text, options, allow_nonfinite))

    def _meet(self, message: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        import torch.distributed

        self._met = True
        told = [message]
        try:
            torch.distributed.broadcast_object_list(told, src=0)
        except RuntimeError as error:
            raise UsageError(f"process 0 is gone before the run began ({_first_line(error)})") from None
        finally:
            torch.distributed.destroy_process_group()
        return told[0]


@contextmanager
def launched() -> Iterator[Launch | None]:
    """The place of this process among those that a launcher started, None where it is alone.

    If process 0 leaves the block with an error before the run has begun, the others hear of that.
    """
    if all(os.environ.get(name, "1") in ("", "0", "1") for name in _SIZES):
        yield None
        return
    from accelerate import PartialState

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # threads are ours to choose
            state = PartialState(cpu=True, timeout=_MEETING)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"this process was started as one of several (WORLD_SIZE), and they cannot meet: {_first_line(error)}"
        ) from None
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE") or state.num_processes)
    launch = Launch(state.process_index, state.num_processes, max(local_size, 1))
    try:
        yield launch
    finally:
        if launch.number == 0:
            with suppress(Exception):  # what goes wrong here has gone wrong before
                launch.tell(None)


def processes_of(launch: Launch | None, processes: int) -> dict[str, int | None]:
    """What a plan has to know of processes: how many, and how many of them on this machine. Raises UsageError."""
    if launch is None:
        return {"processes": processes, "processes_here": None}
    if processes > 1:
        raise UsageError(f"--processes {processes}: {launch.size} processes were started already; leave it out")
    return {"processes": launch.size, "processes_here": launch.local_size}


def started_alone() -> str | None:
    """What to say where accelerate was to start several processes and has started one: its --cpu takes an MPI."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() != "true" or "MASTER_PORT" not in os.environ:
        return None
    return (
        "accelerate launch --cpu started this process alone, as it does without --mpirun_hostfile; on one machine "
        "plait run --processes N starts several, on several machines accelerate launch --multi_gpu, GPUs or not"
    )


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
    return Progress(0, 0, total_bytes, 0, len(part.sequence), 0.0)


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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
