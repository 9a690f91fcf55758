"""What an interrupted run left: the journals of its processes, against the shards that are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.journal import read_journal
from ..engine.resumption import finished_by, finished_together, trusted
from ..loaders.folder import JOURNAL_FILE, journals_of_others
from ..loaders.shards import LeftShards
from .identity import read_earlier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ..engine.journal import Batch, Finished
    from ..engine.model import StoredTensor
    from ..loaders.shards import ShardState
    from ..merge import MergePlan


@dataclass(frozen=True)
class Left:
    """What is finished, and what there is of every shard.

    ``nonfinite`` are inputs' tensors whose NaN or infinity was let through, ``steps`` the batches of the journals,
    ``redone_steps`` those whose bytes are not on disk as they were.
    """

    finished: Finished
    states: Mapping[str, ShardState]
    nonfinite: frozenset[StoredTensor]
    steps: int
    redone_steps: int


def take_up(merge: MergePlan, folder: Path, identity: Mapping[str, object]) -> Left:
    """See what a run has finished that is still on disk. UsageError or InputError if that was another run.

    The run's own journal begins with what was finished before it, then goes on with the shards of process 0. Those of
    another process are in its own journal, from the start, if it has one of the same run.
    """
    head, batches = read_earlier(folder / JOURNAL_FILE, identity)
    every = frozenset(range(len(merge.shards)))
    own = frozenset(_claimed(head)) if head.get("shards") is not None else every
    records: list[tuple[frozenset[int], Sequence[Batch]]] = [(own, batches)]
    for path in journals_of_others(folder):
        found = read_journal(path)
        if found is not None and found[0].get("run") == head.get("run"):
            records.append((frozenset(_claimed(found[0])), found[1]))
    unclaimed = every.difference(*(shards for shards, _ in records))
    states: dict[str, ShardState] = {}
    parts = []
    steps = redone_steps = 0
    for shards, written in [*records, *([(unclaimed, batches[:1])] if unclaimed else [])]:
        part = merge.parts.of(shards)
        disk = LeftShards(folder, [merge.shards[number] for number in sorted(shards)])
        # Shards that no process came to were looked at when the run's journal was begun.
        count = trusted(part, disk, written) if shards is not unclaimed else len(written)
        steps, redone_steps = steps + len(written), redone_steps + len(written) - count
        states |= disk.states
        parts.append((part, finished_by(part, written[:count], missing=disk.missing)))
    named = {pair for _, written in records for batch in written for pair in batch.nonfinite}
    tensors = (stored for model in merge.models.values() for stored in model.tensors.values()) if named else ()
    return Left(
        finished_together(merge.plan, parts),
        states,
        frozenset(stored for stored in tensors if (stored.model, stored.name) in named),
        steps,
        redone_steps,
    )


def _claimed(head: Mapping[str, object]) -> list[int]:
    shards = head["shards"]
    assert isinstance(shards, list)
    return shards
