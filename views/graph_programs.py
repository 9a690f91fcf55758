"""Op graphs as plain values: the nodes of each program, the passes that walk them, and what a pass takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from ..engine.opdef import Tile
from ..engine.reading import read_elements
from ..engine.time_model import pass_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ..engine.graph import Node, Program
    from ..engine.plan import ProgramPlan
    from ..engine.tiling import Pass
    from ..merge import MergePlan
    from .kinds import Kind

_SAID_ELSEWHERE = ("shape", "slot", "slots", "dtype", "space")
"""Attributes that the node has a field for."""


def programs_of(merge: MergePlan, kinds: Mapping[Program, Kind], chosen: Iterable[Program]) -> list[dict[str, object]]:
    """The op graphs in the order given, each as it runs: in its leaner form where memory is short."""
    seconds, devices = pass_seconds(merge.plan, merge.rates), _devices(merge)
    return [
        {
            "id": number,
            "kind": kinds[program].number,
            "device": devices.get(program, "cpu"),
            **_program(merge.plan.programs[program], seconds[program]),
        }
        for number, program in enumerate(chosen)
    ]


def _devices(merge: MergePlan) -> Mapping[Program, str]:
    """What runs the programs that have passes on devices: these, and the processor where it keeps some."""
    placement, islands = merge.plan.placement, merge.plan.graph.islands
    homes: dict[Program, set[int]] = {}
    for position, home in placement.homes.items():
        homes.setdefault(islands[position].program, set()).add(home)
    return {
        program: ", ".join(
            [
                *(placement.devices[home].name for home in sorted(found)),
                *(["cpu"] if None in placement.of(program) else []),
            ]
        )
        for program, found in homes.items()
    }


def _program(planned: ProgramPlan, seconds: Sequence[float]) -> dict[str, object]:
    nodes = planned.program.nodes
    numbers = {node: number for number, node in enumerate(nodes)}
    return {
        "nodes": [_node(node, numbers) for node in nodes],
        "passes": list(_passes(planned, numbers, seconds)),
        "state_bytes": planned.state_bytes,
        "working_bytes": planned.working_bytes,
        "bytes_read": planned.bytes_read,
        "predicted_seconds": _rounded(sum(seconds)),
    }


def _rounded(seconds: float) -> float:
    """To a microsecond; more digits would only be longer."""
    return round(seconds, 6)


def _node(node: Node, numbers: Mapping[Node, int]) -> dict[str, object]:
    spec = node.spec
    moved_bytes: int | None = None
    if node.slots:
        moved_bytes = read_elements(node, Tile(0, spec.elements)) * spec.dtype.itemsize
    elif node.op.name == "write":
        moved_bytes = spec.size_bytes
    attrs = {name: plain(value) for name, value in node.attrs if name not in _SAID_ELSEWHERE}
    return {
        "id": numbers[node],
        "op": node.op.name,
        "inputs": [numbers[source] for source in node.inputs],
        "attrs": attrs,
        "shape": list(spec.shape),
        "dtype": dtype_name(spec.dtype),
        "space": spec.space,
        "locality": node.op.locality,
        "bytes": moved_bytes,
        "slots": list(node.slots),
    }


def _passes(planned: ProgramPlan, numbers: Mapping[Node, int], seconds: Sequence[float]) -> Iterator[dict[str, object]]:
    for index, (current, arena) in enumerate(zip(planned.passes, planned.arenas, strict=True)):
        yield {
            "nodes": [numbers[node] for node in _walked(current)],
            "granularity": current.granularity,
            "bytes_read": current.bytes_read,
            "tile_elements": min(planned.tile_elements(index), current.elements),
            "arena_bytes": arena.size_bytes,
            "sampled": current.sampled,
            "optional": current.optional,
            "predicted_seconds": _rounded(seconds[index]),
        }


def _walked(current: Pass) -> tuple[Node, ...]:
    """The nodes of a pass in the order in which they are worked out, and then what follows from its reductions."""
    return (*current.nodes, *current.conclusions)


def varying(kind: Kind) -> Iterator[dict[str, object]]:
    """The attributes whose numbers differ over a kind's programs, from the least to the largest; of lists, by place."""
    for index, node in enumerate(kind.largest.program.nodes):
        for name, _ in node.attrs:
            values = kind.values(index, name)
            if name not in _SAID_ELSEWHERE and len(values) > 1:
                yield {"node": index, "attr": name, "low": _extreme(min, values), "high": _extreme(max, values)}


def _extreme(pick: Callable[[Iterable[Any]], object], values: Sequence[object]) -> object:
    if isinstance(values[0], tuple):
        return [
            _extreme(pick, place) for place in zip(*(each for each in values if isinstance(each, tuple)), strict=True)
        ]
    return plain(pick(values))


def plain(value: object) -> object:
    """An attribute as a JSON value; what JSON has no word for, infinity too, becomes text."""
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (bool, int, float, str)) or value is None else repr(value)


def dtype_name(dtype: torch.dtype) -> str:
    """``bfloat16`` and the like."""
    return str(dtype).removeprefix("torch.")
