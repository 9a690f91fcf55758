"""Workers that keep the time of each step.

Only a run that is asked for a profile has them. In any other run nothing looks at a clock: steps call their kernels.
"""

from __future__ import annotations

import re
import threading
import time
from array import array
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from .device_worker import DeviceWorker
from .profile import ACTIVITIES, KindTime, OpTime, Profile
from .time_model import work_units
from .trace import MOST_EVENTS, NamedTrack, Track
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch

    from .device_use import DevicesInUse
    from .execute import Run
    from .feed import OpenIsland, Task
    from .finite import Overflows
    from .graph import Node
    from .model import StoredTensor
    from .opdef import Tile
    from .plan import Plan
    from .steps import Step
    from .tiling import Pass

_LAYER = re.compile(r"\.\d+(?=\.|$)")


class Times:
    """What one worker did, kept by itself alone."""

    def __init__(self, plan: Plan, clock: Callable[[], float], started: float, most_events: int) -> None:
        self._clock, self._started = clock, started
        self.ops: dict[str, OpTime] = {}
        self.activities = dict.fromkeys(ACTIVITIES, 0.0)
        self.positions = array("d", bytes(8 * len(plan.graph.islands)))
        self.steps, self.tensors = Track(most_events), Track(most_events)
        self.codes: dict[str, int] = {}
        self.ended = 0.0

    def now(self) -> float:
        """Seconds since the run's workers started."""
        return self._clock() - self._started

    def took(self, activity: str, name: str, started: float, ended: float) -> OpTime:
        """Something that took so long; returns the op's row for what else is known of it."""
        self.activities[activity] += ended - started
        self.steps.add(self.codes.setdefault(name, len(self.codes)), started, ended)
        row = self.ops.get(name)
        if row is None:
            row = self.ops[name] = OpTime(name)
        row.seconds += ended - started
        return row


class TimedWorker(Worker):
    """A worker that keeps the time of what it does."""

    def __init__(self, run: Run, times: Times) -> None:
        super().__init__(run)
        self._times = times
        self._reading: tuple[str, float] | None = None

    def take(self) -> Task | None:
        """See Worker."""
        started = self._times.now()
        task = super().take()
        self._times.ended = self._times.now()
        self._times.took("wait", "wait", started, self._times.ended)
        return task

    def run(self, task: Task) -> int:
        """See Worker."""
        started = self._times.now()
        overflowed = super().run(task)
        self._spent(task, started)
        return overflowed

    def done(self, task: Task) -> bool:
        """See Worker."""
        started = self._times.now()
        ended = self._run.feed.done(task, self._concluding)
        self._spent(task, started)
        return ended

    def _spent(self, task: Task, started: float) -> None:
        ended, position = self._times.now(), task.island.position
        self._times.positions[position] += ended - started
        self._times.tensors.extend(position << 8 | min(task.pass_index, 255), started, ended)

    @contextmanager
    def _concluding(self, node: Node) -> Iterator[None]:
        started = self._times.now()
        yield
        row = self._times.took("kernels", node.op.name, started, self._times.now())
        if node.op.locality == "state":
            row.calls += 1
            row.elements += node.spec.elements
            row.units += work_units(node, 0)

    def _bind(self, island: OpenIsland, tile: Tile, *, careful: bool = False) -> list[Step]:
        return [self._timed(step, tile) for step in super()._bind(island, tile, careful=careful)]

    def _timed(self, step: Step, bound: Tile) -> Step:
        kernel = step.kernel
        if kernel is None:
            return step
        times, name, units = self._times, step.node.op.name, work_units(step.node, bound.elements)

        def timed(
            out: torch.Tensor, ins: list[torch.Tensor], scratch: torch.Tensor, tile: Tile, **attrs: object
        ) -> None:
            started = times.now()
            kernel(out, ins, scratch, tile, **attrs)
            row = times.took("kernels", name, started, times.now())
            row.calls += 1
            row.elements += tile.elements
            row.units += units

        return replace(step, kernel=timed)

    def _fold(self, step: Step, island: OpenIsland, current: Pass, tile: Tile) -> None:
        started = self._times.now()
        super()._fold(step, island, current, tile)
        self._times.took("kernels", step.node.op.name, started, self._times.now())

    def _finite(self, values: torch.Tensor) -> bool:
        self._end_reading()
        started = self._times.now()
        finite = super()._finite(values)
        row = self._times.took("check", "check", started, self._times.now())
        row.calls += 1
        row.elements += values.numel()
        return finite

    def _read(self, step: Step, island: OpenIsland, current: Pass, tile: Tile, overflows: Overflows | None) -> int:
        name = step.node.op.name
        self._reading = name, self._times.now()
        read_bytes = super()._read(step, island, current, tile, overflows)
        self._end_reading()
        row = self._times.ops[name]
        row.calls += 1
        row.elements += tile.elements
        row.bytes += read_bytes
        return read_bytes

    def _end_reading(self) -> None:
        """What was read is looked into next, which is another matter."""
        if self._reading is not None:
            name, started = self._reading
            self._times.took("read", name, started, self._times.now())
            self._reading = None

    def _write(self, step: Step, outputs: tuple[str, ...], current: Pass, tile: Tile) -> None:
        started = self._times.now()
        super()._write(step, outputs, current, tile)
        row = self._times.took("write", step.node.op.name, started, self._times.now())
        row.calls += 1
        row.elements += tile.elements
        row.bytes += step.out.numel() * len(outputs)

    def _move(self, name: str, offset_bytes: int, leaf: StoredTensor, size_bytes: int) -> bool:
        started = self._times.now()
        moved = super()._move(name, offset_bytes, leaf, size_bytes)
        row = self._times.took("copy", "copy", started, self._times.now())
        if moved:
            row.calls += 1
            row.elements += size_bytes // leaf.spec.dtype.itemsize
            row.bytes += size_bytes
        return moved


