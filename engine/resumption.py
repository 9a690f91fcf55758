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


def finished_by(
    plan: Plan, batches: Sequence[Batch], *, whole: AbstractSet[str], missing: AbstractSet[str]
) -> Finished:
    """What an interrupted run has finished, by its journal and by its files.

    ``whole`` are the output tensors in shards that are complete, ``missing`` those in shards that are not there.
    """
    islands = plan.graph.islands
    finished = Finished()
    for batch in batches:
        for stretch in batch.stretches:
            # Where memory is shorter now, a pass may count in another order.
            if stretch.panels == counts_panels(plan, stretch.position):
                finished.add(stretch.position, stretch.lo, stretch.hi)
    for position, island in enumerate(islands):
        if not missing.isdisjoint(island.outputs):
            finished.drop(position)
        elif whole >= set(island.outputs):
            finished.add(position, 0, island.spec.elements)
    return finished


def trusted(plan: Plan, disk: ReadBack, batches: Sequence[Batch]) -> int:
    """How many of a journal's batches count: up to the last whose stretches still end as they were written."""
    for count in range(len(batches), 0, -1):
        if all(_holds(plan, disk, stretch) for stretch in batches[count - 1].stretches if stretch.probe is not None):
            return count
    return 0


def remaining(plan: Plan, finished: Finished) -> dict[int, tuple[Tile, ...]]:
    """For each tensor that was begun, what its last pass still has to write; nothing where it is finished."""
    left = {}
    for position in finished.positions():
        last = plan.programs[plan.graph.islands[position].program].passes[-1]
        # Tiles have to start where they may: at rows, blocks or panels. The smallest tile says so.
        left[position] = finished.gaps(position, last.elements, max(last.tile_elements(1), 1))
    return left


def kept_bytes(plan: Plan, left: Mapping[int, Iterable[Tile]]) -> dict[str, int]:
    """For each output tensor that was begun, the bytes that need not be written again."""
    kept = {}
    for position, gaps in left.items():
        island = plan.graph.islands[position]
        missing_bytes = sum(gap.elements for gap in gaps) * island.spec.dtype.itemsize
        kept.update(dict.fromkeys(island.outputs, island.spec.size_bytes - missing_bytes))
    return kept


def _holds(plan: Plan, disk: ReadBack, stretch: Stretch) -> bool:
    try:
        return probe(plan, disk, stretch) == stretch.probe
    except OutputError:
        return False


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
