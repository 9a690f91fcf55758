"""Kinds of op graphs: programs that differ only in shape and in numbers, as a gradient's do, are one kind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..engine.graph import Island, Node, Program

_OF_THE_TENSOR = ("shape", "count")
"""What follows from a tensor's size; ``count`` is the share of its elements that a rank is asked for."""

_PLUMBING = ("load", "cast", "write")


@dataclass(frozen=True, eq=False)
class Kind:
    """Programs that do the same. ``number`` is what a page calls it by; ``islands`` are the tensors it makes."""

    number: int
    islands: tuple[Island, ...]
    programs: tuple[Program, ...]

    @cached_property
    def largest(self) -> Island:
        """The tensor that stands for the kind."""
        return max(self.islands, key=lambda island: island.spec.size_bytes)

    @property
    def tensors(self) -> int:
        """How many output tensors it makes."""
        return sum(len(island.outputs) for island in self.islands)

    @property
    def size_bytes(self) -> int:
        """Bytes that it writes."""
        return sum(island.spec.size_bytes * len(island.outputs) for island in self.islands)

    @property
    def steps(self) -> str:
        """What is done, in a line."""
        program = self.largest.program
        if program.is_copy:
            return "copied unchanged"
        names = dict.fromkeys(node.op.name for node in program.nodes if node.op.name not in _PLUMBING)
        return " → ".join(names) or f"cast to {str(program.spec.dtype).removeprefix('torch.')}"

    def values(self, node_index: int, attr_name: str) -> tuple[object, ...]:
        """An attribute's different values over the kind, for the node at an index of each program."""
        return tuple(dict.fromkeys(program.nodes[node_index].attr(attr_name) for program in self.programs))


def kinds_of(islands: Iterable[Island]) -> tuple[Kind, ...]:
    """Sort tensors into kinds; the kind that writes most comes first."""
    keys: dict[Program, object] = {}
    groups: dict[object, list[Island]] = {}
    for island in islands:
        if island.program not in keys:
            keys[island.program] = _key(island.program)
        groups.setdefault(keys[island.program], []).append(island)
    found = [Kind(0, tuple(group), tuple(dict.fromkeys(each.program for each in group))) for group in groups.values()]
    found.sort(key=lambda kind: -kind.size_bytes)
    return tuple(Kind(number, kind.islands, kind.programs) for number, kind in enumerate(found, 1))


def kind_by_program(kinds: Iterable[Kind]) -> Mapping[Program, Kind]:
    """Which kind a program is of."""
    return {program: kind for kind in kinds for program in kind.programs}


def _key(program: Program) -> object:
    position = {node: index for index, node in enumerate(program.nodes)}
    return tuple(
        (
            node.op.name,
            tuple(position[source] for source in node.inputs),
            _fixed(node),
            node.spec.dtype,
            node.spec.space,
        )
        for node in program.nodes
    )


def _fixed(node: Node) -> tuple[object, ...]:
    """What of a node's attributes makes a kind: all but sizes and the numbers of a gradient."""
    return tuple(
        (name, _pattern(value)) if isinstance(value, (float, tuple)) else (name, type(value), value)
        for name, value in node.attrs
        if name not in _OF_THE_TENSOR
    )


def _pattern(value: object) -> object:
    return tuple(map(_pattern, value)) if isinstance(value, tuple) else type(value)
