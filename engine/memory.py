"""The memory model: lifetimes of values in a pass → places in an arena → bytes.

A pass is a straight line of ops. Each value lives from the op that makes it to the last that reads it, so a
worker's arena is laid out once, before anything runs, and the peak is a sum and not a guess. `replay` walks
a pass from the graph alone and is what tests hold the layout against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from .units import align_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .graph import Node
    from .tiling import Pass

ALIGN_BYTES = 4096
"""Slots start at page boundaries: that is what reads and writes past the page cache ask for."""

PHASE_BYTES = ALIGN_BYTES
"""Spare room of a value that is read from or written to a file: it starts in its slot at the same distance from
a page boundary as in the file, so that whole pages of the file are whole pages of memory."""


class Slot(NamedTuple):
    """A place in the arena and its lifetime, in steps of the pass (both ends inclusive)."""

    node: Node
    use: Literal["value", "scratch"]
    offset_bytes: int
    size_bytes: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Arena:
    """The layout of one worker's arena for tiles of up to ``tile_elements`` of one pass."""

    tile_elements: int
    slots: tuple[Slot, ...]
    size_bytes: int


def value_bytes(node: Node, current: Pass, tile_elements: int) -> int:
    """Bytes that a node's result takes in the arena for one tile."""
    if node.op.reduction is not None:
        specs = [source.spec for source in node.inputs]
        return node.op.reduction.partial_spec(specs, tile_elements, current.block_elements).size_bytes
    if node.op.name == "write" or node.op.locality == "whole":
        return 0
    spare_bytes = PHASE_BYTES if moves(node, current) else 0
    return tile_elements * node.spec.dtype.itemsize + spare_bytes


def moves(node: Node, current: Pass) -> bool:
    """Whether a value comes from one place of a file or goes to one as it lies in memory."""
    return node.op.name == "load" or any(
        target.op.name == "write" and node in target.inputs for target in current.targets
    )


def scratch_bytes(node: Node, tile_elements: int, *, on_device: bool = False) -> int:
    """Bytes of working room that a node's kernel asks for.

    A write of what was loaded has room to move it: a file's bytes rarely lie at the same distance from a page
    boundary in the input and in the output.
    """
    if node.op.name == "write":
        (source,) = node.inputs
        return tile_elements * node.spec.dtype.itemsize + PHASE_BYTES if source.op.name == "load" else 0
    form = node.op.device_form if on_device else None
    return (form or node.op).scratch_bytes([source.spec for source in node.inputs], tile_elements)


def state_bytes(passes: Sequence[Pass]) -> tuple[int, ...]:
    """Bytes that each pass over a tensor keeps outside the arenas: its states, and what it needs of earlier ones."""
    held: dict[Node, int] = {}
    found: list[int] = []
    for index, current in enumerate(passes):
        later = {source for each in passes[index + 1 :] for source in each.taken}
        found.append(sum(held.values()) + _own_state_bytes(current))
        made = (*current.reductions, *current.wholes, *current.conclusions)
        held.update((node, align_up(node.spec.size_bytes, ALIGN_BYTES)) for node in made)
        held = {node: size_bytes for node, size_bytes in held.items() if node in later}
    return tuple(found)


def working_bytes(passes: Sequence[Pass]) -> int:
    """The most that a state op between a tensor's passes may take for a while: one at a time in each worker."""
    ops = (node for current in passes for node in current.conclusions)
    return max((scratch_bytes(node, node.spec.elements) for node in ops), default=0)


def _own_state_bytes(current: Pass) -> int:
    """Bytes that the reductions of a pass keep per tensor, between its tiles and after, and what follows from them."""
    total = sum(align_up(node.spec.size_bytes, ALIGN_BYTES) for node in current.wholes)
    for node in current.reductions:
        assert node.op.reduction is not None
        specs = [source.spec for source in node.inputs]
        state = node.op.reduction.state_spec(specs, current.spec.elements, current.block_elements)
        total += align_up(state.size_bytes, ALIGN_BYTES)
        if node.op.reduction.finish is not None:
            total += align_up(node.spec.size_bytes, ALIGN_BYTES)
    return total + sum(align_up(node.spec.size_bytes, ALIGN_BYTES) for node in current.conclusions)


