"""A worker: takes tiles, reads into its arena, computes in place, writes at known offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .finite import Overflows, all_finite, canonical
from .opdef import Tile
from .reading import pieces
from .steps import Step, bind, page_aligned

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from .execute import Run
    from .feed import OpenIsland, Task
    from .memory import Arena
    from .model import StoredTensor
    from .tiling import Pass


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
        left = tuple(name for name in island.outputs if not self._move(name, offset_bytes, leaf, size_bytes))
        self._run.count(0 if left else size_bytes, size_bytes * (len(island.outputs) - len(left)))
        if left:
            for lo in range(tile.lo, tile.hi, max(arena.tile_elements, 1)):
                part = Tile(lo, min(lo + arena.tile_elements, tile.hi))
                self._compute(island, part, current, left)

    def _move(self, name: str, offset_bytes: int, leaf: StoredTensor, size_bytes: int) -> bool:
        return self._run.writer.copy_from(name, offset_bytes, leaf, size_bytes)

    def _bind(self, island: OpenIsland, tile: Tile, *, careful: bool = False) -> list[Step]:
        return bind(self._arena, island, tile, self._run.plan.places, careful=careful)

    def _finite(self, values: torch.Tensor) -> bool:
        return all_finite(values)

    def _fold(self, step: Step, island: OpenIsland, current: Pass, tile: Tile) -> None:
        """Put a tile's partial into the state of its tensor."""
        assert step.node.op.reduction is not None
        with island.lock:
            step.node.op.reduction.fold(island.states[step.node], step.out, tile, current.block_elements)

    def _compute(self, island: OpenIsland, tile: Tile, current: Pass, outputs: tuple[str, ...]) -> int:
        """Walk one pass over one tile; a write goes to ``outputs``. Returns how many elements overflowed."""
        wanted = (island, island.pass_index, tile.elements)
        if self._bound != wanted:
            self._steps = self._bind(island, tile)
            self._bound = wanted
        if self._walk(self._steps, island, tile, current, outputs):
            return 0
        careful = self._bind(island, tile, careful=True)
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
                    if step.looked_into is not None and not self._finite(step.looked_into):
                        if overflows is None:
                            return False
                        canonical(step.looked_into)
                        overflows.add(step.looked_into)
                    self._write(step, outputs, current, tile)
                    written_bytes += step.out.numel() * len(outputs)
                continue
            step.kernel(step.out, step.ins, step.scratch, tile, **step.attrs)
            if step.node.op.reduction is not None:
                self._fold(step, island, current, tile)
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
        if step.looked_into is not None and not self._finite(step.looked_into):
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
