"""A run from an empty or an interrupted folder to a finished one."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .engine import host
from .engine.compile import names_by_model
from .engine.device_use import DevicesInUse
from .engine.errors import Interrupted, OutputError, PlaitError, PlanError
from .engine.execute import execute
from .engine.journal import Finished, Journal
from .engine.recorder import Recorder, batch_of
from .engine.resumption import finished_by, kept_bytes, remaining, share_of, trusted
from .engine.timing import Profiler
from .engine.units import MIB, align_up, format_bytes
from .identity import identity_of, read_earlier, refuse_changed
from .loaders.card import render_card
from .loaders.folder import OutputFolder, free_disk_bytes
from .loaders.positioned_io import FilePool
from .loaders.shards import LeftShards
from .loaders.writer import INDEX_FILE, ShardWriter, index_of
from .manifest import manifest_of, overflow_warnings
from .profiling import profiled
from .unused import rows_by_input, unused_by_input
from .verification import needed_bytes, verified
from .watching import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .engine.execute import Run
    from .engine.journal import Batch
    from .engine.model import StoredTensor
    from .engine.progress import Callback, Progress
    from .engine.samples import Samples
    from .engine.worker import Worker
    from .loaders.shards import ShardState
    from .merge import MergePlan, MergeResult

CACHED_SHARE = 0.5
"""Inputs above this share of free memory are read past the page cache: it could not keep them anyway."""

_INPUT_FILES, _OTHER_FILES = 64, 64
"""Input files that are open at once, and what else a process has open."""


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
) -> MergeResult:
    """Carry out a plan; see MergePlan.run."""
    started = time.perf_counter()
    if verify and not merge.plan.afterwards_bytes:
        merge = _with_room_to_verify(merge)
    check_seconds = merge.plan.bytes_written / merge.rates.check_bytes if verify else 0.0
    watch = Watch(progress, predicted_seconds=merge.predicted_seconds, check_seconds=check_seconds)
    profiler = Profiler() if profile else None
    inputs = {Path(model.folder) for model in merge.models.values()}
    with OutputFolder(out, overwrite=overwrite, resume=resume, inputs=inputs) as folder:
        work = _Work(merge, folder, allow_nonfinite=allow_nonfinite)
        try:
            final = work.fill(watch, profiler)
            watch.enter("finish")
            nonfinite = work.nonfinite
            overflows = work.overflows
            work.warnings += overflow_warnings(merge.plan, overflows)
            result = merge.result_of(
                out,
                moved_bytes=(final.bytes_read, work.bytes_written),
                seconds=time.perf_counter() - started,
                resumed=folder.goes_on,
                nonfinite=nonfinite,
                warnings=work.warnings,
            )
            result = replace(result, devices=merge.plan.placement.peaks(work.device_peaks_bytes))
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

    def __init__(self, merge: MergePlan, folder: OutputFolder, *, allow_nonfinite: bool) -> None:
        self.merge, self.folder = merge, folder
        self.began = False
        self.bytes_written = 0
        self.flush_seconds = 0.0
        self.warnings: list[str] = []
        self.device_peaks_bytes: Mapping[str, int] = {}
        self._identity = identity_of(merge, allow_nonfinite=allow_nonfinite)
        self._let_through: set[StoredTensor] | None = set() if allow_nonfinite else None
        self._finished = Finished()
        self._states: Mapping[str, ShardState] = {}

    @property
    def kept_share(self) -> float:
        """Part of the output that is written down as finished."""
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
        merge, folder, plan = self.merge, self.folder, self.merge.plan
        batches: list[Batch] = []
        if folder.goes_on:
            batches.append(self._take_up(read_earlier(folder.journal, self._identity)))
            self.began = True
        _check_room(merge, folder)
        # Before any shard is made anew: what was in it must not count as finished.
        with closing(Journal(folder.journal, self._identity, batches)) as journal:
            self.began = True
            folder.write_text("plait.yml", merge.recipe.text)
            left = remaining(plan, self._finished)
            expected = {file.path: file.size_bytes for model in merge.models.values() for file in model.files}
            direct = sum(expected.values()) > host.free_memory_bytes() * CACHED_SHARE
            with (
                FilePool(_INPUT_FILES, expected, direct=direct) as files,
                ShardWriter(folder.path, merge.shards, files, self._states) as writer,
            ):
                writer.keep(kept_bytes(plan, left))
                recorder = Recorder(journal, plan, writer, self._finished, self._let_through)
                watch.enter("tensors")
                use = DevicesInUse(plan) if plan.placement.devices else None
                final = execute(
                    plan,
                    files,
                    writer,
                    watch.tensors,
                    let_through=self._let_through,
                    left=left,
                    recorder=recorder,
                    rates=merge.rates,
                    timed=_workers(use, profiler),
                )
                if use is not None:
                    self.warnings += use.notes
                    self.device_peaks_bytes = use.measured_peaks_bytes()
                self.flush_seconds = recorder.flush_seconds
                watch.enter("flush")
                writer.finish()
                self.bytes_written = writer.bytes_written
        refuse_changed(merge.models.values())
        return final

    def _take_up(self, batches: Sequence[Batch]) -> Batch:
        """See what an interrupted run has finished that is still on disk; the same as one batch."""
        merge, plan = self.merge, self.merge.plan
        shards = LeftShards(self.folder.path, merge.shards)
        self._states = shards.states
        count = trusted(plan, shards, batches)
        if count < len(batches):
            self.warnings.append(
                f"the end of what the interrupted run wrote is not on disk as it was; {len(batches) - count} of "
                f"{len(batches)} steps are done again"
            )
        self._finished = finished_by(plan, batches[:count], missing=shards.missing)
        named = {pair for batch in batches for pair in batch.nonfinite}
        if self._let_through is not None and named:
            tensors = (stored for model in merge.models.values() for stored in model.tensors.values())
            self._let_through.update(stored for stored in tensors if (stored.model, stored.name) in named)
        return batch_of(plan, shards, self._finished, self._let_through or ())


def _workers(use: DevicesInUse | None, profiler: Profiler | None) -> Callable[[Run], Worker] | None:
    """What makes the workers; None for the usual ones."""
    if profiler is not None:
        return partial(profiler.worker, use=use)
    return use.worker if use is not None else None


def _check_room(merge: MergePlan, folder: OutputFolder) -> None:
    """OutputError if there is too little disk, or if too few files may be open; PlanError if too little memory."""
    plan = merge.plan
    more_bytes, free_memory_bytes = plan.predicted_peak_bytes - host.resident_bytes(), host.free_memory_bytes()
    if more_bytes > free_memory_bytes:
        raise PlanError(
            f"the merge needs {format_bytes(more_bytes)} of memory more than it holds now, and "
            f"{format_bytes(free_memory_bytes)} are free; free some, or set --memory to less, "
            f"down to {format_bytes(plan.minimum_bytes)}",
            plan.minimum_bytes,
        )
    disk_bytes = merge.disk_needed_bytes - (folder.taken_bytes() if folder.goes_on else 0)
    free_bytes = free_disk_bytes(folder.out)
    if free_bytes < disk_bytes:
        raise OutputError(
            f"{folder.out}: the merge needs {format_bytes(disk_bytes)} of disk, and {format_bytes(free_bytes)} are free"
        )
    # A file that is read or written past the page cache is open twice.
    open_files = 2 * (len(merge.shards) + _INPUT_FILES) + _OTHER_FILES
    if not host.allow_open_files(open_files):
        raise OutputError(
            f"{folder.out}: {len(merge.shards)} shards need {open_files} open files, which is more than the system "
            "allows; raise the limit (ulimit -n), or choose a larger --shard-size"
        )


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
