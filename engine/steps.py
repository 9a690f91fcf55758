"""A pass bound to memory: each op with the views that its kernel gets, the same for all tiles of a size.

Binding costs as much as a few kernels do, so it is done once a tensor, and once more for its last tile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from .finite import looked_into
from .memory import PHASE_BYTES, moves

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .feed import OpenIsland
    from .graph import Node
    from .memory import Arena
    from .opdef import Tile
    from .schedule import Place

    Places: TypeAlias = Mapping[str, Place]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One op of a pass, with everything that is the same for all tiles of a tensor that have the same size.

    ``out`` is what the op makes (1-D): a value, a partial, or for a write the bytes that go out. ``moved`` has, for
    each name of a copied tensor, where the bytes have to be to go past the page cache. ``looked_into`` is what a load
    or a write looks into for NaN and infinity, None where it does not.
    """

    node: Node
    kernel: Callable[..., None] | None
    out: torch.Tensor
    ins: list[torch.Tensor]
    scratch: torch.Tensor
    attrs: dict[str, Any]
    moved: dict[str, torch.Tensor]
    looked_into: torch.Tensor | None


def bind(
    room: torch.Tensor,
    island: OpenIsland,
    tile: Tile,
    places: Places,
    *,
    careful: bool = False,
    on_device: Arena | None = None,
) -> list[Step]:
    """The steps of the pass that a tensor is in, with their views into a worker's ``room`` for a tile of this size.

    ``places`` are those of the output's tensors in their files. ``careful`` steps look into every load.
    ``on_device`` is the layout of a room there, and the kernels are those for devices.
    """
    current, arena = island.plan.passes[island.pass_index], on_device or island.plan.arenas[island.pass_index]
    memory = {
        (slot.node, slot.use): room[slot.offset_bytes : slot.offset_bytes + slot.size_bytes] for slot in arena.slots
    }
    nothing = room[:0]
    # Figures count what is not finite.
    computed = not (island.plan.program.is_copy or island.plan.program.measures)
    watched = frozenset(current.loads) if careful else looked_into(island.plan.passes, island.pass_index)
    values: dict[Node, torch.Tensor] = dict(island.results)
    steps: list[Step] = []
    for node in current.nodes:
        place, scratch = memory.get((node, "value"), nothing), memory.get((node, "scratch"), nothing)
        ins = [values[source] for source in node.inputs]
        attrs, moved, looked = island.attrs(node), {}, None
        dtype = node.spec.dtype
        size_bytes = tile.elements * dtype.itemsize
        offset_bytes = tile.lo * dtype.itemsize
        if node.op.name == "write":
            out = ins[0].view(torch.uint8)
            looked = ins[0] if computed else None
            if scratch.numel():
                starts = {name: places[name].offset_bytes + offset_bytes for name in island.outputs}
                moved = {name: _in_phase(scratch, at, size_bytes, dtype.itemsize) for name, at in starts.items()}
        elif node.slots:
            # The rows of a gather come from here and there: only where it goes can be told beforehand.
            into = places[island.outputs[0]] if node.op.name == "gather" else island.leaves[node.slots[0]]
            at = into.offset_bytes + offset_bytes if moves(node, current) else 0
            out = _in_phase(place, at, size_bytes, dtype.itemsize)
            values[node] = out.view(dtype)
            looked = values[node] if computed and node in watched else None
        elif node.op.reduction is not None:
            specs = [source.spec for source in node.inputs]
            spec = node.op.reduction.partial_spec(specs, tile.elements, current.block_elements)
            out = place[: spec.size_bytes].view(spec.dtype)
            attrs = {**attrs, "block_elements": current.block_elements}
        elif node.op.locality == "whole":
            out = island.results[node]
        elif moves(node, current):
            # Only the first name's place counts: under the others the bytes may go through the page cache.
            at = places[island.outputs[0]].offset_bytes + offset_bytes
            values[node] = out = _in_phase(place, at, size_bytes, dtype.itemsize).view(dtype)
        else:
            values[node] = out = place[:size_bytes].view(dtype)
        form = node.op.device_form if on_device is not None else None
        kernel = form.kernel if form is not None else node.op.kernel
        steps.append(Step(node, kernel, out, ins, scratch, attrs, moved, looked))
    return steps


def stage(room: torch.Tensor, staging: Arena, steps: Sequence[Step]) -> dict[int, Step]:
    """The loads and the write of ``steps`` on a device, by their number, with views into a ``room`` of the host.

    They lie there as far from a page boundary as on the device, where that is as far as in the file.
    """
    staged = {}
    slots = {slot.node: slot for slot in staging.slots}
    for number, step in enumerate(steps):
        if step.kernel is None:
            node = step.node.inputs[0] if step.node.op.name == "write" else step.node
            start = slots[node].offset_bytes + step.out.storage_offset() % PHASE_BYTES
            out = room[start : start + step.out.numel()]
            looked = out.view(node.spec.dtype) if step.looked_into is not None else None
            staged[number] = replace(step, out=out, looked_into=looked)
    return staged


def _in_phase(memory: torch.Tensor, file_offset_bytes: int, size_bytes: int, itemsize: int) -> torch.Tensor:
    """The part of a slot that lies as far from a page boundary as the bytes do in their file.

    A file whose tensors are not even aligned to their elements gets the start of the slot: kernels need that more.
    """
    phase_bytes = file_offset_bytes % PHASE_BYTES
    start = phase_bytes if phase_bytes % itemsize == 0 else 0
    return memory[start : start + size_bytes]


def page_aligned(size_bytes: int) -> torch.Tensor:
    """Memory of at least so many bytes that starts at a page boundary, 1-D uint8."""
    memory = torch.empty(size_bytes + PHASE_BYTES, dtype=torch.uint8)
    return memory[-memory.data_ptr() % PHASE_BYTES :]
