"""The processes of a run as files in its folder: who is at work, how far each is, and how it ended.

Every process replaces a file of its own, twice a second and once more at its end; the others read it. Nothing else
passes between them, so a shared folder that can rename a file is all that several machines need.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..engine.errors import UsageError
from ..engine.signals import held_back
from .lock import runs, this_process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

PROCESS_FILE = "plait-process-"

BEAT_SECONDS = 0.5
"""Between two reports of a process."""

SILENT_SECONDS = 180.0
"""A process of another machine that has reported nothing new for so long is taken for dead: caches of shared folders
show a file as it was up to a minute ago."""

_LEAVING_SECONDS = 20.0
"""How long processes of a run whose first process is gone may take to notice that and to leave."""

_WATCHED_SECONDS = 3.0
"""How long processes of other machines are watched for a sign of life."""

_FULL = (errno.ENOSPC, errno.EDQUOT)

_ATTEMPTS, _PAUSE_SECONDS = 10, 0.05
"""Some systems do not let a file be replaced while somebody reads it."""

State: TypeAlias = Literal["working", "done", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Report:
    """What a process says of itself.

    ``run`` is the run's token, ``beat`` counts the reports. ``message`` and ``exit_code`` say why it failed, and
    ``may_go_on`` whether that may be another time; ``facts`` are how far it is or, when it is done, what it did.
    """

    run: str
    process: int
    pid: int
    host: str
    started: float
    beat: int = 0
    state: State = "working"
    message: str = ""
    exit_code: int = 0
    may_go_on: bool = True
    facts: Mapping[str, Mapping[str, Any]] | None = None

    @property
    def is_last(self) -> bool:
        """Whether the process has nothing more to say."""
        return self.state in ("done", "failed")


class Reporter:
    """Keeps this process's file up to date, as a ``with`` block; the last word stays there when the block is left."""

    def __init__(self, folder: Path, run: str, process: int) -> None:
        own = this_process()
        self._path = process_file(folder, process)
        self._report = Report(run, process, int(own["pid"]), str(own["host"]), float(own["started"]))
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="plait-report", daemon=True)

    def __enter__(self) -> Reporter:
        self._write()
        try:
            with held_back():
                self._thread.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def say(self, state: State = "working", facts: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Have this said from now on; a new state at once."""
        at_once = state != self._report.state
        with self._lock:
            self._report = replace(self._report, state=state, facts=facts or self._report.facts)
        if at_once:
            self._write()

    def last_word(self, state: State, message: str = "", exit_code: int = 0, *, may_go_on: bool = True) -> bool:
        """Say how it ended, and nothing after that; whether it could be said."""
        self._end()
        self._report = replace(self._report, state=state, message=message, exit_code=exit_code, may_go_on=may_go_on)
        return self._write()

    def _end(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self._write()

    def _write(self) -> bool:
        with self._lock:
            self._report = report = replace(self._report, beat=self._report.beat + 1)
            temporary = self._path.with_name(self._path.name + ".tmp")
            data = json.dumps(asdict(report)).encode()
            for _ in range(_ATTEMPTS):
                try:
                    temporary.write_bytes(data)
                    temporary.replace(self._path)
                except FileNotFoundError:
                    return False  # the folder is gone
                except OSError as error:
                    if error.errno in _FULL:
                        return self._write_over(data, temporary)
                    time.sleep(_PAUSE_SECONDS)
                else:
                    return True
            return False

    def _write_over(self, data: bytes, temporary: Path) -> bool:
        """Put a report in the place of the last one, which a full disk still has room for; whether that worked.

        Who reads it half written goes by the one before.
        """
        try:
            temporary.unlink(missing_ok=True)
            with self._path.open("r+b") as file:
                file.write(data)
                file.truncate()
        except OSError:
            return False
        return True


class Peer:
    """Another process of a run, as its file shows it."""

    def __init__(self, folder: Path, run: str, process: int) -> None:
        self._path, self._run = process_file(folder, process), run
        self.process = process
        self.report: Report | None = None
        self.is_replaced = False
        self._seen_seconds = self._changed_seconds = time.monotonic()

    def look(self) -> Report | None:
        """What it says now, or said last; None while it has said nothing in this run."""
        found = read_report(self._path)
        if found is None:
            return self.report
        self._seen_seconds = time.monotonic()
        self.is_replaced = found.run != self._run
        if not self.is_replaced and (self.report is None or found.beat != self.report.beat):
            self.report, self._changed_seconds = found, self._seen_seconds
        return self.report

    @property
    def missing_seconds(self) -> float:
        """Since when its file is not there."""
        return time.monotonic() - self._seen_seconds

    @property
    def silent_seconds(self) -> float:
        """Since when it has said nothing new."""
        return time.monotonic() - self._changed_seconds

    @property
    def is_gone(self) -> bool:
        """Whether it has ended without a last word."""
        report = self.report
        if report is None or report.host != socket.gethostname():
            return self.silent_seconds > SILENT_SECONDS
        if runs(report.pid, report.started):
            return False
        report = self.look()  # it may have ended in between, in order
        return report is None or not report.is_last


def process_file(folder: Path, process: int) -> Path:
    """Where a process reports."""
    return folder / f"{PROCESS_FILE}{process:04d}"


def read_report(path: Path) -> Report | None:
    """A process's report; None where there is none that can be read."""
    try:
        return Report(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def clear_roster(folder: Path) -> None:
    """Remove the reports of an earlier run, once its processes have left; UsageError if they do not."""
    files = [path for path in folder.glob(f"{PROCESS_FILE}*") if not path.name.endswith(".tmp")]
    reports = [report for report in map(read_report, files) if report is not None and not report.is_last]
    far = [report for report in reports if report.host != socket.gethostname()]
    deadline = time.monotonic() + _LEAVING_SECONDS
    for report in reports:
        while report not in far and report.pid != os.getpid() and runs(report.pid, report.started):
            if time.monotonic() > deadline:
                _refuse(folder, report)
            time.sleep(_PAUSE_SECONDS)
    if far:
        time.sleep(_WATCHED_SECONDS)
        for report in far:
            now = read_report(process_file(folder, report.process))
            if now is not None and not now.is_last and now.beat != report.beat:
                _refuse(folder, report)
    for path in folder.glob(f"{PROCESS_FILE}*"):
        path.unlink(missing_ok=True)


def _refuse(folder: Path, report: Report) -> None:
    raise UsageError(
        f"{folder}: process {report.process} of an earlier run, {report.pid} on {report.host}, is still at work; "
        "wait for it, or end it"
    )
