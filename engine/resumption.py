"""What is left to do of a run that was interrupted: its journal against what the disk still has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import OutputError
from .journal import Batch, Finished, Stretch
from .recorder import counts_panels, probe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from .model import ReadBack
    from .opdef import Tile
    from .plan import Plan


def finished_by(plan: Plan, batches: Sequence[Batch], *, missing: AbstractSet[str]) -> Finished:
    """What an interrupted run has finished of a plan's tensors, by its journal and by its files.

    ``missing`` are the output tensors in shards that are not there. What is in a shard that is complete, and not in
    the journal, is computed again: nothing else tells what was found in it on the way.
    """
    finished, otherwise = Finished(), Finished()
    for batch in batches:
        turned = set()
        for stretch in batch.stretches:
            if stretch.position not in plan.positions:
                continue
            # Where memory is another now, a pass may count in another order.
            if stretch.panels == counts_panels(plan, stretch.position):
                finished.add(stretch.position, stretch.lo, stretch.hi)
            else:
                otherwise.add(stretch.position, stretch.lo, stretch.hi)
                turned.add(stretch.position)
        for position, overflowed in batch.overflows:
            if position in plan.positions:
                (otherwise if position in turned else finished).count(position, overflowed)
    for position in otherwise.positions():
        if otherwise.elements(position) == plan.graph.islands[position].spec.elements:
            finished.drop(position)  # all of a tensor is the same in any order
            finished.take(position, otherwise)
    for position, island in enumerate(plan.graph.islands) if missing else ():
        if not missing.isdisjoint(island.outputs):
            finished.drop(position)
    # Where its tiles now start elsewhere, a part would be done and counted again.
    for position in list(finished.overflows):
        again = sum(gap.elements for gap in _gaps(plan, finished, position))
        if again + finished.elements(position) > plan.graph.islands[position].spec.elements:
            finished.drop(position)
    return finished


def finished_together(plan: Plan, parts: Sequence[tuple[Plan, Finished]]) -> Finished:
    """What processes have finished that had a part of the plan each.

    A tensor that several of them write counts where all of them are through with it: what they wrote of it besides
    may be different stretches.
    """
    together = Finished()
    shared: dict[int, list[Finished]] = {}
    names: dict[int, int] = {}
    for part, finished in parts:
        for position in part.positions.intersection(finished.positions()):
            outputs = len(part.graph.islands[position].outputs)
            if outputs == len(plan.graph.islands[position].outputs):
                together.take(position, finished)
            elif not _gaps(part, finished, position):
                shared.setdefault(position, []).append(finished)
                names[position] = names.get(position, 0) + outputs
    for position, each in shared.items():
        if names[position] == len(plan.graph.islands[position].outputs):
            together.take(position, each[0])
    return together


def trusted(plan: Plan, disk: ReadBack, batches: Sequence[Batch]) -> int:
    """How many of a journal's batches count: up to the last whose stretches still end as they were written."""
    for count in range(len(batches), 0, -1):
        probed = (stretch for stretch in batches[count - 1].stretches if stretch.probe is not None)
        if all(_holds(plan, disk, stretch) for stretch in probed if stretch.position in plan.positions):
            return count
    return 0


def remaining(plan: Plan, finished: Finished) -> dict[int, tuple[Tile, ...]]:
    """For each tensor that was begun, what its last pass still has to write; nothing where it is finished."""
    return {position: _gaps(plan, finished, position) for position in finished.positions()}


def kept_bytes(plan: Plan, left: Mapping[int, Iterable[Tile]]) -> dict[str, int]:
    """For each output tensor that was begun, the bytes that need not be written again."""
    kept = {}
    for position, gaps in left.items():
        island = plan.graph.islands[position]
        missing_bytes = sum(gap.elements for gap in gaps) * island.spec.dtype.itemsize
        kept.update(dict.fromkeys(island.outputs, island.spec.size_bytes - missing_bytes))
    return kept


def spared_bytes(plan: Plan, left: Mapping[int, Sequence[Tile]]) -> int:
    """Bytes that need not be read and written because an earlier run did."""
    spared_bytes = 0
    for position, gaps in left.items():
        island = plan.graph.islands[position]
        program = plan.programs[island.program]
        last, missing = program.passes[-1], sum(gap.elements for gap in gaps)
        done_share = 1 - missing / last.elements if last.elements else 1.0
        spared_bytes += int(done_share * (island.spec.size_bytes * len(island.outputs) + last.bytes_read))
        if not missing:
            spared_bytes += program.bytes_read - last.bytes_read
    return spared_bytes


def _gaps(plan: Plan, finished: Finished, position: int) -> tuple[Tile, ...]:
    last = plan.programs[plan.graph.islands[position].program].passes[-1]
    # Tiles have to start where they may: at rows, blocks or panels. The smallest tile says so.
    return finished.gaps(position, last.elements, max(last.tile_elements(1), 1))


def _holds(plan: Plan, disk: ReadBack, stretch: Stretch) -> bool:
    try:
        return probe(plan, disk, stretch) == stretch.probe
    except OutputError:
        return False


def unfinished(plan: Plan, finished: Finished) -> tuple[int, ...]:
    """The tensors of a plan that are not finished to the end."""
    return tuple(position for position in plan.sequence if _gaps(plan, finished, position))


def share_of(plan: Plan, finished: Finished) -> float:
    """Part of the output's bytes that is finished, 0 to 1."""
    islands = plan.graph.islands
    element_bytes = {
        position: islands[position].spec.dtype.itemsize * len(islands[position].outputs)
        for position in finished.positions()
    }
    total = sum(island.spec.size_bytes * len(island.outputs) for island in islands)
    done = sum(finished.elements(position) * size_bytes for position, size_bytes in element_bytes.items())
    return done / total if total else 1.0
