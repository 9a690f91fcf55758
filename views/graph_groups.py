"""The output's layers as plain values, folded as the dry run folds them, and which group each tensor is in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.units import format_count
from .cycles import Cycle, fold_cycles, layers_between
from .layers import alone, runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine.graph import Program
    from ..merge import MergePlan
    from .kinds import Kind
    from .layers import Run


@dataclass(frozen=True)
class Group:
    """One or more layers made alike, or a pattern of such groups that comes several times.

    ``runs`` are all layers that the group stands for, those of every time; ``times`` is above 1 for a pattern only,
    whose groups have it as their ``parent``.
    """

    number: int
    part: Run | Cycle
    runs: tuple[Run, ...]
    times: int = 1
    parent: int | None = None

    @property
    def folded(self) -> bool:
        """Whether other groups say what is in it."""
        return isinstance(self.part, Cycle)

    @property
    def first(self) -> Run:
        """The layers that stand for the group."""
        return self.part.runs[0] if isinstance(self.part, Cycle) else self.part

    @property
    def shift(self) -> int | None:
        """How much further on the models' layers are each time; None for what comes once."""
        if not isinstance(self.part, Cycle):
            return None
        return next(iter(layers_between(self.runs[0], self.runs[len(self.part.runs)])), 0)

    def ranges(self) -> dict[str, list[tuple[int, int]]]:
        """For each model the layers that it gives, first and last; nothing outside of the stacks.

        Of a pattern it is all that it takes over all its times, of a group within one what it takes the first time.
        """
        found: dict[str, list[tuple[int, int]]] = {}
        if not self.folded:
            layers = self.first.layers
            for (model, low), (_, high) in zip(layers[0].given, layers[-1].given, strict=True):
                ranges = found.setdefault(model, [])
                if low is not None and high is not None:
                    ranges.append((low, high))
            return found
        for run in self.runs:
            for model, number in (*run.layers[0].given, *run.layers[-1].given):
                ranges = found.setdefault(model, [])
                if number is not None:
                    low, high = ranges[0] if ranges else (number, number)
                    ranges[:] = [(min(low, number), max(high, number))]
        return found


def groups_of(merge: MergePlan, kinds: Mapping[Program, Kind], tensor: str | None = None) -> list[Group]:
    """Fold the output in its own order; a pattern comes right before the groups that it is made of.

    ``tensor``: one group for that output tensor alone.
    """
    folded = runs(merge, kinds) if tensor is None else [alone(merge, tensor)]
    found: list[Group] = []
    at = 0
    for part in fold_cycles(folded, kinds):
        if not isinstance(part, Cycle):
            found.append(Group(len(found), part, (part,)))
            at += 1
            continue
        length = len(part.runs)
        every = tuple(folded[at : at + part.times * length])
        parent = len(found)
        found.append(Group(parent, part, every, part.times))
        found += [
            Group(parent + 1 + index, run, every[index::length], parent=parent) for index, run in enumerate(part.runs)
        ]
        at += len(every)
    return found


def group_values(
    groups: Sequence[Group], kinds: Mapping[Program, Kind], programs: Mapping[Program, int], marks: Mapping[str, str]
) -> list[dict[str, object]]:
    """Groups for the document; sizes of a group within a pattern are those of its first time."""
    return [_value(group, kinds, programs, marks) for group in groups]


def _value(
    group: Group, kinds: Mapping[Program, Kind], programs: Mapping[Program, int], marks: Mapping[str, str]
) -> dict[str, object]:
    part, first = group.part, group.first.layers[0]
    shown = group.runs if group.folded else (group.first,)
    last = shown[-1].layers[-1]
    used = dict.fromkeys(kinds[made.island.program].number for run in shown for made in run.layers[0].tensors)
    members = [
        {
            "name": made.name,
            "kind": kinds[made.island.program].number,
            "program": programs[made.island.program],
            "shape": list(made.island.spec.shape),
            "models": [marks[leaf.model] for leaf in made.island.leaves],
        }
        for made in (() if group.folded else first.tensors)
    ]
    return {
        "id": group.number,
        "title": part.title,
        "stack": first.stack,
        "first_layer": first.number if first.stack is not None else None,
        "last_layer": last.number if first.stack is not None else None,
        "tensors": part.tensors,
        "bytes": part.size_bytes,
        "kinds": list(used),
        "times": group.times,
        "shift": group.shift,
        "from": _from(group, marks),
        "parent": group.parent,
        "members": members,
    }


def _from(group: Group, marks: Mapping[str, str]) -> list[dict[str, object]]:
    """The models that a group is made from, with their layers as text and as ranges, in the order of the models."""
    ranges = group.ranges()
    texts = {model: _range_text(each) for model, each in ranges.items()} if group.folded else group.first.given
    return [
        {"model": mark, "layers": texts[model], "ranges": [list(each) for each in ranges[model]]}
        for model, mark in marks.items()
        if model in ranges
    ]


def _range_text(ranges: Sequence[tuple[int, int]]) -> str:
    return ", ".join(
        f"{format_count(low)}–{format_count(high)}" if low != high else format_count(low) for low, high in ranges
    )
