"""Which device each pass runs on: a pure function of the plan for the host and of descriptions of devices.

A pass goes where it ends first, with what has to be carried there and back; the tensors whose passes go to devices are
shared out among these by how long they take. Every selection of the devices that are there is tried, none among them,
and the best is taken, so one device more never makes a plan longer. On a tie the host keeps the work.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch

from .memory import lay_out, lay_out_staging
from .placement import LANES, SMALLEST_TILE_ELEMENTS, DevicePass, Placement
from .time_model import tensors_seconds
from .units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .devices import Device
    from .graph import Island, Node, Program
    from .plan import ProgramPlan
    from .tiling import Pass
    from .time_model import PassTime

FULL_TILE_ELEMENTS = 1 << 20
"""Larger tiles hide no more of what starting a kernel takes."""

LAUNCH_SECONDS = 1e-5
"""What it takes to start a kernel: small tensors are done sooner where they are."""


@dataclass(frozen=True, eq=False)
class Situation:
    """What placing starts from: the plan for the host, and how long its passes take there.

    ``room_bytes`` is a worker's arena; ``spare_bytes`` what the budget leaves for devices that share the host's memory.
    """

    programs: Mapping[Program, ProgramPlan]
    islands: Sequence[Island]
    sequence: Sequence[int]
    times: Mapping[Program, Sequence[PassTime]]
    workers: int
    room_bytes: int
    spare_bytes: int


def place(situation: Situation, devices: Sequence[Device], *, asked: bool = False) -> Placement:
    """The placement that ends first. Where devices were ``asked`` for, all that can run there does."""
    host = best = _Trial(situation, (), asked=False)
    for chosen in _selections(devices, situation.workers):
        trial = _Trial(situation, chosen, asked=asked)
        # One that leaves a device without work is another selection's, and better there: it has more memory a device.
        if trial.all_used and (trial.seconds < best.seconds or (asked and best is host)):
            best = trial
    reasons = tuple(_reason(device, best, host, situation) for device in devices)
    return best.placement(reasons, host.seconds)


def _selections(devices: Sequence[Device], workers: int) -> Iterator[tuple[Device, ...]]:
    """Every choice of at least one device; of devices that differ in their names alone, the first ones."""
    alike: dict[object, list[Device]] = {}
    for device in devices:
        facts = (device.kind, device.free_bytes, device.shared_with_host, device.float64)
        rates = (device.link_bytes_per_second, device.kernel_bytes_per_second)
        alike.setdefault((facts, rates), []).append(device)
    for counts in product(*(range(len(group) + 1) for group in alike.values())):
        # A device has workers of its own.
        if 0 < sum(counts) <= workers:
            taken = {each.name for group, count in zip(alike.values(), counts, strict=True) for each in group[:count]}
            yield tuple(device for device in devices if device.name in taken)


class _Trial:
    """One selection of devices: what would run there, and how long everything would take."""

    def __init__(self, situation: Situation, devices: tuple[Device, ...], *, asked: bool) -> None:
        self._situation, self.devices = situation, devices
        # Devices that share the host's memory have what the budget leaves, together.
        sharing = sum(device.shared_with_host for device in devices)
        spare_bytes = situation.spare_bytes // max(sharing, 1)
        self._limits = [
            min(device.free_bytes, spare_bytes) if device.shared_with_host else device.free_bytes for device in devices
        ]
        self.capable = False
        self.passes = {program: self._place(program, asked=asked) for program in situation.programs}
        self.busy_seconds = {program: self._busy_there(program) for program in self.passes}
        self.homes, self.seconds = self._share_out()

    @property
    def all_used(self) -> bool:
        """Whether every device has some of the work."""
        return len(set(self.homes.values())) == len(self.devices)

    def lanes(self, index: int) -> int:
        """How many tiles are on a device at once."""
        count, workers = len(self.devices), self._situation.workers
        return LANES * len(range(index, workers, count))

    def _place(self, program: Program, *, asked: bool) -> tuple[DevicePass | None, ...]:
        plan = self._situation.programs[program]
        found: list[DevicePass | None] = []
        for index, current in enumerate(plan.passes):
            fitting = self._fit(current) if self._runs_here(plan, current) else None
            if fitting is not None and not asked:
                host = self._situation.times[program][index]
                moving = host.moving(self._situation.workers)
                ends = max(moving, 1 / sum(1 / busy for busy in self._busy(current)))
                fitting = fitting if ends < host.spread(self._situation.workers) else None
            found.append(fitting)
        return tuple(found)

    def _runs_here(self, plan: ProgramPlan, current: Pass) -> bool:
        if not self.devices or plan.program.is_copy or not device_capable(current):
            return False
        self.capable = True
        return all(device.float64 for device in self.devices) or not _takes_float64(current)

    def _fit(self, current: Pass) -> DevicePass | None:
        """The pass with the largest tiles that the devices and a worker's arena have room for."""
        wanted_elements = FULL_TILE_ELEMENTS
        while wanted_elements >= SMALLEST_TILE_ELEMENTS:
            tile_elements = current.tile_elements(wanted_elements)
            staging = lay_out_staging(current, tile_elements)
            if LANES * staging.size_bytes <= self._situation.room_bytes:
                arena = lay_out(current, tile_elements, on_device=True)
                if all(self.lanes(index) * arena.size_bytes <= limit for index, limit in enumerate(self._limits)):
                    return DevicePass(arena, staging)
            wanted_elements = min(wanted_elements, tile_elements) // 2
        return None

    def _busy(self, current: Pass) -> list[float]:
        """Seconds that a pass over one tensor takes each device, its memory's way to the host among them."""
        outs = [source for node in current.targets for source in node.inputs]
        in_bytes = sum(node.spec.size_bytes for node in current.loads)
        out_bytes = sum(node.spec.size_bytes for node in outs)
        touched_bytes = touched(current) * current.elements
        starting = len(current.nodes) * LAUNCH_SECONDS * current.tile_count(FULL_TILE_ELEMENTS)
        return [
            max(
                max(in_bytes, out_bytes, 1) / device.link_bytes_per_second,
                touched_bytes / device.kernel_bytes_per_second,
                starting,
            )
            for device in self.devices
        ]

    def _busy_there(self, program: Program) -> list[float]:
        """Seconds that each device computes for a tensor of a program; none where it has no pass there."""
        currents = self._situation.programs[program].passes
        there = [current for current, placed in zip(currents, self.passes[program], strict=True) if placed is not None]
        return [sum(each) for each in zip(*map(self._busy, there), strict=True)]

    def _share_out(self) -> tuple[dict[int, int], float]:
        """The device of each tensor that has passes there, the next free one for each, and the seconds of it all."""
        situation = self._situation
        homes: dict[int, int] = {}
        loads = [0.0] * len(self.devices)
        for position in situation.sequence:
            busy_seconds = self.busy_seconds[situation.islands[position].program]
            if busy_seconds:
                ends = [load + more for load, more in zip(loads, busy_seconds, strict=True)]
                home = homes[position] = ends.index(min(ends))
                loads[home] = ends[home]
        counts = Counter(situation.islands[position].program for position in situation.sequence)
        seconds = tensors_seconds(
            situation.programs, situation.times, counts, situation.workers, placed=self.passes, device_seconds=loads
        )
        return homes, seconds

    def placement(self, reasons: tuple[str, ...], host_seconds: float) -> Placement:
        """What comes of it."""
        placed = [each for passes in self.passes.values() for each in passes if each is not None]
        arena_bytes = max((each.arena.size_bytes for each in placed), default=0)
        peaks = tuple(self.lanes(index) * arena_bytes for index in range(len(self.devices)))
        passes = self.passes if self.devices else {}
        return Placement(
            self.devices, passes, self.homes, peaks, self.busy_seconds, reasons, self.seconds, host_seconds
        )


