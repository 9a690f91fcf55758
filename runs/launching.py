"""A process among those that ``accelerate launch`` started, maybe on several machines."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..api import recipe_text
from ..engine.devices import launched_here
from ..engine.errors import UsageError
from ..loaders.folder import folder_beside
from .job import Job
from .member import work

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


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
    launch = Launch(state.process_index, state.num_processes, launched_here(state.num_processes))
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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
