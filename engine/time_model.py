"""How long a plan takes: a pure function of what it reads, writes and computes, and of what a machine does a second.

A worker reads a tile, computes on it and writes it; several overlap, so a pass takes the longest of what all of them
read, of what they write, and of an equal share of everything. The figures are estimates: how much work one tensor is
beside another holds on any machine, seconds hold as far as its `Rates` do. A run corrects them as it goes
(`forecast`).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .panels import lines_of
from .rates import RATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .graph import Node, Program
    from .placement import DevicePass
    from .plan import Plan, ProgramPlan
    from .rates import Rates
    from .tiling import Pass


@dataclass(frozen=True, slots=True)
class PassTime:
    """Seconds that one worker takes for a pass over one tensor.

    ``concluding_seconds`` come once, after the last tile: what follows from the reductions.
    """

    reading_seconds: float
    writing_seconds: float
    computing_seconds: float
    concluding_seconds: float

    @property
    def tiles_seconds(self) -> float:
        """Everything but the end."""
        return self.reading_seconds + self.writing_seconds + self.computing_seconds

    def spread(self, workers: int) -> float:
        """Seconds of a run that has so many workers: they share the work, and wait for the same disk."""
        shared = (self.tiles_seconds + self.concluding_seconds) / workers
        return max(shared, self.reading_seconds, self.writing_seconds)

    def moving(self, workers: int) -> float:
        """The same where a device computes: the workers read and write."""
        shared = (self.reading_seconds + self.writing_seconds) / workers
        return max(shared, self.reading_seconds, self.writing_seconds)


def work_units(node: Node, elements: int) -> float:
    """How much an op has to do in a pass over so many elements, in what its nanoseconds are for.

    Elements times the inputs that come in tiles; times the width of a line for products of matrices. A state op counts
    the elements of its largest state, and to the power of 3/2 where that is a square matrix, as solvers do.
    """
    if node.op.locality == "state":
        largest = max((source.spec for source in node.inputs), key=lambda spec: spec.elements, default=node.spec)
        square = len(largest.shape) == 2 and largest.shape[0] == largest.shape[1]
        return largest.elements * (math.sqrt(largest.elements) if square else 1.0)
    inputs = max(sum(not source.settled for source in node.inputs), 1)
    width = 1
    if node.op.locality in ("panel", "whole"):
        width = lines_of(next(source.spec.shape for source in node.inputs if not source.settled)).width
    return float(elements) * inputs * width


def op_seconds(node: Node, elements: int, rates: Rates) -> float:
    """Seconds that one worker takes for an op, the steps' own cost not counted."""
    if node.op.kernel is None:
        return 0.0
    usual = rates.locality_nanoseconds[node.op.locality]
    return work_units(node, elements) * rates.op_nanoseconds.get(node.op.name, usual) * 1e-9


