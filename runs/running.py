"""A run from an empty or an interrupted folder to a finished one."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from ..engine import host
from ..engine.compile import names_by_model
from ..engine.errors import Interrupted, OutputError, PlaitError, PlanError
from ..engine.journal import Batch, Finished, Journal
from ..engine.recorder import batch_of
from ..engine.resumption import share_of, unfinished
from ..engine.timing import Profiler
from ..engine.units import MIB, align_up, format_bytes
from ..loaders.card import render_card
from ..loaders.folder import OutputFolder, free_disk_bytes
from ..loaders.shards import LeftShards
from ..loaders.writer import INDEX_FILE, index_of
from ..reports.verification import needed_bytes, verified
from .identity import identity_of, refuse_changed, samples_of
from .manifest import manifest_of, overflow_warnings
from .merge_result import result_of
from .profiling import profiled
from .starting import crew_of
from .taking_up import take_up
from .unused import rows_by_input, unused_by_input
from .watching import Watch
from .writing import check_open_files, write_part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine.model import StoredTensor
    from ..engine.progress import Callback, Progress
    from ..engine.samples import Samples
    from ..loaders.shards import ShardState
    from ..merge import MergePlan, MergeResult
    from .launching import Launch


def run_merge(
    merge: MergePlan,
    out: Path,
    *,
    overwrite: bool,
    resume: bool,
    allow_nonfinite: bool,
    verify: bool = False,
    profile: bool = False,
    progress: Callback | None,
    launch: Launch | None = None,
) -> MergeResult:
    """Carry out a plan; see MergePlan.run."""
    started = time.perf_counter()
    if verify and not merge.plan.afterwards_bytes:
        merge = _with_room_to_verify(merge)
    check_seconds = merge.plan.bytes_written / merge.rates.check_bytes if verify else 0.0
    watch = Watch(
        progress,
        predicted_seconds=merge.predicted_seconds,
        check_seconds=check_seconds,
        children=len(merge.parts.shares) > 1,
    )
    profiler = Profiler() if profile else None
    inputs = {Path(model.folder) for model in merge.models.values()}
    with OutputFolder(out, overwrite=overwrite, resume=resume, inputs=inputs) as folder:
        work = _Work(merge, folder, allow_nonfinite=allow_nonfinite, launch=launch)
        try:
            final = work.fill(watch, profiler)
            watch.enter("finish")
            nonfinite = work.nonfinite
            overflows = work.overflows
            work.warnings += overflow_warnings(merge.plan, overflows)
            result = result_of(
                merge,
                out,
                moved_bytes=(final.bytes_read, work.bytes_written),
                seconds=time.perf_counter() - started,
                resumed=folder.goes_on,
                processes=work.processes,
                nonfinite=nonfinite,
                warnings=work.warnings,
            )
            _finish(merge, folder, result, nonfinite, overflows, watch.samples, allow_nonfinite=allow_nonfinite)
        except KeyboardInterrupt as interruption:
            raise (Interrupted(work.kept_share) if work.began else interruption) from None
        except PlaitError as error:
            if work.began and error.may_go_on:
                error.kept_share = work.kept_share
            raise
        watch.enter("verify")
        if profiler is not None:
            result = profiled(folder, merge.plan, profiler, watch, work.flush_seconds, result)
        return verified(folder, result, watch.verifying) if verify else result


def _with_room_to_verify(merge: MergePlan) -> MergePlan:
    """A plan that was made without a verification, and one counted in. PlanError where that is more than allowed."""
    plan = replace(merge.plan, afterwards_bytes=needed_bytes(merge.tensors))
    if plan.predicted_peak_bytes > plan.budget_bytes:
        enough_bytes = align_up(plan.predicted_peak_bytes, MIB)
        raise PlanError(
            f"with the output's verification this needs {enough_bytes // MIB}MiB of memory, and "
            f"{format_bytes(plan.budget_bytes)} are allowed; allow more, or verify the output afterwards",
            enough_bytes,
        )
    return replace(merge, plan=plan)


class _Work:
    """The shards of a run, and what an interrupted run has left to do of them."""

    def __init__(self, merge: MergePlan, folder: OutputFolder, *, allow_nonfinite: bool, launch: Launch | None) -> None:
        self.merge, self.folder, self.launch = merge, folder, launch
        self.began = False
        self.bytes_written = 0
        self.flush_seconds = 0.0
        self.warnings: list[str] = []
        self.processes: Sequence[Mapping[str, Any]] = ()
        self._allow_nonfinite = allow_nonfinite
        self._identity = identity_of(merge, allow_nonfinite=allow_nonfinite)
        self._let_through: set[StoredTensor] | None = set() if allow_nonfinite else None
        self._finished = Finished()
        self._states: Mapping[str, ShardState] = {}
        self._is_alone = len(merge.parts.shares) == 1

    @property
    def kept_share(self) -> float:
        """Part of the output that is written down as finished."""
        if not self._is_alone:
            with suppress(PlaitError):
                self._finished = take_up(self.merge, self.folder.path, self._identity).finished
        return share_of(self.merge.plan, self._finished)

    @property
    def nonfinite(self) -> dict[str, list[str]]:
        """Names of the tensors whose NaN or infinity was let through, by model; both as the models have them."""
        models, found = self.merge.models.values(), self._let_through or set()
        tensors = (stored for model in models for stored in model.tensors.values()) if found else ()
        return names_by_model((stored for stored in tensors if stored in found), models)

    @property
    def overflows(self) -> dict[str, int]:
        """How many elements of an output tensor became infinity, where any did."""
        islands, counts = self.merge.plan.graph.islands, self._finished.overflows
        return {name: counts[position] for position in sorted(counts) for name in islands[position].outputs}

    def fill(self, watch: Watch, profiler: Profiler | None) -> Progress:
        """Write the shards, or what they lack."""
        merge, folder = self.merge, self.folder
        batches = [Batch(())]
        if folder.goes_on:
            batches = [self._take_up()]
            self.began = True
        _check_room(merge, folder)
        run, shards = token_hex(8), merge.parts.shares[0]
        head = self._identity | {"run": run, "shards": None if self._is_alone else list(shards)}
        if not self._is_alone:
            head["samples"] = samples_of(merge)
        # Before any shard is made anew: what was in it must not count as finished.
        with closing(Journal(folder.journal, head, batches)) as journal:
            self.began = True
            folder.remove_journals_of_others()
            folder.write_text("plait.yml", merge.recipe.text)
            own = self._finished if self._is_alone else self._finished.only(merge.parts.of(shards).positions)
            with crew_of(merge, folder, run, self._finished, self.launch, self._allow_nonfinite) as crew:
                watch.enter("tensors")
                written = write_part(
                    merge,
                    shards,
                    folder.path,
                    self._states,
                    own,
                    journal,
                    let_through=self._let_through,
                    progress=crew.watching(watch.tensors),
                    profiler=profiler,
                    flushing=(lambda: watch.enter("flush")) if self._is_alone else None,
                )
                self.flush_seconds = written.flush_seconds
                facts = merge.parts.facts(0, written)
                final = crew.wait(written.progress, watch.tensors)
                self.processes = (facts, *crew.facts())
                self.bytes_written = sum(each["bytes_written"] for each in self.processes)
        if not self._is_alone:
            watch.enter("flush")
            self._gather()
        refuse_changed(merge.models.values())
        return final

    def _take_up(self) -> Batch:
        """See what a run has finished that is still on disk; the same as one batch."""
        left = take_up(self.merge, self.folder.path, self._identity)
        self._states, self._finished = left.states, left.finished
        if left.redone_steps:
            self.warnings.append(
                f"the end of what the interrupted run wrote is not on disk as it was; {left.redone_steps} of "
                f"{left.steps} steps are done again"
            )
        if self._let_through is not None:
            self._let_through |= left.nonfinite
        part = self.merge.parts.of(self.merge.parts.shares[0])
        disk = LeftShards(self.folder.path, [self.merge.shards[number] for number in self.merge.parts.shares[0]])
        return batch_of(part, disk, self._finished, self._let_through or ())

    def _gather(self) -> None:
        """Have what all processes wrote down in the run's own journal. OutputError if that is not everything."""
        batch = self._take_up()
        missing = unfinished(self.merge.plan, self._finished)
        if missing:
            name = self.merge.plan.graph.islands[missing[0]].name
            raise OutputError(f"{self.folder.path}: {name} is not on disk as a process of this run wrote it")
        head = self._identity | {"run": token_hex(8), "shards": list(self.merge.parts.shares[0])}
        Journal(self.folder.journal, head, [batch]).close()
        self.folder.remove_journals_of_others()


