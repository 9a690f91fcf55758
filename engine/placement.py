"""Where a plan's passes run: on the host, or on devices with lanes for tiles.

On a device a worker has *lanes*: each is memory there for a tile, and on the host the places that the tile is read
into and comes back to. While one lane computes, the worker reads into the other. The lanes' host memory is the
worker's arena, which has no other use meanwhile, so that a device takes no memory of the host beside the plan's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .devices import Device
    from .graph import Program
    from .memory import Arena

LANES = 2
"""Tiles that a worker has under way on a device: one computes while the next is read and the last one is written."""

SMALLEST_TILE_ELEMENTS = 1 << 12


@dataclass(frozen=True, slots=True, eq=False)
class DevicePass:
    """A pass on a device: its tile there, the layout of the memory there, and of a lane's places on the host."""

    arena: Arena
    staging: Arena

    @property
    def tile_elements(self) -> int:
        """Elements of a full tile."""
        return self.arena.tile_elements


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a plan's passes run.

    ``devices`` are those that are used; ``passes`` has for each program what runs there, None for a pass that stays on
    the host; ``homes`` has for a tensor's position the index of its device, and nothing for one that stays. Of
    ``peaks_bytes`` the predicted peak of each device. ``busy_seconds`` has for a program how long each device computes
    for a tensor. ``reasons`` say in a line each why a device is used or not; ``seconds`` are an estimate for all
    tensors, ``host_seconds`` the same without any device.
    """

    devices: tuple[Device, ...] = ()
    passes: Mapping[Program, tuple[DevicePass | None, ...]] = field(default_factory=dict)
    homes: Mapping[int, int] = field(default_factory=dict)
    peaks_bytes: tuple[int, ...] = ()
    busy_seconds: Mapping[Program, Sequence[float]] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    host_seconds: float = 0.0

    @property
    def name(self) -> str:
        """The devices that compute, as an option names one."""
        return ", ".join(device.name for device in self.devices) or "cpu"

    def peaks(
        self, measured_bytes: Mapping[str, int] | None = None, *, processes: int = 1
    ) -> tuple[dict[str, object], ...]:
        """The predicted peak of each device, with what was measured by name once the run is over.

        So many ``processes`` each take that of the same devices.
        """
        found = []
        for device, peak_bytes in zip(self.devices, self.peaks_bytes, strict=True):
            facts: dict[str, object] = {"name": device.name, "predicted_peak_bytes": processes * peak_bytes}
            if measured_bytes is not None:
                facts["measured_peak_bytes"] = measured_bytes.get(device.name, 0)
            found.append(facts)
        return tuple(found)

    @property
    def shared_bytes(self) -> int:
        """What devices take of the host's own memory."""
        return sum(peak for device, peak in zip(self.devices, self.peaks_bytes, strict=True) if device.shared_with_host)

    def of(self, program: Program) -> tuple[DevicePass | None, ...]:
        """What of a program runs on devices, by pass; nothing where all stays on the host."""
        return self.passes.get(program, ())


ON_HOST = Placement()
"""Everything stays."""