class TimedDeviceWorker(TimedWorker, DeviceWorker):
    """The same with lanes on a device. What kernels take there is not seen: they run while the worker does else."""

    def __init__(self, run: Run, times: Times, use: DevicesInUse) -> None:
        DeviceWorker.__init__(self, run, use, use.next_home())
        self._times = times
        self._reading = None

    def take(self) -> Task | None:
        """See DeviceWorker: it reads and starts here, and only a part of that is waiting."""
        task = DeviceWorker.take(self)
        self._times.ended = self._times.now()
        return task

    def _wait_for(self, *, wait: bool) -> Task | None:
        started = self._times.now()
        task = super()._wait_for(wait=wait)
        self._times.took("wait", "wait", started, self._times.now())
        return task


class Profiler:
    """Keeps the time of one run by a clock in seconds; by a thread's own, time.thread_time, waiting is left out."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter, most_events: int = MOST_EVENTS) -> None:
        self._clock, self._most_events = clock, most_events
        self._lock = threading.Lock()
        self._started = 0.0
        self._workers: list[tuple[str, Times]] = []

    def worker(self, run: Run, use: DevicesInUse | None = None) -> Worker:
        """A worker of the calling thread, with lanes on the devices in ``use``; see execute's ``timed``."""
        with self._lock:
            if not self._workers:
                self._started = self._clock()
            times = Times(run.plan, self._clock, self._started, self._most_events)
            self._workers.append((threading.current_thread().name, times))
        return TimedWorker(run, times) if use is None else TimedDeviceWorker(run, times, use)

    def profile(self, plan: Plan, stages: Mapping[str, float], flush_seconds: float, trace: str | None) -> Profile:
        """What the workers did, now that they have ended."""
        times = [each for _, each in self._workers]
        seconds = max((each.ended for each in times), default=0.0)
        activities = dict.fromkeys(ACTIVITIES, 0.0)
        rows = {name: OpTime(name) for name in _ops_of(plan)}
        for each in times:
            for activity, spent in each.activities.items():
                activities[activity] += spent
            for name, row in each.ops.items():
                rows.setdefault(name, OpTime(name)).add(row)
        rows.pop("wait", None)
        activities["other"] = max(seconds * len(times) - sum(activities.values()), 0.0)
        return Profile(
            seconds=seconds,
            workers=len(times),
            stages=dict(stages),
            activities=activities,
            ops=tuple(sorted(rows.values(), key=lambda row: (-row.seconds, row.name))),
            kinds=_kinds(plan, times),
            flush_seconds=flush_seconds,
            trace=trace,
        )

    def tracks(self, plan: Plan) -> Sequence[NamedTrack]:
        """Two tracks a worker: the tensors it was at, and what it did with them."""
        found = []
        for title, times in self._workers:
            found.append(NamedTrack(f"{title}: tensors", times.tensors, partial(_tensor, plan)))
            names = {code: name for name, code in times.codes.items()}
            found.append(NamedTrack(f"{title}: steps", times.steps, partial(_step, names)))
        return found


def _tensor(plan: Plan, code: int) -> tuple[str, dict[str, object]]:
    return plan.graph.islands[code >> 8].name, {"pass": (code & 255) + 1}


def _step(names: Mapping[int, str], code: int) -> tuple[str, dict[str, object]]:
    return names[code], {}


def _ops_of(plan: Plan) -> Iterator[str]:
    """The rows that a table has in any case."""
    for each in plan.programs.values():
        if each.program.is_copy:
            yield "copy"
            continue
        for current in each.passes:
            yield from (node.op.name for node in (*current.nodes, *current.conclusions))


def _kinds(plan: Plan, times: Sequence[Times]) -> tuple[KindTime, ...]:
    spent: dict[str, float] = {}
    tensors: Counter[str] = Counter()
    for position, island in enumerate(plan.graph.islands):
        kind = _LAYER.sub(".*", island.name)
        tensors[kind] += 1
        spent[kind] = spent.get(kind, 0.0) + sum(each.positions[position] for each in times)
    costliest = sorted(spent.items(), key=lambda item: -item[1])
    return tuple(KindTime(name, tensors[name], seconds) for name, seconds in costliest)