def _check_room(merge: MergePlan, folder: OutputFolder) -> None:
    """OutputError if there is too little disk, or if too few files may be open; PlanError if too little memory."""
    more_bytes = merge.parts.predicted_peak_bytes - host.resident_bytes()
    free_memory_bytes = host.free_memory_bytes()
    if more_bytes > free_memory_bytes:
        raise PlanError(
            f"the merge needs {format_bytes(more_bytes)} of memory more than it holds now, and "
            f"{format_bytes(free_memory_bytes)} are free; free some, or set --memory to less, "
            f"down to {format_bytes(merge.parts.minimum_bytes)}",
            merge.parts.minimum_bytes,
        )
    disk_bytes = merge.disk_needed_bytes - (folder.taken_bytes() if folder.goes_on else 0)
    free_bytes = free_disk_bytes(folder.out)
    if free_bytes < disk_bytes:
        raise OutputError(
            f"{folder.out}: the merge needs {format_bytes(disk_bytes)} of disk, and {format_bytes(free_bytes)} are free"
        )
    check_open_files(folder.out, len(merge.parts.shares[0]))


def _finish(
    merge: MergePlan,
    folder: OutputFolder,
    result: MergeResult,
    nonfinite: Mapping[str, Sequence[str]],
    overflows: Mapping[str, int],
    samples: Samples,
    *,
    allow_nonfinite: bool,
) -> None:
    """Write what stands beside the shards; index and config last, because with these two the folder is a model."""
    folder.take_from(merge.side_files.copies)
    for name, text in merge.side_files.texts.items():
        folder.write_text(name, text)
    folder.write_text("README.md", render_card(merge.card_facts()))
    folder.write_json(
        "plait-manifest.json",
        manifest_of(
            result,
            merge.models,
            merge.shards,
            allow_nonfinite=allow_nonfinite,
            nonfinite=nonfinite,
            overflows=overflows,
            unused=unused_by_input(merge),
            samples=samples,
            rows=rows_by_input(merge),
            folder=folder.path,
        ),
    )
    folder.sync()
    if len(merge.shards) > 1:
        folder.write_json(INDEX_FILE, index_of(merge.shards))
    config = merge.output_config()
    if config:
        folder.write_json("config.json", config)
    folder.sync()
    folder.publish()
    folder.remove_journal()