def device_capable(current: Pass) -> bool:
    """Whether every op of a pass has a form for a device, and any of them computes."""
    kernels = [node.op for node in current.nodes if node.op.kernel is not None]
    return bool(kernels) and all(each.device_form is not None for each in kernels)


def _takes_float64(current: Pass) -> bool:
    return any(node.spec.dtype == torch.float64 for node in current.nodes)


def touched(current: Pass) -> float:
    """Bytes that the kernels of a pass read and write for an element, scratch among them."""
    sample = 1 << 12
    return sum(
        node.spec.dtype.itemsize
        + sum(source.spec.dtype.itemsize for source in node.inputs if not source.settled)
        + 2 * _scratch(node, sample) / sample
        for node in current.nodes
        if node.op.kernel is not None
    )


def _scratch(node: Node, elements: int) -> int:
    form = node.op.device_form
    return form.scratch_bytes([source.spec for source in node.inputs], elements) if form is not None else 0


def _reason(device: Device, best: _Trial, host: _Trial, situation: Situation) -> str:
    """Why a device is used, or is not."""
    times = f"{format_seconds(best.seconds)} instead of {format_seconds(host.seconds)} (estimates)"
    index = next((place for place, each in enumerate(best.devices) if each.name == device.name), None)
    if index is not None:
        tensors = sum(home == index for home in best.homes.values())
        return f"{device.name} computes {tensors} of {len(situation.islands)} tensors: {times}"
    alone = _Trial(situation, (device,), asked=True)
    if not alone.capable:
        why = "copies, ranks and sums over whole tensors are the processor's"
    elif not alone.homes:
        why = f"{format_bytes(device.free_bytes)} are too little for the smallest tiles"
        why += "" if device.float64 else ", or float64 is asked for, which it does not have"
    elif best is host:
        least = min(alone.seconds, _Trial(situation, (device,), asked=False).seconds)
        why = f"{format_seconds(least)} with it, {format_seconds(host.seconds)} without (estimates)"
    else:
        why = "the others end no later without it"
    return f"{device.name} is left out: {why}"