def pass_time(program: ProgramPlan, index: int, rates: Rates = RATES, *, outputs: int = 1) -> PassTime:
    """Seconds for a pass over one tensor that is written under ``outputs`` names."""
    current = program.passes[index]
    tile_elements = max(program.tile_elements(index), 1)
    tiles = -(-current.elements // tile_elements)
    written_bytes = program.program.spec.size_bytes * outputs if index == len(program.passes) - 1 else 0
    if program.program.is_copy:
        # Read and written in one go; counted as writing, because that is what it waits for.
        return PassTime(0.0, written_bytes / rates.copy_bytes, tiles * rates.tile_seconds, 0.0)
    overhead_seconds = tiles * (rates.tile_seconds + len(current.nodes) * rates.step_seconds)
    return PassTime(
        current.bytes_read / rates.read_bytes,
        written_bytes / rates.write_bytes,
        overhead_seconds + sum(op_seconds(node, current.elements, rates) for node in current.nodes),
        _concluding_seconds(current, rates),
    )


def _concluding_seconds(current: Pass, rates: Rates) -> float:
    steps = len(current.reductions) + len(current.conclusions)
    return steps * rates.step_seconds + sum(op_seconds(node, 0, rates) for node in current.conclusions)


def pass_seconds(plan: Plan, rates: Rates = RATES) -> Mapping[Program, tuple[float, ...]]:
    """Seconds of the run that each pass over one tensor takes, by the graph's program.

    0 where a pass is only walked after a wrong guess: none is expected.
    """
    return {
        program: tuple(
            0.0 if current.optional else pass_time(each, index, rates).spread(plan.workers)
            for index, current in enumerate(each.passes)
        )
        for program, each in plan.programs.items()
    }


def program_seconds(plan: Plan, rates: Rates = RATES) -> Mapping[Program, float]:
    """Seconds of the run that one tensor takes, by the graph's program: its passes together."""
    return {program: sum(passes) for program, passes in pass_seconds(plan, rates).items()}


def tensors_seconds(
    programs: Mapping[Program, ProgramPlan],
    times: Mapping[Program, Sequence[PassTime]],
    counts: Mapping[Program, int],
    workers: int,
    *,
    placed: Mapping[Program, Sequence[DevicePass | None]],
    device_seconds: Iterable[float] = (),
) -> float:
    """Seconds that so many workers take for so many tensors of each program.

    Passes that are ``placed`` on devices are only read and written for; the devices are at work meanwhile, each for its
    ``device_seconds``.
    """
    on_host = moving = 0.0
    for program, count in counts.items():
        there = placed.get(program) or (None,) * len(programs[program].passes)
        for current, time, device in zip(programs[program].passes, times[program], there, strict=True):
            if current.optional:
                continue
            if device is None:
                on_host += count * time.spread(workers)
            else:
                moving += count * time.moving(workers)
    return on_host + max((moving, *device_seconds))


def shared_seconds(parts: Sequence[Plan], rates: Rates = RATES, *, together: int = 1) -> float:
    """Seconds of a whole run, from its start to the finished folder, that processes share: each has one of ``parts``.

    ``together`` are on each machine, in this order. The machine that takes longest counts. Processes of one machine
    share its cores and its disk: they take as long as the longest of them, and no less than one process that has the
    workers of all. Machines are taken to have a disk each.
    """
    times = {
        program: [pass_time(each, index, rates) for index in range(len(each.passes))]
        for program, each in (parts[0].programs if parts else {}).items()
    }
    machines = [parts[first : first + together] for first in range(0, len(parts), together)]
    return rates.start_seconds + max((_machine_seconds(machine, times, rates) for machine in machines), default=0.0)


def _machine_seconds(parts: Sequence[Plan], times: Mapping[Program, Sequence[PassTime]], rates: Rates) -> float:
    longest = max(_part_seconds(part, times, rates, part.workers, on_devices=True) for part in parts)
    if len(parts) == 1:
        return longest
    workers = sum(part.workers for part in parts)
    return max(longest, sum(_part_seconds(part, times, rates, workers, on_devices=False) for part in parts))


def _part_seconds(
    part: Plan, times: Mapping[Program, Sequence[PassTime]], rates: Rates, workers: int, *, on_devices: bool
) -> float:
    """Seconds that so many workers take for a part; without what devices compute where only the host is asked about."""
    islands, placement = part.graph.islands, part.placement
    counts = Counter(islands[position].program for position in part.sequence)
    busy_seconds = [0.0] * len(placement.devices)
    for position in part.sequence if on_devices else ():
        home = placement.homes.get(position)
        if home is not None:
            busy_seconds[home] += placement.busy_seconds[islands[position].program][home]
    seconds = tensors_seconds(
        part.programs, times, counts, workers, placed=placement.passes, device_seconds=busy_seconds
    )
    # Under a second name a tensor is only written once more.
    copied_bytes = sum(
        (len(islands[position].outputs) - 1) * islands[position].spec.size_bytes for position in part.sequence
    )
    return seconds + copied_bytes / rates.write_bytes
