"""What is left of a run, in seconds: the time model's work, at the speed that was measured so far.

Every pass of every program has a speed of its own, because a model of a machine is wrong in another way for each kind
of work. One that has not begun goes by those made of the same ops, and by the whole run until one of these has.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .rates import RATES
from .time_model import PassTime, pass_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .opdef import Tile
    from .plan import Plan, ProgramPlan
    from .rates import Rates

_PRIOR_SHARE = 0.01
"""A part's own speed counts as much as that of its like once this share of it is done."""

_LATELY_SHARE = 0.3
"""How much of a part its speed is taken from, the last of it: more is steadier, less follows a change sooner."""


@dataclass(slots=True)
class _Part:
    """Tiles of one pass of one program, or its ends, over all tensors: seconds predicted, done and measured.

    ``weight`` is what was done lately, predicted, and ``measured`` what that took: a disk or a machine that others use,
    too, changes its speed on the way.
    """

    total: float = 0.0
    done: float = 0.0
    weight: float = 0.0
    measured: float = 0.0

    def add(self, predicted: float, measured: float) -> None:
        """Take a tile or an end; earlier ones count less from then on."""
        self.done += predicted
        kept = math.exp(-predicted / (self.total * _LATELY_SHARE)) if self.total > 0.0 else 0.0
        self.weight = self.weight * kept + predicted
        self.measured = self.measured * kept + measured

    def join(self, other: _Part) -> None:
        """Take what another one knows."""
        self.total += other.total
        self.weight += other.weight
        self.measured += other.measured

    def speed(self, prior: float) -> float:
        """Seconds measured for each that was predicted, as far as that is known."""
        doubt = self.total * _PRIOR_SHARE
        known = self.weight + doubt
        return (self.measured + prior * doubt) / known if known > 0.0 else prior

    @property
    def left(self) -> float:
        """Seconds predicted for what is not done."""
        return max(self.total - self.done, 0.0)


@dataclass(slots=True)
class _PassParts:
    """A pass of a program: the group that it is like, what a tile's element and what an end are predicted to take."""

    group: str
    element_seconds: float
    end_seconds: float
    tiles: _Part = field(default_factory=_Part)
    ends: _Part = field(default_factory=_Part)


class Forecast:
    """Follows a run. `begin`, `tile` and `ended` may be called from several threads, ``worker`` is anything of its own.

    ``left`` has, for the tensors that an earlier run began, what it did not write.
    """

    def __init__(self, plan: Plan, left: Mapping[int, Sequence[Tile]] | None = None, rates: Rates = RATES) -> None:
        self._workers = plan.workers
        self._lock = threading.Lock()
        self._passes: dict[tuple[int, int], _PassParts] = {}
        for position, island in enumerate(plan.graph.islands):
            gaps = (left or {}).get(position)
            missing = None if gaps is None else sum(gap.elements for gap in gaps)
            if missing == 0:
                continue
            program = plan.programs[island.program]
            for index, current in enumerate(program.passes):
                if current.optional:
                    continue
                parts = self._parts(program, index, rates)
                elements = current.elements
                if missing is not None and index == len(program.passes) - 1:
                    elements = missing
                parts.tiles.total += elements * parts.element_seconds
                parts.ends.total += parts.end_seconds
        self.total_seconds = sum(parts.tiles.total + parts.ends.total for parts in self._passes.values())
        self.busy_seconds = 0.0
        self._begun: dict[int, float] = {}

    def begin(self, worker: int, at_seconds: float) -> None:
        """A worker begins a tile, so many seconds after the run began."""
        with self._lock:
            self._begun[worker] = at_seconds

    def tile(self, worker: int, program: ProgramPlan, pass_index: int, elements: int, seconds: float) -> None:
        """A worker took so many seconds for a tile."""
        with self._lock:
            self._begun.pop(worker, None)
            self.busy_seconds += seconds
            parts = self._passes.get((id(program), pass_index))
            if parts is not None:
                parts.tiles.add(elements * parts.element_seconds, seconds)

    def ended(self, program: ProgramPlan, pass_index: int, seconds: float) -> None:
        """A worker took so many seconds for the end of a pass."""
        with self._lock:
            self.busy_seconds += seconds
            parts = self._passes.get((id(program), pass_index))
            if parts is not None:
                parts.ends.add(parts.end_seconds, seconds)

    @property
    def share(self) -> float:
        """Part of the work that is done, 0 to 1, by the seconds that it was predicted to take."""
        done = sum(min(part.done, part.total) for part in self._all())
        return min(done / self.total_seconds, 1.0) if self.total_seconds > 0.0 else 1.0

    def seconds_left(self, elapsed_seconds: float) -> float | None:
        """Seconds until the last tile is done, None where nothing is done yet."""
        with self._lock:
            return self._seconds_left(elapsed_seconds)

    def _seconds_left(self, elapsed_seconds: float) -> float | None:
        whole = _Part()
        groups: dict[str, _Part] = {}
        for each in self._passes.values():
            for part, group in ((each.tiles, each.group), (each.ends, f"{each.group} end")):
                whole.join(part)
                groups.setdefault(group, _Part()).join(part)
        if whole.weight <= 0.0 or whole.measured <= 0.0 or elapsed_seconds <= 0.0:
            return None
        speed = whole.measured / whole.weight
        left = 0.0
        for each in self._passes.values():
            for part, group in ((each.tiles, each.group), (each.ends, f"{each.group} end")):
                left += part.left * part.speed(groups[group].speed(speed))
        # Tiles under way are not counted yet, and a good part of a short run.
        under_way = sum(max(elapsed_seconds - began, 0.0) for began in self._begun.values())
        busy_workers = min((self.busy_seconds + under_way) / elapsed_seconds, float(self._workers))
        return max(left - under_way, 0.0) / busy_workers

    def _all(self) -> Sequence[_Part]:
        return [part for parts in self._passes.values() for part in (parts.tiles, parts.ends)]

    def _parts(self, program: ProgramPlan, index: int, rates: Rates) -> _PassParts:
        key = id(program), index
        if key not in self._passes:
            current, expected = program.passes[index], pass_time(program, index, rates)
            group = "copy" if program.program.is_copy else " ".join(node.op.name for node in current.nodes)
            self._passes[key] = _PassParts(group, _per_element(expected, current.elements), expected.concluding_seconds)
        return self._passes[key]


def _per_element(expected: PassTime, elements: int) -> float:
    return expected.tiles_seconds / elements if elements else 0.0
