"""Every tensor of a merge, and every moment of its run, as plain values; one after the other, since there are many."""

from __future__ import annotations

from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..engine.graph import Island
    from ..engine.model import StoredTensor
    from ..engine.simulate import Moment
    from .graph_document import Draft


def tensor_values(made: Draft) -> Iterator[dict[str, object]]:
    """The output's tensors in its order: how each is made, from what, and where it goes."""
    merge = made.merge
    groups = {
        layer.prefix + tensor.name: group.number
        for group in made.groups
        if not group.folded
        for run in group.runs
        for layer in run.layers
        for tensor in layer.tensors
    }
    shards = {name: number for number, shard in enumerate(merge.shards) for name in shard.offsets_bytes}
    files = {file: Path(file).name for file in {leaf.file for island in made.islands for leaf in island.leaves}}
    for name, island in _outputs(made):
        yield {
            "name": name,
            "program": made.programs[island.program],
            "group": groups[name],
            "shard": shards[name],
            "offset_bytes": merge.shards[shards[name]].offsets_bytes[name],
            "bytes": island.spec.size_bytes,
            "reads": [_read(leaf, made.marks, files) for leaf in island.leaves],
            "same_as": island.name if island.name != name else None,
        }


def _outputs(made: Draft) -> Iterator[tuple[str, Island]]:
    islands = {name: island for island in made.islands for name in island.outputs}
    if made.tensor is not None:
        yield made.tensor, islands[made.tensor]
        return
    for tensor in made.merge.compiled.mapping.tensors:
        yield tensor.name, islands[tensor.name]


def _read(leaf: StoredTensor, marks: Mapping[str, str], files: Mapping[str, str]) -> dict[str, object]:
    return {
        "model": marks[leaf.model],
        "file": files[leaf.file],
        "offset_bytes": leaf.offset_bytes,
        "name": leaf.name,
    }


def timeline(made: Draft, most_rows: int | None = None) -> Iterator[list[int]]:
    """What is in memory over the run: output index, pass, workers, live, state and done bytes of each moment.

    With ``most_rows`` neighbours share a row, that of the moment at which most is in memory.
    """
    names = (tensor.name for tensor in made.merge.compiled.mapping.tensors)
    index = dict(zip(names, count(), strict=False))
    wanted = {island.name for island in made.islands}
    moments = (moment for moment in simulate(made.merge.plan) if moment.output in wanted)
    for moment in moments if most_rows is None else thinned(list(moments), most_rows):
        yield [index[moment.output], *moment[1:]]


def thinned(moments: Sequence[Moment], most_rows: int) -> Iterable[Moment]:
    """At most so many of the moments, among them the last one and, of every stretch, the one with most in memory."""
    if len(moments) <= most_rows:
        return moments
    stretches = most_rows - 1
    edges = [(len(moments) - 1) * number // stretches for number in range(stretches + 1)]
    kept = [
        max(moments[low:high], key=lambda moment: moment.live_bytes + moment.state_bytes)
        for low, high in pairwise(edges)
    ]
    return [*kept, moments[-1]]