def last_uses(current: Pass) -> dict[Node, int]:
    """The last step at which each value of a pass is read (its own step if never)."""
    uses = {node: step for step, node in enumerate(current.nodes)}
    for step, node in enumerate(current.nodes):
        for source in node.inputs:
            if source in uses:
                uses[source] = max(uses[source], step)
    return uses


def takes_over(node: Node, step: int, current: Pass, uses: dict[Node, int]) -> Node | None:
    """The input whose storage a node's result may take, because nothing reads the input after this step."""
    if moves(node, current):
        return None
    for position in node.op.inplace:
        source = node.inputs[position]
        if (
            uses.get(source) == step
            and source.spec.dtype == node.spec.dtype
            and source.op.reduction is None
            and not moves(source, current)
            and node.inputs.count(source) == 1
        ):
            return source
    return None


def lay_out(current: Pass, tile_elements: int, *, on_device: bool = False) -> Arena:
    """Place every value and scratch of a pass at the lowest offset that is free for its lifetime.

    To a device everything that is loaded comes at once, before the first kernel.
    """
    uses = last_uses(current)
    live: list[Slot] = []
    slots: list[Slot] = []
    placed: dict[Node, Slot] = {}

    def place(node: Node, use: Literal["value", "scratch"], size_bytes: int, first: int, last: int) -> None:
        size_bytes = align_up(size_bytes, ALIGN_BYTES)
        offset_bytes = 0
        for slot in sorted(live, key=lambda other: other.offset_bytes):
            if slot.offset_bytes - offset_bytes >= size_bytes:
                break
            offset_bytes = max(offset_bytes, slot.offset_bytes + slot.size_bytes)
        add(Slot(node, use, offset_bytes, size_bytes, first, last))

    def add(slot: Slot) -> None:
        live.append(slot)
        slots.append(slot)
        if slot.use == "value":
            placed[slot.node] = slot

    for load in current.loads if on_device else ():
        place(load, "value", value_bytes(load, current, tile_elements), 0, uses[load])
    for step, node in enumerate(current.nodes):
        live = [slot for slot in live if slot.last >= step]
        source = takes_over(node, step, current, uses)
        if node in placed:
            pass
        elif source is not None:
            taken = placed[source]
            live.remove(taken)
            add(Slot(node, "value", taken.offset_bytes, taken.size_bytes, step, uses[node]))
        elif node.op.name != "write":
            place(node, "value", value_bytes(node, current, tile_elements), step, uses[node])
        room_bytes = scratch_bytes(node, tile_elements, on_device=on_device)
        if room_bytes:
            place(node, "scratch", room_bytes, step, step)
    size_bytes = max((slot.offset_bytes + slot.size_bytes for slot in slots), default=0)
    return Arena(tile_elements, tuple(slots), size_bytes)


def lay_out_staging(current: Pass, tile_elements: int) -> Arena:
    """Places side by side on the host for what a tile on a device is loaded from, and for what comes back."""
    moved = dict.fromkeys((*current.loads, *(source for node in current.targets for source in node.inputs)))
    slots: list[Slot] = []
    offset_bytes = 0
    for node in moved:
        size_bytes = align_up(tile_elements * node.spec.dtype.itemsize + PHASE_BYTES, ALIGN_BYTES)
        slots.append(Slot(node, "value", offset_bytes, size_bytes, 0, len(current.nodes)))
        offset_bytes += size_bytes
    return Arena(tile_elements, tuple(slots), offset_bytes)


def replay(current: Pass, tile_elements: int) -> tuple[int, ...]:
    """Walk a pass and return the bytes alive at each step: a lower bound on any layout.

    Computed from the nodes alone, without slots, so that it can contradict `lay_out`.
    """
    uses = last_uses(current)
    alive: dict[Node, int] = {}
    timeline: list[int] = []
    for step, node in enumerate(current.nodes):
        source = takes_over(node, step, current, uses)
        if source is not None:
            alive.pop(source)
        alive[node] = value_bytes(node, current, tile_elements)
        timeline.append(sum(alive.values()) + scratch_bytes(node, tile_elements))
        alive = {value: size for value, size in alive.items() if uses[value] > step}
    return tuple(timeline)
