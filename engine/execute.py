"""Run a plan: workers take tiles, read into their arena, compute in place, write at known offsets.

Streams, arenas and threads belong to the run and end with it. A worker that fails stops the others; the first
error is what the caller sees.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from .feed import Feed, OpenIsland, Task
from .host import one_torch_thread

if TYPE_CHECKING:
    from .graph import Node
    from .memory import Arena
    from .model import TensorReader, TensorWriter
    from .opdef import Tile
    from .plan import Plan
    from .tiling import Pass

_BOUND_PASSES = 16
"""Passes whose views a worker keeps; tensors of a layer come in turn, so a few programs alternate."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Rates are the caller's to compute: bytes are monotonic, seconds since the start."""

    bytes_read: int
    bytes_written: int
    bytes_total: int
    tensors_done: int
    tensors_total: int
    seconds: float

    @property
    def share(self) -> float:
        """Part of all bytes that is done, 0 to 1."""
        return (self.bytes_read + self.bytes_written) / self.bytes_total if self.bytes_total else 1.0


Callback: TypeAlias = Callable[[Progress], None]


def execute(
    plan: Plan, reader: TensorReader, writer: TensorWriter, progress: Callback | None = None, every_seconds: float = 0.2
) -> Progress:
    """Carry out a plan and return the final progress.

    Raises what a reader, a writer or a kernel raised first, or KeyboardInterrupt, after every worker has ended.
    """
    run = _Run(plan, reader, writer)
    threads_before = torch.get_num_threads()
    one_torch_thread()
    threads = [threading.Thread(target=run.work, name=f"plait-{index}") for index in range(plan.workers)]
    try:
        for thread in threads:
            thread.start()
        while not run.ended.wait(every_seconds):
            if progress is not None:
                progress(run.progress())
    finally:
        run.feed.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        torch.set_num_threads(threads_before)
    if run.error is not None:
        raise run.error
    final = run.progress()
    if progress is not None:
        progress(final)
    return final


class _Run:
    """The shared state of one execution."""

    def __init__(self, plan: Plan, reader: TensorReader, writer: TensorWriter) -> None:
        self.plan, self.reader, self.writer = plan, reader, writer
        self.feed = Feed(plan)
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._working = plan.workers
        self._read_bytes = self._written_bytes = 0
        self._started = time.perf_counter()

    def count(self, read_bytes: int, written_bytes: int) -> None:
        with self._lock:
            self._read_bytes += read_bytes
            self._written_bytes += written_bytes

    def progress(self) -> Progress:
        data_written = self.plan.bytes_written - self.plan.header_bytes
        return Progress(
            self._read_bytes,
            self._written_bytes,
            self.plan.bytes_read + data_written,
            self.feed.finished,
            len(self.plan.graph.islands),
            time.perf_counter() - self._started,
        )

    def work(self) -> None:
        try:
            with torch.inference_mode():
                one_torch_thread()
                worker = _Worker(self)
                while (task := self.feed.take()) is not None:
                    worker.run(task)
                    self.feed.done(task)
        except BaseException as error:  # whatever it is, the caller has to see it
            with self._lock:
                self.error = self.error or error
            self.feed.stop()
        finally:
            with self._lock:
                self._working -= 1
                if self._working == 0:
                    self.ended.set()


@dataclass(slots=True, eq=False)
class _Step:
    """One op of a pass with its places in a worker's arena; ``inputs`` holds None where a state goes."""

    node: Node
    out: torch.Tensor | None
    inputs: list[torch.Tensor | None]
    scratch: torch.Tensor


class _Worker:
    """One thread's arena and the views into it."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._arena = torch.empty(run.plan.arena_bytes, dtype=torch.uint8)
        self._bound: OrderedDict[Pass, list[_Step]] = OrderedDict()

    def run(self, task: Task) -> None:
        island, plan = task.island, task.island.plan
        current, arena = plan.passes[task.pass_index], plan.arenas[task.pass_index]
        if plan.program.is_copy:
            self._copy(island, task.tile, current, arena)
        else:
            self._compute(island, task.tile, current, arena)

    def _copy(self, island: OpenIsland, tile: Tile, current: Pass, arena: Arena) -> None:
        """Let the kernel move the bytes; where it cannot, move them through the arena."""
        leaf = island.leaves[0]
        itemsize = leaf.spec.dtype.itemsize
        offset_bytes, size_bytes = tile.lo * itemsize, tile.elements * itemsize
        outputs = island.outputs
        if all(self._run.writer.copy_from(name, offset_bytes, leaf, size_bytes) for name in outputs):
            self._run.count(size_bytes, size_bytes * len(outputs))
            return
        step = max(arena.tile_elements, 1)
        for lo in range(tile.lo, tile.hi, step):
            self._compute(island, tile._replace(lo=lo, hi=min(lo + step, tile.hi)), current, arena)

    def _compute(self, island: OpenIsland, tile: Tile, current: Pass, arena: Arena) -> None:
        elements = tile.elements
        full = elements == arena.tile_elements
        read_bytes = written_bytes = 0
        for step in self._steps(current, arena):
            node = step.node
            inputs = [
                island.results[source] if view is None else view if full else view[:elements]
                for source, view in zip(node.inputs, step.inputs, strict=True)
            ]
            if node.op.name == "write":
                data = inputs[0].view(torch.uint8)
                for name in island.outputs:
                    self._run.writer.write_from(name, tile.lo * node.spec.dtype.itemsize, data)
                    written_bytes += data.numel()
                continue
            assert step.out is not None
            out = step.out if full or node.op.reduction is not None else step.out[:elements]
            if node.op.name == "load":
                data = out.view(torch.uint8)
                self._run.reader.read_into(island.leaf(node), tile.lo * node.spec.dtype.itemsize, data)
                read_bytes += data.numel()
            elif node.op.reduction is not None:
                assert node.op.kernel is not None
                block_elements = current.block_elements
                attrs = island.attrs(node)
                node.op.kernel(out, inputs, step.scratch, tile, block_elements=block_elements, **attrs)
                with island.lock:
                    node.op.reduction.fold(island.states[node], out, tile, block_elements)
            else:
                assert node.op.kernel is not None
                node.op.kernel(out, inputs, step.scratch, tile, **island.attrs(node))
        self._run.count(read_bytes, written_bytes)

    def _steps(self, current: Pass, arena: Arena) -> list[_Step]:
        """The pass with its slots as typed views, made at the first tile and kept for a while."""
        steps = self._bound.get(current)
        if steps is None:
            steps = self._bound[current] = self._bind(current, arena)
            if len(self._bound) > _BOUND_PASSES:
                self._bound.popitem(last=False)
        else:
            self._bound.move_to_end(current)
        return steps

    def _bind(self, current: Pass, arena: Arena) -> list[_Step]:
        values: dict[Node, torch.Tensor] = {}
        scratches: dict[Node, torch.Tensor] = {}
        for slot in arena.slots:
            memory = self._arena[slot.offset_bytes : slot.offset_bytes + slot.size_bytes]
            if slot.use == "scratch":
                scratches[slot.node] = memory
            else:
                typed = memory.view(slot.node.spec.dtype)
                # A reduction's partial keeps its whole slot: its kernel knows how many blocks a tile has.
                values[slot.node] = typed if slot.node.op.reduction is not None else typed[: arena.tile_elements]
        nothing = self._arena[:0]
        return [
            _Step(
                node,
                values.get(node),
                [values.get(source) for source in node.inputs],
                scratches.get(node, nothing),
            )
            for node in current.nodes
        ]
