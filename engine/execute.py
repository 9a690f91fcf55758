"""Run a plan: workers take tiles, read into their arena, compute in place, write at known offsets.

Streams, arenas and threads belong to the run and end with it. A worker that fails stops the others; the first
error is what the caller sees.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from .feed import Feed, OpenIsland, Task
from .host import give_back_freed_memory, one_torch_thread
from .memory import PHASE_BYTES, moves
from .opdef import Tile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .graph import Node
    from .memory import Arena
    from .model import TensorReader, TensorWriter
    from .plan import Plan
    from .tiling import Pass


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
    if any(each.wholes for program in plan.programs.values() for each in program.passes):
        give_back_freed_memory()
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


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """One op of a pass, with everything that is the same for all tiles of a tensor that have the same size.

    ``out`` is what the op makes (1-D): a value, a partial, or for a write the bytes that go out. ``moved`` has, for
    each name of a copied tensor, where the bytes have to be to go past the page cache.
    """

    node: Node
    kernel: Callable[..., None] | None
    out: torch.Tensor
    ins: list[torch.Tensor]
    scratch: torch.Tensor
    attrs: dict[str, Any]
    moved: dict[str, torch.Tensor]


class _Worker:
    """One thread's arena and the views into it."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._arena = _page_aligned(run.plan.arena_bytes)
        self._bound: tuple[OpenIsland | None, int, int] = (None, 0, 0)
        self._steps: list[_Step] = []

    def run(self, task: Task) -> None:
        island, plan = task.island, task.island.plan
        current, arena = plan.passes[task.pass_index], plan.arenas[task.pass_index]
        if plan.program.is_copy:
            self._copy(island, task.tile, current, arena)
        else:
            self._compute(island, task.tile, current, arena, island.outputs)

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
                self._compute(island, part, current, arena, left)

    def _compute(self, island: OpenIsland, tile: Tile, current: Pass, arena: Arena, outputs: tuple[str, ...]) -> None:
        """Walk one pass over one tile; a write goes to ``outputs``."""
        # Binding costs as much as a few kernels: it is done once for all tiles of a tensor but the last.
        wanted = (island, island.pass_index, tile.elements)
        if self._bound != wanted:
            self._steps = self._bind(island, tile, current, arena)
            self._bound = wanted
        read_bytes = written_bytes = 0
        for step in self._steps:
            if step.kernel is None:
                runs = _byte_runs(current, tile, step.node.spec.dtype.itemsize)
                if step.node.op.name == "load":
                    leaf = island.leaf(step.node)
                    for offset_bytes, part in runs:
                        self._run.reader.read_into(leaf, offset_bytes, step.out[part])
                    read_bytes += step.out.numel()
                else:
                    self._write(step, outputs, list(runs))
                    written_bytes += step.out.numel() * len(outputs)
                continue
            step.kernel(step.out, step.ins, step.scratch, tile, **step.attrs)
            reduction = step.node.op.reduction
            if reduction is not None:
                with island.lock:
                    reduction.fold(island.states[step.node], step.out, tile, current.block_elements)
        self._run.count(read_bytes, written_bytes)

    def _write(self, step: _Step, outputs: tuple[str, ...], runs: Sequence[tuple[int, slice]]) -> None:
        """Write a tile under each of the names."""
        for name in outputs:
            data = step.moved.get(name, step.out)
            if data is not step.out:
                data.copy_(step.out)
            for offset_bytes, part in runs:
                self._run.writer.write_from(name, offset_bytes, data[part])

    def _bind(self, island: OpenIsland, tile: Tile, current: Pass, arena: Arena) -> list[_Step]:
        """Give each step of a pass its views for a tile of this size."""
        memory = {
            (slot.node, slot.use): self._arena[slot.offset_bytes : slot.offset_bytes + slot.size_bytes]
            for slot in arena.slots
        }
        nothing = self._arena[:0]
        values: dict[Node, torch.Tensor] = dict(island.results)
        steps: list[_Step] = []
        for node in current.nodes:
            place, scratch = memory.get((node, "value"), nothing), memory.get((node, "scratch"), nothing)
            ins = [values[source] for source in node.inputs]
            attrs, moved = island.attrs(node), {}
            dtype = node.spec.dtype
            size_bytes = tile.elements * dtype.itemsize
            offset_bytes = tile.lo * dtype.itemsize
            if node.op.name == "write":
                out = ins[0].view(torch.uint8)
                if scratch.numel():
                    places = {name: self._run.plan.places[name].offset_bytes + offset_bytes for name in island.outputs}
                    moved = {name: _in_phase(scratch, at, size_bytes, dtype.itemsize) for name, at in places.items()}
            elif node.op.name == "load":
                out = _in_phase(place, island.leaf(node).offset_bytes + offset_bytes, size_bytes, dtype.itemsize)
                values[node] = out.view(dtype)
            elif node.op.reduction is not None:
                specs = [source.spec for source in node.inputs]
                spec = node.op.reduction.partial_spec(specs, tile.elements, current.block_elements)
                out = place[: spec.size_bytes].view(spec.dtype)
                attrs = {**attrs, "block_elements": current.block_elements}
            elif node.op.locality == "whole":
                out = island.results[node]
            elif moves(node, current):
                # Only the first name's place counts: under the others the bytes may go through the page cache.
                at = self._run.plan.places[island.outputs[0]].offset_bytes + offset_bytes
                values[node] = out = _in_phase(place, at, size_bytes, dtype.itemsize).view(dtype)
            else:
                values[node] = out = place[:size_bytes].view(dtype)
            steps.append(_Step(node, node.op.kernel, out, ins, scratch, attrs, moved))
        return steps


def _byte_runs(current: Pass, tile: Tile, itemsize: int) -> Iterator[tuple[int, slice]]:
    """Where a tile's bytes lie in the tensor's data, and which of the tile's they are."""
    done_bytes = 0
    for first, elements in current.runs(tile):
        size_bytes = elements * itemsize
        yield first * itemsize, slice(done_bytes, done_bytes + size_bytes)
        done_bytes += size_bytes


def _in_phase(memory: torch.Tensor, file_offset_bytes: int, size_bytes: int, itemsize: int) -> torch.Tensor:
    """The part of a slot that lies as far from a page boundary as the bytes do in their file.

    A file whose tensors are not even aligned to their elements gets the start of the slot: kernels need that more.
    """
    phase_bytes = file_offset_bytes % PHASE_BYTES
    start = phase_bytes if phase_bytes % itemsize == 0 else 0
    return memory[start : start + size_bytes]


def _page_aligned(size_bytes: int) -> torch.Tensor:
    """Memory of at least so many bytes that starts at a page boundary, 1-D uint8."""
    memory = torch.empty(size_bytes + PHASE_BYTES, dtype=torch.uint8)
    return memory[-memory.data_ptr() % PHASE_BYTES :]
