"""The plan: from a graph and a budget to tiles, arenas, an order and a predicted peak.

``predicted = reserved + workers · arena + states + slack``, and it never exceeds the budget. What comes after the last
tensor (a verification) takes the place of arenas and states, and counts where it is more. *Reserved* is what
the process holds when planning is over (imports, headers, the graph): measured, not guessed. *Slack* covers what
the arenas do not: thread stacks, code pages of kernels that have not run yet, small Python objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

from .errors import PlanError
from .memory import Arena, lay_out, state_bytes, working_bytes
from .placement import ON_HOST, DevicePass, Placement
from .placing import Situation, place
from .rates import RATES
from .schedule import Place, order
from .tiling import Pass, cut
from .time_model import pass_time
from .units import MIB, align_up, format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .devices import Device
    from .graph import Island, Program, TensorGraph
    from .rates import Rates

FULL_SPEED_TILE_ELEMENTS = 1 << 19
"""Larger tiles fall out of the cache between one op and the next; smaller ones pay more for each step in Python."""

SMALLEST_TILE_ELEMENTS = 1 << 12

SLACK_BYTES = 12 * MIB
SLACK_WORKER_BYTES = MIB

COPY_TILE_BYTES = 16 * MIB
"""Bytes that the kernel copies at a time where a tensor passes unchanged; they take no room in the process."""


_KEEPING_ELEMENTS = (math.inf, 1 << 26, -1)
"""The largest tensors that may keep what a later pass would have to find out again: all, but embeddings, none."""


@dataclass(frozen=True, eq=False)
class ProgramPlan:
    """How one program runs: its passes and, for each, the arena of a worker.

    ``program`` is the leaner form of the graph's where memory is short. ``state_bytes`` are held while a tensor is
    under way, ``working_bytes`` for a while between two passes. ``devices`` has the passes that run on a device; they
    have an arena on the host all the same, where a tile of theirs goes in parts if the device fails.
    """

    program: Program
    passes: tuple[Pass, ...]
    arenas: tuple[Arena, ...]
    state_bytes: int
    working_bytes: int
    devices: tuple[DevicePass | None, ...] = ()

    @property
    def held_bytes(self) -> int:
        """What one tensor takes beside the arenas at most."""
        return self.state_bytes + self.working_bytes

    @property
    def arena_bytes(self) -> int:
        """The largest arena of the passes."""
        return max(arena.size_bytes for arena in self.arenas)

    @property
    def bytes_read(self) -> int:
        """Bytes that one tensor's run reads, over all passes, if every guess is right."""
        return sum(each.bytes_read for each in self.passes if not each.optional)

    @property
    def readings(self) -> int:
        """How often the inputs are read in full."""
        return sum(not each.sampled and not each.optional for each in self.passes)

    def tile_elements(self, pass_index: int) -> int:
        """Elements of a full tile of a pass."""
        if self.program.is_copy:
            return max(COPY_TILE_BYTES // self.program.spec.dtype.itemsize, 1)
        placed = self.on_device(pass_index)
        return placed.tile_elements if placed is not None else self.arenas[pass_index].tile_elements

    def on_device(self, pass_index: int) -> DevicePass | None:
        """How a pass runs on a device; None for one on the host."""
        return self.devices[pass_index] if self.devices else None


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything decided before the first byte of a tensor is read."""

    graph: TensorGraph
    sequence: tuple[int, ...]
    places: Mapping[str, Place]
    programs: Mapping[Program, ProgramPlan]
    workers: int
    seed: int
    budget_bytes: int
    reserved_bytes: int
    arena_bytes: int
    state_bytes: int
    minimum_bytes: int
    header_bytes: int
    peak_so_far_bytes: int
    afterwards_bytes: int = 0
    placement: Placement = ON_HOST

    @property
    def slack_bytes(self) -> int:
        """Room for what the arenas do not hold."""
        return slack_bytes(self.workers)

    @property
    def predicted_peak_bytes(self) -> int:
        """Peak resident memory of the process that runs this plan."""
        working = max(self.workers * self.arena_bytes + self.state_bytes, self.afterwards_bytes)
        running = self.reserved_bytes + working + self.slack_bytes
        return max(running, self.peak_so_far_bytes) + self.placement.shared_bytes

    @cached_property
    def bytes_read(self) -> int:
        """Bytes that the run reads from the inputs' tensors; a tensor read in two passes counts twice."""
        islands = self.graph.islands
        return sum(self.programs[islands[position].program].bytes_read for position in self.sequence)

    @cached_property
    def bytes_written(self) -> int:
        """Bytes of the shards, headers included."""
        islands = (self.graph.islands[position] for position in self.sequence)
        return sum(island.spec.size_bytes * len(island.outputs) for island in islands) + self.header_bytes

    @cached_property
    def positions(self) -> frozenset[int]:
        """The tensors that are made; fewer than the graph has where other processes make the others."""
        return frozenset(self.sequence)

    @property
    def passes(self) -> int:
        """The most often that any tensor's inputs are read in full."""
        return max((plan.readings for plan in self.programs.values()), default=0)

    @property
    def open_islands(self) -> int:
        """How many tensors may be under way at once."""
        return open_islands(self.workers)

    def island_of(self, output_name: str) -> Island:
        """The island that writes an output tensor; KeyError if there is none."""
        for island in self.graph.islands:
            if output_name in island.outputs:
                return island
        raise KeyError(output_name)


def open_islands(workers: int) -> int:
    """How many tensors may be under way at once: one a worker, and where there are several one to fill their waits."""
    return workers + 1 if workers > 1 else 1


def slack_bytes(workers: int) -> int:
    """Room for thread stacks, code pages and small objects."""
    return SLACK_BYTES + workers * SLACK_WORKER_BYTES


def make_plan(
    graph: TensorGraph,
    places: Mapping[str, Place],
    *,
    workers: int,
    seed: int,
    budget_bytes: int | None,
    free_bytes: int,
    reserved_bytes: int,
    peak_so_far_bytes: int,
    header_bytes: int,
    afterwards_bytes: int = 0,
    tile_elements: int | None = None,
) -> Plan:
    """Choose workers and tiles for a budget; without one, what full speed needs and at most half of what is free.

    ``afterwards_bytes`` are held, beside what is reserved, once the arenas are gone.
    ``tile_elements`` asks for tiles of about that size and for all the workers, and for nothing else.

    Raises PlanError, naming the least budget that works, if not even one worker with the smallest tiles fits.
    """
    limit_bytes = budget_bytes if budget_bytes is not None else max(free_bytes // 2, 1)
    sequence = order(graph, places)
    cuts: dict[Program, tuple[Pass, ...]] = {}

    def attempt(workers: int, tile_elements: int, keeping_elements: float) -> Plan:
        programs: dict[Program, ProgramPlan] = {}
        for program in graph.programs:
            run = program if program.spec.elements <= keeping_elements else program.leaner
            if run not in cuts:
                cuts[run] = cut(run)
            programs[program] = _plan_program(run, cuts[run], tile_elements)
        states_bytes = sorted((programs[island.program].state_bytes for island in graph.islands), reverse=True)
        workings_bytes = sorted((programs[island.program].working_bytes for island in graph.islands), reverse=True)
        return Plan(
            graph=graph,
            sequence=sequence,
            places=places,
            programs=programs,
            workers=workers,
            seed=seed,
            budget_bytes=limit_bytes,
            reserved_bytes=reserved_bytes,
            arena_bytes=max((plan.arena_bytes for plan in programs.values()), default=0),
            state_bytes=sum(states_bytes[: open_islands(workers)]) + sum(workings_bytes[:workers]),
            minimum_bytes=minimum_bytes,
            header_bytes=header_bytes,
            peak_so_far_bytes=peak_so_far_bytes,
            afterwards_bytes=afterwards_bytes,
        )

    minimum_bytes = 0
    least = attempt(1, SMALLEST_TILE_ELEMENTS, _KEEPING_ELEMENTS[-1])
    # A second process may hold a little more when it gets here: the least that is promised has a margin.
    minimum_bytes = align_up(least.predicted_peak_bytes + 4 * MIB, MIB)
    asked = None if tile_elements is None else [(workers, tile_elements)]
    keepings = _KEEPING_ELEMENTS if any(each.leaner is not each for each in graph.programs) else _KEEPING_ELEMENTS[:1]
    for (crew, elements), keeping in product(asked or _settings(workers), keepings):
        plan = attempt(crew, elements, keeping)
        if plan.predicted_peak_bytes <= limit_bytes:
            return plan
    enough = f"{minimum_bytes // MIB}MiB"
    held = f"{format_bytes(reserved_bytes)} are in use before the first tensor is read"
    if budget_bytes is None:
        raise PlanError(
            f"this needs {enough} of memory, and half of what is free is {format_bytes(limit_bytes)} ({held}); "
            f"free some memory, or set --memory {enough}",
            minimum_bytes,
        )
    raise PlanError(
        f"--memory {format_bytes(budget_bytes)} is too little: the least that works is {enough} ({held})", minimum_bytes
    )


def on_devices(plan: Plan, devices: Sequence[Device], *, asked: bool = False, rates: Rates = RATES) -> Plan:
    """The plan with its passes placed on devices; where they were ``asked`` for, all that can run there does."""
    if not devices:
        return plan
    situation = Situation(
        programs=plan.programs,
        islands=plan.graph.islands,
        sequence=plan.sequence,
        times={
            program: [pass_time(each, index, rates) for index in range(len(each.passes))]
            for program, each in plan.programs.items()
        },
        workers=plan.workers,
        room_bytes=plan.arena_bytes,
        spare_bytes=max(plan.budget_bytes - plan.predicted_peak_bytes, 0),
    )
    placement = place(situation, devices, asked=asked)
    programs = {program: replace(each, devices=placement.of(program)) for program, each in plan.programs.items()}
    return replace(plan, programs=programs, placement=placement)


def _settings(workers: int) -> Iterator[tuple[int, int]]:
    """Workers and tile sizes to try, the fastest first: tiles get small before a worker goes."""
    for crew in range(workers, 0, -1):
        tile_elements = FULL_SPEED_TILE_ELEMENTS
        while tile_elements >= SMALLEST_TILE_ELEMENTS:
            yield crew, tile_elements
            tile_elements //= 2


def _plan_program(program: Program, passes: tuple[Pass, ...], tile_elements: int) -> ProgramPlan:
    arenas = tuple(lay_out(each, each.tile_elements(tile_elements)) for each in passes)
    return ProgramPlan(program, passes, arenas, max(state_bytes(passes)), working_bytes(passes))
