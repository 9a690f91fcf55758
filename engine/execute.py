"""Run a plan: workers take tile after tile until nothing is left.

Streams, arenas and threads belong to the run and end with it. A worker that fails stops the others; the first
error is what the caller sees.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import torch

from .errors import PlaitError
from .feed import Feed
from .finite import refuse
from .forecast import Forecast
from .host import give_back_freed_memory, one_torch_thread
from .progress import Progress
from .rates import RATES
from .resumption import spared_bytes
from .signals import held_back
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .model import StoredTensor, TensorReader, TensorWriter
    from .opdef import Tile
    from .plan import Plan
    from .progress import Callback
    from .rates import Rates
    from .recorder import Recorder


def execute(
    plan: Plan,
    reader: TensorReader,
    writer: TensorWriter,
    progress: Callback | None = None,
    every_seconds: float = 0.2,
    *,
    let_through: set[StoredTensor] | None = None,
    left: Mapping[int, Sequence[Tile]] | None = None,
    recorder: Recorder | None = None,
    rates: Rates = RATES,
    timed: Callable[[Run], Worker] | None = None,
) -> Progress:
    """Carry out a plan and return the final progress.

    NaN or infinity in what arithmetic reads is an InputError, unless ``let_through`` is given: then the stored tensors
    that hold some are added to it, and the run goes on. ``left`` has, for the tensors that an earlier run began, what
    it did not write. ``recorder`` keeps the journal. ``rates`` weigh the work for the time left. ``timed`` makes
    workers that keep the time of what they do.

    Raises what a reader, a writer or a kernel raised first, or KeyboardInterrupt, after every worker has ended.
    """
    run = Run(plan, reader, writer, let_through, left or {}, recorder, rates, timed or Worker)
    if any(each.wholes for program in plan.programs.values() for each in program.passes):
        give_back_freed_memory()
    threads = [threading.Thread(target=run.work, name=f"plait-{index}") for index in range(plan.workers)]
    with one_torch_thread():
        try:
            with held_back():
                if recorder is not None:
                    recorder.start(run.fail)
                for thread in threads:
                    thread.start()
            while not run.ended.wait(every_seconds):
                if progress is not None:
                    progress(run.progress())
        finally:
            try:
                run.end(threads)
            except KeyboardInterrupt:
                run.end(threads)  # nobody may be left behind; a second one is not held up
                raise
    if run.error is not None:
        raise run.error
    final = run.progress()
    if progress is not None:
        progress(final)
    return final


class Run:
    """The shared state of one execution."""

    def __init__(
        self,
        plan: Plan,
        reader: TensorReader,
        writer: TensorWriter,
        let_through: set[StoredTensor] | None,
        left: Mapping[int, Sequence[Tile]],
        recorder: Recorder | None,
        rates: Rates,
        make_worker: Callable[[Run], Worker],
    ) -> None:
        self.plan, self.reader, self.writer, self.let_through = plan, reader, writer, let_through
        self.recorder = recorder
        self.feed = Feed(plan, left)
        self.forecast = Forecast(plan, left, rates)
        self._make_worker = make_worker
        self._total_bytes = plan.bytes_read + plan.bytes_written - plan.header_bytes - spared_bytes(plan, left)
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._working = plan.workers
        self._read_bytes = self._written_bytes = 0
        self._started = time.perf_counter()

    def count(self, read_bytes: int, written_bytes: int) -> None:
        """Take note of bytes that were moved."""
        with self._lock:
            self._read_bytes += read_bytes
            self._written_bytes += written_bytes

    def found_nonfinite(self, tensor: StoredTensor, tile: Tile, data: torch.Tensor) -> None:
        """Stop at NaN or infinity in a tile of a stored tensor, or take note of it where it is let through."""
        if self.let_through is None:
            raise refuse(tensor, data, tile.lo)
        with self._lock:
            self.let_through.add(tensor)

    def progress(self) -> Progress:
        """How far the run is now."""
        seconds = time.perf_counter() - self._started
        return Progress(
            self._read_bytes,
            self._written_bytes,
            self._total_bytes,
            self.feed.finished,
            len(self.plan.sequence),
            seconds,
            work_share=self.forecast.share,
            seconds_left=self.forecast.seconds_left(seconds),
            workers=self.plan.workers,
            busy_seconds=self.forecast.busy_seconds,
            parts=self.feed.parts(),
        )

    def fail(self, error: BaseException) -> None:
        """End the run; the first error is what the caller sees."""
        with self._lock:
            self.error = self.error or error
        self.feed.stop()

    def end(self, threads: Sequence[threading.Thread]) -> None:
        """Wait for every thread after the tile it has, and keep what is finished; twice is fine."""
        self.feed.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        if self.recorder is not None:
            # Whatever ended the run: what is finished is worth keeping, and the first error is the one to be told.
            try:
                self.recorder.stop()
            except PlaitError as error:
                self.fail(error)

    def work(self) -> None:
        """What a thread does: tile after tile until nothing is left."""
        try:
            # What is not finite is found where it is written; numpy has nothing to say about it.
            with (
                torch.inference_mode(),
                np.errstate(all="ignore"),
                one_torch_thread(),
                closing(self._make_worker(self)) as worker,
            ):
                while (task := worker.take()) is not None:
                    self.forecast.begin(id(worker), (started := time.perf_counter()) - self._started)
                    overflowed = worker.run(task)
                    ran = time.perf_counter()
                    if self.recorder is not None and task.island.in_last_pass:
                        self.recorder.finished(task.island.position, task.tile, overflowed)
                    plan, elements = task.island.plan, task.tile.elements
                    self.forecast.tile(id(worker), plan, task.pass_index, elements, ran - started)
                    if worker.done(task):
                        self.forecast.ended(plan, task.pass_index, time.perf_counter() - ran)
        except BaseException as error:  # whatever it is, the caller has to see it
            self.fail(error)
        finally:
            with self._lock:
                self._working -= 1
                if self._working == 0:
                    self.ended.set()
