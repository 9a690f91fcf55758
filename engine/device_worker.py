"""Workers that have tiles under way on a device: read here, carried there, computed, carried back, written.

A worker has lanes, each with memory on the device for a tile and with places in the worker's arena that the tile is
read into and comes back to. What is to be copied or computed is only put into streams, so that while a tile of one lane
is carried and computed, the worker reads into the other lane. Everything is allocated before the first tile.

The arena is the lanes' as long as any of them has a tile; a tile for the host waits until they are empty. What a device
fails at, for want of memory or because a result is not finite, the worker computes there itself, to the same bytes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .backends import COMPUTING, COPYING_IN, COPYING_OUT, OutOfDeviceMemoryError, is_out_of_memory
from .memory import ALIGN_BYTES, lay_out
from .opdef import Tile
from .placement import LANES, SMALLEST_TILE_ELEMENTS
from .steps import Step, bind, stage
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from .backends import Mark
    from .device_use import DevicesInUse
    from .execute import Run
    from .feed import OpenIsland, Task
    from .memory import Arena
    from .placement import DevicePass
    from .plan import Plan, ProgramPlan


@dataclass(slots=True, eq=False)
class _Lane:
    """Memory for one tile on the device, places for it on the host, a mark for each stage of its way."""

    memory: torch.Tensor
    room: torch.Tensor
    marks: list[Mark]
    bound: tuple[OpenIsland | None, int, int] = (None, 0, 0)
    steps: list[Step] = field(default_factory=list)
    staged: Mapping[int, Step] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Job:
    """A task on the device: what of its tile is there now, what is to follow, and what came of it."""

    task: Task
    lane: _Lane
    part: Tile
    rest: deque[Tile]
    read_bytes: int = 0
    overflowed: int | None = None
    failed: bool = False


class DeviceWorker(Worker):
    """One thread's lanes on a device, beside its arena on the host."""

    def __init__(self, run: Run, use: DevicesInUse, home: int) -> None:
        super().__init__(run)
        self._use, self._home, self._backend = use, home, use.backends[home]
        self._under_way: deque[_Job] = deque()
        self._for_host: Task | None = None
        self._pinned = False
        self._streams = self._backend.streams()
        self._arenas: dict[tuple[int, int], Arena] = {}
        self._lanes = self._make_lanes(run.plan)
        if self._lanes:
            self._pinned = self._backend.pin(self._arena)

    def close(self) -> None:
        """Wait for the device, and take back what it was lent."""
        self._backend.settle()
        if self._pinned:
            self._backend.unpin(self._arena)
        self._pinned, self._lanes = False, []

    def _make_lanes(self, plan: Plan) -> list[_Lane]:
        """Lanes for tiles of the plan, for smaller ones where memory is short, none where there is not even that."""
        placed = [
            (each, index, found)
            for each in plan.programs.values()
            for index, found in enumerate(each.devices)
            if found is not None
        ]
        name, planned = self._use.devices[self._home].name, max(found.tile_elements for _, _, found in placed)
        largest = planned
        while largest == planned or largest >= SMALLEST_TILE_ELEMENTS:
            self._arenas = {(id(each), index): _smaller(each, index, found, largest) for each, index, found in placed}
            size_bytes = max(arena.size_bytes for arena in self._arenas.values())
            try:
                memory = self._backend.allocate(LANES * size_bytes)
            except OutOfDeviceMemoryError:
                largest //= 2
                continue
            if largest < planned:
                self._use.note(f"{name} had less memory free than planned: tiles are smaller there")
            room_bytes = plan.arena_bytes // LANES // ALIGN_BYTES * ALIGN_BYTES
            return [
                _Lane(
                    memory[lane * size_bytes : (lane + 1) * size_bytes],
                    self._arena[lane * room_bytes : (lane + 1) * room_bytes],
                    [self._backend.mark() for _ in self._streams],
                )
                for lane in range(LANES)
            ]
        self._use.note(f"{name} had no memory free: its tiles are computed on the processor")
        return []

    # -------------------------------------------------------------------------------------------- tasks

    def take(self) -> Task | None:
        """Start tiles on the device until the lanes are full, and give back the one that is longest there."""
        while len(self._under_way) < len(self._lanes) and self._for_host is None:
            task = self._wait_for(wait=not self._under_way)
            if task is None:
                break
            if self._goes(task):
                self._start(task)
            else:
                self._for_host = task
        if self._under_way:
            return self._under_way[0].task
        if self._for_host is None and not self._lanes:
            return self._wait_for(wait=True)
        task, self._for_host = self._for_host, None
        return task

    def _wait_for(self, *, wait: bool) -> Task | None:
        return self._run.feed.take(self._home, wait=wait)

    def run(self, task: Task) -> int:
        """See Worker: what `take` gave last, finished."""
        if not self._under_way:
            return super().run(task)
        job = self._under_way[0]
        overflowed = self._finish(job)
        self._under_way.popleft()
        return overflowed

    def _goes(self, task: Task) -> bool:
        plan = task.island.plan
        return (
            bool(self._lanes)
            and plan.on_device(task.pass_index) is not None
            and self._use.takes(self._home, plan, task.pass_index)
        )

    def _start(self, task: Task) -> None:
        """Read a tile, and put its way into the streams."""
        step = max(self._arenas[id(task.island.plan), task.pass_index].tile_elements, 1)
        starts = range(task.tile.lo, max(task.tile.hi, task.tile.lo + 1), step)
        parts = deque(Tile(lo, min(lo + step, task.tile.hi)) for lo in starts)
        lane = next(each for each in self._lanes if all(each is not job.lane for job in self._under_way))
        job = _Job(task, lane, parts.popleft(), parts)
        self._under_way.append(job)
        self._send(job)

    def _finish(self, job: _Job) -> int:
        """Write what comes back, all parts of it; how many elements overflowed."""
        if job.overflowed is None:
            overflowed = self._receive(job)
            while job.rest:
                job.part, job.failed = job.rest.popleft(), False
                self._send(job)
                overflowed += self._receive(job)
            job.overflowed = overflowed
        return job.overflowed

    # -------------------------------------------------------------------------------------------- one tile

    def _send(self, job: _Job) -> None:
        island, lane, part = job.task.island, job.lane, job.part
        current = island.plan.passes[job.task.pass_index]
        wanted = (island, job.task.pass_index, part.elements)
        if lane.bound != wanted:
            self._bind_lane(lane, island, part)
            lane.bound = wanted
        loads = [(number, step) for number, step in lane.staged.items() if step.node.op.name != "write"]
        job.read_bytes = sum(self._read(step, island, current, part, None) for _, step in loads)
        try:
            with self._streams[COPYING_IN]:
                for number, step in loads:
                    lane.steps[number].out.copy_(step.out, non_blocking=True)
                lane.marks[COPYING_IN].record()
            with self._streams[COMPUTING]:
                lane.marks[COPYING_IN].wait()
                for step in lane.steps:
                    if step.kernel is not None:
                        step.kernel(step.out, step.ins, step.scratch, part, **step.attrs)
                lane.marks[COMPUTING].record()
            with self._streams[COPYING_OUT]:
                lane.marks[COMPUTING].wait()
                for number, step in lane.staged.items():
                    if step.node.op.name == "write":
                        step.out.copy_(lane.steps[number].out, non_blocking=True)
                lane.marks[COPYING_OUT].record()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            job.failed = True
            name = self._use.devices[self._home].name
            self._use.note(f"{name} ran out of memory: some of its tiles were computed on the processor")

    def _bind_lane(self, lane: _Lane, island: OpenIsland, part: Tile) -> None:
        plan, index = island.plan, island.pass_index
        placed = plan.on_device(index)
        assert placed is not None
        places = self._run.plan.places
        lane.steps = bind(lane.memory, island, part, places, on_device=self._arenas[id(plan), index])
        lane.staged = stage(lane.room, placed.staging, lane.steps)

    def _receive(self, job: _Job) -> int:
        """Wait for a tile and write it; elements that overflowed, where it had to be computed here."""
        island, lane = job.task.island, job.lane
        current = island.plan.passes[job.task.pass_index]
        lane.marks[COPYING_OUT].synchronize()
        outs = [step for step in lane.staged.values() if step.node.op.name == "write"]
        if job.failed or not all(step.looked_into is None or self._finite(step.looked_into) for step in outs):
            return self._instead(job)
        for step in outs:
            self._write(step, island.outputs, current, job.part)
        self._run.count(job.read_bytes, sum(step.out.numel() for step in outs) * len(island.outputs))
        return 0

    def _instead(self, job: _Job) -> int:
        """Compute a tile on the host, once no other one needs the arena."""
        job.failed = True
        for other in self._under_way:
            if other is not job and not other.failed:
                self._finish(other)
        return super().run(job.task._replace(tile=job.part))


def _smaller(plan: ProgramPlan, index: int, placed: DevicePass, largest: int) -> Arena:
    """The layout of a pass for tiles of so many elements at most."""
    if placed.tile_elements <= largest:
        return placed.arena
    current = plan.passes[index]
    return lay_out(current, current.tile_elements(largest), on_device=True)
