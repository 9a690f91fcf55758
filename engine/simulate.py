"""Replay a plan without running it: what is in memory while each pass of each tensor is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .memory import replay, state_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .plan import Plan


class Moment(NamedTuple):
    """One pass of one tensor.

    ``live_bytes`` is the most that values and scratch of the workers in it take, ``state_bytes`` what the
    tensor's reductions hold, ``done_bytes`` what is read and written when it is over.
    """

    output: str
    pass_index: int
    workers: int
    live_bytes: int
    state_bytes: int
    done_bytes: int


def simulate(plan: Plan) -> Iterator[Moment]:
    """Walk a plan in its order. A pass takes as many workers as it has tiles, at most all of them."""
    peaks: dict[tuple[int, int], tuple[int, int]] = {}
    held_bytes: dict[int, tuple[int, ...]] = {}
    done_bytes = 0
    for position in plan.sequence:
        island = plan.graph.islands[position]
        program = plan.programs[island.program]
        if id(program) not in held_bytes:
            held_bytes[id(program)] = state_bytes(program.passes)
        for index, (current, arena) in enumerate(zip(program.passes, program.arenas, strict=True)):
            key = (id(program), index)
            if key not in peaks:
                live_bytes = max(replay(current, arena.tile_elements), default=0)
                peaks[key] = (live_bytes, current.tile_count(program.tile_elements(index)))
            live_bytes, tiles = peaks[key]
            workers = 1 if current.wholes else min(plan.workers, tiles)
            done_bytes += 0 if current.optional else current.bytes_read
            if index == len(program.passes) - 1:
                done_bytes += island.spec.size_bytes * len(island.outputs)
            yield Moment(island.name, index, workers, workers * live_bytes, held_bytes[id(program)][index], done_bytes)


def simulated_peak_bytes(plan: Plan) -> int:
    """The largest sum of live values and states in a replay; at most what the plan sets aside for both."""
    return max((moment.live_bytes + moment.state_bytes for moment in simulate(plan)), default=0)
