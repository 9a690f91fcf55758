"""A process of a run that makes a part of it: what ``--processes`` starts, and what joins under ``accelerate launch``.

It plans as process 0 does, finds its shards by itself, and writes them and a journal of its own. It looks at process 0
as often as progress is shown, and stops when that has stopped or is gone.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.errors import OutputError, PlaitError, ProcessError
from ..interrupts import INTERRUPTED, in_order
from ..loaders.roster import Peer, Reporter
from .job import read_job

if TYPE_CHECKING:
    from ..engine.journal import Batch
    from ..engine.model import StoredTensor
    from ..engine.progress import Progress
    from .job import Job

_JOURNAL_SECONDS = 60.0
"""How long a shared folder may take to show the run's journal."""

_MISSING_SECONDS = 5.0
"""For so long the report of process 0 may be missing."""

_PAUSE_SECONDS = 0.05


class _Leader:
    """Process 0, from here."""

    def __init__(self, job: Job) -> None:
        self._peer = Peer(Path(job.folder), job.run, 0)

    def check(self) -> bool:
        """Whether it is at work; False while it has not been heard of. ProcessError if the run has ended for all."""
        report = self._peer.look()
        ended = report is not None and (report.state != "working" or self._peer.is_gone)
        if ended or self._peer.is_replaced or self._peer.missing_seconds > _MISSING_SECONDS:
            raise ProcessError(INTERRUPTED, "process 0 has stopped")
        return report is not None


def work(job: Job) -> int:
    """Do a job; the exit code. What went wrong is in the process's report, and process 0 tells it."""
    with Reporter(Path(job.folder), job.run, job.number) as reporter:
        try:
            facts = _make(job, reporter)
        except PlaitError as error:
            message, code, may_go_on = str(error), error.exit_code, error.may_go_on
        except KeyboardInterrupt:
            message, code, may_go_on = "interrupted", INTERRUPTED, True
        except BaseException as error:  # whatever it is, process 0 has to hear of it
            traceback.print_exception(error)
            message, code, may_go_on = f"this is a defect of plait: {type(error).__name__}: {error}", 1, True
        else:
            reporter.say(facts=facts)
            reporter.last_word("done")
            return 0
        told = reporter.last_word("failed", message, code, may_go_on=may_go_on)
        if not told and code != INTERRUPTED:  # that the run has stopped is no news
            sys.stderr.writelines(f"error: process {job.number}: {line}\n" for line in message.splitlines())
        return code


def _make(job: Job, reporter: Reporter) -> dict[str, dict[str, Any]]:
    """Write the part of a run that is this process's; returns what it did."""
    from ..api import RecipeText, plan
    from ..engine.journal import Journal
    from ..engine.recorder import batch_of
    from ..engine.resumption import finished_by
    from ..loaders.folder import journal_of
    from ..loaders.shards import LeftShards
    from .crew import facts_of
    from .identity import identity_of, refuse_changed, refuse_unlike, samples_of
    from .writing import check_open_files, write_part

    folder, leader = Path(job.folder), _Leader(job)
    merge = plan(RecipeText(*job.recipe), **job.options)
    head, before = _beginning(folder, job, leader)
    identity = identity_of(merge, allow_nonfinite=job.allow_nonfinite)
    refuse_unlike(head, identity | {"samples": samples_of(merge)})
    shards = merge.parts.shares[job.number]
    part, disk = merge.parts.of(shards), LeftShards(folder, [merge.shards[number] for number in shards])
    finished = finished_by(part, before, missing=disk.missing)
    let_through: set[StoredTensor] | None = set() if job.allow_nonfinite else None
    check_open_files(folder, len(shards))

    def look(now: Progress) -> None:
        reporter.say(facts=facts_of(now))
        leader.check()

    head = {"journal": head["journal"], "run": job.run, "process": job.number, "shards": list(shards)}
    with closing(Journal(journal_of(folder, job.number), head, [batch_of(part, disk, finished, ())])) as journal:
        written = write_part(
            merge, shards, folder, disk.states, finished, journal, let_through=let_through, progress=look
        )
    refuse_changed(merge.models.values())
    return facts_of(written.progress) | {"process": merge.parts.facts(job.number, written)}


def _beginning(folder: Path, job: Job, leader: _Leader) -> tuple[dict[str, object], tuple[Batch, ...]]:
    """The head of the run's journal, and its first batch: what was finished before this run."""
    from ..engine.journal import read_journal
    from ..loaders.folder import journal_of

    path, deadline = journal_of(folder, 0), time.monotonic() + _JOURNAL_SECONDS
    while True:
        found = read_journal(path) if leader.check() and path.exists() else None
        if found is not None and found[0].get("run") == job.run:
            return found[0], found[1][:1]
        if time.monotonic() > deadline:
            raise OutputError(
                f"{path}: process 0 has begun this file elsewhere; all machines have to write to one shared folder"
            )
        time.sleep(_PAUSE_SECONDS)


def main() -> None:
    """Do the job on standard input."""
    job = read_job(sys.stdin.read())
    # Ctrl-C goes to every process of a terminal; process 0 tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with in_order():
        sys.exit(work(job))


if __name__ == "__main__":
    main()
