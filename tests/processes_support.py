"""Several processes at one merge: real ones that take their time, and cheap ones that are threads of the tests' own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from plait.engine.errors import Interrupted, ProcessError
from plait.loaders.roster import Report, process_file, read_report
from plait.runs.member import work
from resume_support import SHARD_BYTES, merge, stopping_at_read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from plait.runs.job import Job

_SLOWLY = """
import sys
if {name!r} in sys.orig_argv or "plait.runs.member" in sys.orig_argv:
    import signal, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where the tests run in the background
    from plait.engine import plan, recorder
    from plait.loaders.positioned_io import FilePool
    recorder.BATCH_SECONDS = 0.02
    plan.FULL_SPEED_TILE_ELEMENTS = 4096
    read = FilePool.read_into
    def slow(self, *given):
        time.sleep({pause_seconds})
        read(self, *given)
    FilePool.read_into = slow
"""
"""For sitecustomize, which Python runs in every process before anything else."""


def start(
    folder: Path, *arguments: str, pause_seconds: float = 0.004, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a merge of several processes, each of which takes a second or so."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_SLOWLY.format(name="recipe.yml", pause_seconds=pause_seconds))
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "plait", "run", "recipe.yml", "out", "--shard-size", str(SHARD_BYTES), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a test can press Ctrl-C in it
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})},
    )


def launch(folder: Path, *arguments: str, machines: int, pause_seconds: float = 0.0) -> list[subprocess.Popen[str]]:
    """Start two processes as ``accelerate launch`` does, on one machine, or on two that are this one twice."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return [
        start(
            folder,
            *arguments,
            pause_seconds=pause_seconds,
            environment={
                "RANK": str(rank),
                "LOCAL_RANK": str(rank if machines == 1 else 0),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": str(2 // machines),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
        )
        for rank in (0, 1)
    ]


def reports(folder: Path, numbers: Sequence[int]) -> list[Report]:
    """Wait until these processes of a run all make tensors, and return what they say."""
    deadline = time.monotonic() + 60
    while True:
        found = [read_report(process_file(folder, number)) for number in numbers]
        ready = [report for report in found if report is not None and (report.facts or report.process == 0)]
        if len(ready) == len(numbers):
            return ready
        assert time.monotonic() < deadline
        time.sleep(0.005)


def has_ended(pid: int, seconds: float = 20.0) -> bool:
    """Whether a process ends within a time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


@contextlib.contextmanager
def as_threads(before: Callable[[Job], Job] = lambda job: job) -> Iterator[None]:
    """Have a run's processes be threads of this one: the same code and files, without two seconds of start each.

    ``before`` may change their jobs, or the world, when process 0 is under way.
    """
    started: list[threading.Thread] = []

    def start_threads(jobs: Sequence[Job]) -> dict[int, Any]:
        for job in map(before, jobs):
            started.append(threading.Thread(target=work, args=(job,), name="plait-member"))
            started[-1].start()
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plait.runs.starting._start", start_threads)
        patch.setattr("plait.loaders.roster.BEAT_SECONDS", 0.01)
        patch.setattr("plait.runs.crew._LOOK_SECONDS", 0.005)
        yield
    for thread in started:
        thread.join(30)
        assert not thread.is_alive()


def interrupt(folder: Path, number: int, **given: Any) -> bool:
    """Merge with threads for processes until a read, and stop there; False where there were not so many reads."""
    with as_threads(), stopping_at_read(number):
        try:
            merge(folder, **given)
        except (Interrupted, ProcessError):
            return True
    return False


def linked(shared: Path, folder: Path) -> Path:
    """The same inputs in another folder."""
    for name in ("family", "recipe.yml"):
        (folder / name).symlink_to(shared / name)
    return folder
