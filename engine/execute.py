"""Run a plan: workers take tiles, read into their arena, compute in place, write at known offsets.

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
from .feed import Feed, OpenIsland, Task
from .finite import Overflows, all_finite, canonical, refuse
from .forecast import Forecast
from .host import give_back_freed_memory, one_torch_thread
from .opdef import Tile
from .progress import Progress
from .reading import pieces
from .resumption import spared_bytes
from .steps import Step, bind, page_aligned
from .time_model import RATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .memory import Arena
    from .model import StoredTensor, TensorReader, TensorWriter
    from .plan import Plan
    from .progress import Callback
    from .recorder import Recorder
    from .tiling import Pass
    from .time_model import Rates


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
    threads_before = torch.get_num_threads()
    one_torch_thread()
    if any(each.wholes for program in plan.programs.values() for each in program.passes):
        give_back_freed_memory()
    threads = [threading.Thread(target=run.work, name=f"plait-{index}") for index in range(plan.workers)]
    try:
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
        finally:
            torch.set_num_threads(threads_before)
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
            len(self.plan.graph.islands),
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
        """What each thread does: tile after tile until nothing is left."""
        try:
            # What is not finite is found where it is written; numpy has nothing to say about it.
            with torch.inference_mode(), np.errstate(all="ignore"):
                one_torch_thread()
                with closing(self._make_worker(self)) as worker:
                    while (task := worker.take()) is not None:
                        started = time.perf_counter()
                        overflowed = worker.run(task)
                        ran = time.perf_counter()
                        if self.recorder is not None and task.island.in_last_pass:
                            self.recorder.finished(task.island.position, task.tile, overflowed)
                        self.forecast.tile(task.island.plan, task.pass_index, task.tile.elements, ran - started)
                        if worker.done(task):
                            self.forecast.ended(task.island.plan, task.pass_index, time.perf_counter() - ran)
        except BaseException as error:  # whatever it is, the caller has to see it
            self.fail(error)
        finally:
            with self._lock:
                self._working -= 1
                if self._working == 0:
                    self.ended.set()


class Worker:
    """One thread's arena and the views into it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._arena = page_aligned(run.plan.arena_bytes)
        self._bound: tuple[OpenIsland | None, int, int] = (None, 0, 0)
        self._steps: list[Step] = []

    def take(self) -> Task | None:
        """The next tile; None when nothing is left."""
        return self._run.feed.take()

    def done(self, task: Task) -> bool:
        """Give a tile back as finished; whether a pass has ended with it."""
        return self._run.feed.done(task)

    def run(self, task: Task) -> int:
        """Work on a tile; returns how many elements became infinity on the way to the output."""
        island, plan = task.island, task.island.plan
        current, arena = plan.passes[task.pass_index], plan.arenas[task.pass_index]
        if plan.program.is_copy:
            self._copy(island, task.tile, current, arena)
            return 0
        step, tile = max(arena.tile_elements, 1), task.tile
        if tile.elements <= step:
            return self._compute(island, tile, current, island.outputs)
        # It is as large as a device would have it.
        parts = (Tile(lo, min(lo + step, tile.hi)) for lo in range(tile.lo, tile.hi, step))
        return sum(self._compute(island, part, current, island.outputs) for part in parts)

    def close(self) -> None:
        """Nothing is left to do."""

    def _copy(self, island: OpenIsland, tile: Tile, current: Pass, arena: Arena) -> None:
        """Let the kernel move the bytes; to where it cannot, move them through the arena."""
        leaf = island.leaves[0]
        itemsize = leaf.spec.dtype.itemsize
        offset_bytes, size_bytes = tile.lo * itemsize, tile.elements * itemsize
        copy = self._run.writer.copy_from
        left = tuple(name for name in island.outputs if not copy(name, offset_bytes, leaf, size_bytes))
        self._run.count(0 if left else size_bytes, size_bytes * (len(island.outputs) - len(left)))
        if left:
            for lo in range(tile.lo, tile.hi, max(arena.tile_elements, 1)):
                part = Tile(lo, min(lo + arena.tile_elements, tile.hi))
                self._compute(island, part, current, left)

    def _compute(self, island: OpenIsland, tile: Tile, current: Pass, outputs: tuple[str, ...]) -> int:
        """Walk one pass over one tile; a write goes to ``outputs``. Returns how many elements overflowed."""
        wanted = (island, island.pass_index, tile.elements)
        if self._bound != wanted:
            self._steps = bind(self._arena, island, tile, self._run.plan.places)
            self._bound = wanted
        if self._walk(self._steps, island, tile, current, outputs):
            return 0
        careful = bind(self._arena, island, tile, self._run.plan.places, careful=True)
        self._walk(careful, island, tile, current, outputs, overflows := Overflows(tile.elements))
        return overflows.count

    def _walk(
        self,
        steps: Sequence[Step],
        island: OpenIsland,
        tile: Tile,
        current: Pass,
        outputs: tuple[str, ...],
        overflows: Overflows | None = None,
    ) -> bool:
        """Take the steps. Without ``overflows`` to count, False where the output is not finite: nothing is written."""
        read_bytes = written_bytes = 0
        for step in steps:
            if step.kernel is None:
                if step.node.op.name != "write":
                    read_bytes += self._read(step, island, current, tile, overflows)
                else:
                    if step.looked_into is not None and not all_finite(step.looked_into):
                        if overflows is None:
                            return False
                        canonical(step.looked_into)
                        overflows.add(step.looked_into)
                    self._write(step, outputs, current, tile)
                    written_bytes += step.out.numel() * len(outputs)
                continue
            step.kernel(step.out, step.ins, step.scratch, tile, **step.attrs)
            reduction = step.node.op.reduction
            if reduction is not None:
                with island.lock:
                    reduction.fold(island.states[step.node], step.out, tile, current.block_elements)
        self._run.count(read_bytes, written_bytes)
        return True

    def _read(self, step: Step, island: OpenIsland, current: Pass, tile: Tile, overflows: Overflows | None) -> int:
        """Read a tile's elements, one range of a stored tensor after the other, and look into them; bytes read."""
        node, itemsize, read_bytes = step.node, step.node.spec.dtype.itemsize, 0
        for part, own in _parts(current, tile):
            data = step.out[_bytes_of(own, itemsize)]
            for leaf, stored, inside in pieces(node, island.leaves, part):
                piece = data[_bytes_of(inside, itemsize)]
                if leaf is None:
                    piece.zero_()
                    continue
                self._run.reader.read_into(leaf, stored.lo * itemsize, piece)
                read_bytes += piece.numel()
        if step.looked_into is not None and not all_finite(step.looked_into):
            for part, own in _parts(current, tile):
                for leaf, stored, inside in pieces(node, island.leaves, part):
                    found = step.looked_into[own][inside]
                    if leaf is not None and not all_finite(found):
                        self._run.found_nonfinite(leaf, stored, found)
            if overflows is not None:
                overflows.excuse(step.looked_into)
        return read_bytes

    def _write(self, step: Step, outputs: tuple[str, ...], current: Pass, tile: Tile) -> None:
        """Write a tile under each of the names."""
        itemsize = step.node.spec.dtype.itemsize
        for name in outputs:
            data = step.moved.get(name, step.out)
            if data is not step.out:
                data.copy_(step.out)
            for part, own in _parts(current, tile):
                self._run.writer.write_from(name, part.lo * itemsize, data[_bytes_of(own, itemsize)])


def _parts(current: Pass, tile: Tile) -> Iterator[tuple[Tile, slice]]:
    """The ranges of the tensor that a tile is made of, and which of the tile's elements each of them is."""
    first = 0
    for part in current.ranges(tile):
        yield part, slice(first, first + part.elements)
        first += part.elements


def _bytes_of(elements: slice, itemsize: int) -> slice:
    return slice(elements.start * itemsize, elements.stop * itemsize)
