"""The other processes of a run, as process 0 sees them: begun, watched, waited for, and told to stop."""

from __future__ import annotations

import signal
import socket
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..engine.errors import ProcessError
from ..engine.progress import Part, Progress, together
from ..interrupts import INTERRUPTED
from ..loaders.roster import Peer, Reporter, process_file

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from ..engine.progress import Callback
    from ..loaders.roster import Report, State

_LOOK_SECONDS = 0.1
"""Between two looks at the others, once the own part is done."""

_BEGIN_SECONDS = 600.0
"""How long a process that somebody else started may take until it is heard of."""

_TOO_LITTLE_MEMORY, _DEFECT = 4, 1


class Crew:
    """Processes 1 and up of a run, as a ``with`` block inside which they work; without any, it does nothing.

    ``planned`` has for each of them what it has to do; ``begin`` tells them to begin, and returns those that were
    started here. Leaving the block with an error tells the others to stop, and waits until they have.
    """

    def __init__(
        self,
        folder: Path,
        run: str,
        planned: Mapping[int, Progress],
        begin: Callable[[], Mapping[int, subprocess.Popen[bytes]]],
    ) -> None:
        self._folder, self._begin = folder, begin
        self._peers = [Peer(folder, run, number) for number in planned]
        self._progress = dict(planned)
        self._children: Mapping[int, subprocess.Popen[bytes]] = {}
        self._reporter = Reporter(folder, run, 0) if planned else None

    def __enter__(self) -> Crew:
        if self._reporter is not None:
            self._reporter.__enter__()
            try:
                self._children = self._begin()
            except BaseException:
                self._leave("failed")
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reporter is None:
            return
        if kind is not None:
            self._reporter.say("stopped")
            while not all(self._has_ended(peer) for peer in self._peers):
                time.sleep(_LOOK_SECONDS)
        for child in self._children.values():
            child.wait()
        self._leave("done" if kind is None else "failed")

    def _leave(self, state: State) -> None:
        """Have the last word, and clear up."""
        assert self._reporter is not None
        self._reporter.last_word(state)
        for number in (0, *(peer.process for peer in self._peers)):
            path = process_file(self._folder, number)
            for left in (path, path.with_name(path.name + ".tmp")):
                left.unlink(missing_ok=True)

    def watching(self, progress: Callback | None) -> Callback | None:
        """A callback for process 0's own part: looks at the others, and shows what all have done together."""
        if self._reporter is None:
            return progress

        def look(now: Progress) -> None:
            self._check()
            if progress is not None:
                progress(together([now, *self._progress.values()]))

        return look

    def wait(self, own: Progress, progress: Callback | None) -> Progress:
        """Return what all have done, when they have; ``own`` is what this process did. Raises ProcessError."""
        started = time.perf_counter() - own.seconds
        while not self._check():
            if progress is not None:
                now = together([own, *self._progress.values()], seconds=time.perf_counter() - started)
                progress(now)
            time.sleep(_LOOK_SECONDS)
        final = together([own, *self._progress.values()], seconds=time.perf_counter() - started)
        if progress is not None and self._peers:
            progress(final)
        return final

    def facts(self) -> list[Mapping[str, Any]]:
        """What each of the others said when it was done."""
        reports = (peer.report for peer in self._peers)
        return [report.facts["process"] for report in reports if report is not None and report.facts is not None]

    def _check(self) -> bool:
        """Whether all others are done; ProcessError if one failed or is gone."""
        done = True
        for peer in self._peers:
            report = peer.look()
            if report is not None and report.state == "failed":
                lines = (f"{_name(report)}: {line}" for line in _lines(report))
                raise ProcessError(report.exit_code, *lines, may_go_on=report.may_go_on)
            if report is not None and report.facts is not None:
                self._progress[peer.process] = progress_of(report.facts)
            done = done and report is not None and report.state == "done"
            if (report is None or not report.is_last) and self._is_gone(peer):
                raise self._lost(peer)
        return done

    def _is_gone(self, peer: Peer) -> bool:
        child = self._children.get(peer.process)
        if child is not None:
            if child.poll() is None:
                return False
            report = peer.look()  # its last word came first
            return report is None or not report.is_last
        if peer.report is None:
            return peer.silent_seconds > _BEGIN_SECONDS
        return peer.is_gone

    def _has_ended(self, peer: Peer) -> bool:
        report = peer.look()
        if peer.process in self._children:
            return self._children[peer.process].poll() is not None
        # One that was never heard of finds the run stopped when it comes.
        return report is None or report.is_last or peer.is_gone

    def _lost(self, peer: Peer) -> ProcessError:
        child = self._children.get(peer.process)
        if child is None:
            if peer.report is not None and peer.report.host == socket.gethostname():
                what = f"process {peer.process} is gone"
            else:
                where = f" on {peer.report.host}" if peer.report is not None else ""
                silent = f"nothing new for {peer.silent_seconds:.0f} s"
                what = f"process {peer.process}{where} is gone, or cannot be heard: {silent}"
            return ProcessError(_TOO_LITTLE_MEMORY, f"{what}; it may have been short of memory")
        code = child.returncode
        if code is not None and code < 0:
            killed = code == -getattr(signal, "SIGKILL", 9)
            name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
            why = "; the system may have been short of memory" if killed else ""
            return ProcessError(
                _TOO_LITTLE_MEMORY if killed else _DEFECT, f"process {peer.process} was ended by {name}{why}"
            )
        return ProcessError(code or _DEFECT, f"process {peer.process} left with exit code {code} and said nothing")


def facts_of(progress: Progress) -> dict[str, dict[str, Any]]:
    """How far a process is, as plain values."""
    return {"progress": asdict(progress)}


def progress_of(facts: Mapping[str, Mapping[str, Any]]) -> Progress:
    """How far a process is, from what `facts_of` made of that and JSON made of it."""
    given = dict(facts["progress"])
    given |= {"stages": tuple(given["stages"]), "parts": tuple(Part(*part) for part in given["parts"])}
    return Progress(**given)


def _lines(report: Report) -> list[str]:
    return report.message.splitlines() or ["interrupted" if report.exit_code == INTERRUPTED else "failed"]


def _name(report: Report) -> str:
    return f"process {report.process}" + (f" on {report.host}" if report.host != socket.gethostname() else "")
