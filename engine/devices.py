"""The devices there are beside the processor: what each is called, what it has free, how fast it is.

A description is all that planning knows of a device. The rates are those of a usual machine and not measured: a plan
is the same whenever it is made, and what they decide is speed alone. Nothing here is imported or asked where the torch
at hand has no support for any device, so a machine without one pays nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from .errors import UsageError
from .units import GIB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Kind: TypeAlias = Literal["cuda", "mps", "xpu", "pretended"]

KINDS: tuple[Kind, ...] = ("cuda", "xpu", "mps")
"""The kinds that a machine may have; ``pretended`` is memory of the host that tests take for a device's."""

FREE_SHARE = 0.9
"""Of what is free on a device, the part that is planned with: other programs live there too."""

_LINK = {"cuda": 12e9, "xpu": 12e9, "mps": 40e9, "pretended": 12e9}
_KERNELS = {"cuda": 400e9, "xpu": 300e9, "mps": 100e9, "pretended": 400e9}


@dataclass(frozen=True, slots=True)
class Device:
    """One device.

    ``free_bytes`` can be had there now; where it is ``shared_with_host`` they are the host's, counted once.
    ``link_bytes_per_second`` go each way between its memory and the host's, ``kernel_bytes_per_second`` are read and
    written by kernels. ``float64``: whether it computes in float64.
    """

    name: str
    kind: Kind
    free_bytes: int
    shared_with_host: bool = False
    link_bytes_per_second: float = _LINK["cuda"]
    kernel_bytes_per_second: float = _KERNELS["cuda"]
    float64: bool = True

    def bounded(self, limit_bytes: int | None) -> Device:
        """The same with no more memory than a limit."""
        if limit_bytes is None:
            return self
        return replace(self, free_bytes=min(self.free_bytes, limit_bytes))

    def part(self, processes: int) -> Device:
        """What one of several processes has of it: as much of its memory and of its speed as any other."""
        return replace(
            self,
            free_bytes=self.free_bytes // processes,
            link_bytes_per_second=self.link_bytes_per_second / processes,
            kernel_bytes_per_second=self.kernel_bytes_per_second / processes,
        )


def pretended(
    name: str = "pretended:0", free_bytes: int = GIB, *, shared_with_host: bool = False, float64: bool = True
) -> Device:
    """A device that is not there: the executor takes the whole way to it and back, in the host's memory."""
    return Device(name, "pretended", free_bytes, shared_with_host, _LINK["pretended"], _KERNELS["pretended"], float64)


def kinds_there() -> tuple[Kind, ...]:
    """The kinds of devices this machine has. Cheap where it has none."""
    there: dict[Kind, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "xpu": _xpu_there,
        "mps": torch.backends.mps.is_available,
    }
    return tuple(kind for kind in KINDS if there[kind]())


def _xpu_there() -> bool:
    return hasattr(torch, "xpu") and torch.xpu.is_available()


def devices_there(processes: int = 1, limit_bytes: int | None = None) -> tuple[Device, ...]:
    """The devices of this machine that this process may use, with what accelerate says is free on them.

    ``processes`` are on this machine together: each has devices of its own where a launcher has numbered them, else
    its part of all. They take no more than the limit of a device's memory, together.
    """
    kinds = kinds_there()
    if not kinds:
        return ()
    # Imported here: it takes longer than planning does, and is of use only where there is a device.
    from accelerate import PartialState
    from accelerate.utils import get_max_memory

    memory = get_max_memory()
    described = (_described(kinds[0], key, int(memory[key])) for key in memory if key != "cpu")
    found = tuple(each.bounded(limit_bytes) for each in described)
    # Whoever was launched with others has met them before; alone nobody waits for any.
    state = PartialState()
    if state.num_processes > 1:
        together = processes if processes > 1 else launched_here(state.num_processes)
        return share_of(found, state.local_process_index, together)
    return tuple(each.part(processes) for each in found)


def launched_here(processes: int) -> int:
    """How many of the processes that a launcher started are on this machine: as it says, else all."""
    return max(int(os.environ.get("LOCAL_WORLD_SIZE") or processes), 1)


def _described(kind: Kind, key: int | str, free_bytes: int) -> Device:
    """A device as accelerate names it: a number, or ``mps``."""
    index = key if isinstance(key, int) else 0
    name = kind if kind == "mps" else f"{kind}:{index}"
    shared, float64 = kind == "mps", kind != "mps"
    if kind in ("cuda", "xpu"):
        properties = getattr(torch, kind).get_device_properties(index)
        shared = bool(getattr(properties, "is_integrated", False))
        float64 = bool(getattr(properties, "has_fp64", True))
    return Device(name, kind, int(free_bytes * FREE_SHARE), shared, _LINK[kind], _KERNELS[kind], float64)


def share_of(devices: Sequence[Device], process: int, processes: int) -> tuple[Device, ...]:
    """What one of several processes on this machine uses: devices of its own, or a part of one.

    ``process`` counts from 0. Where there are fewer devices than processes, some have one together, and each a part
    of its memory and of its speed.
    """
    if processes <= 1 or not devices:
        return tuple(devices)
    if processes <= len(devices):
        return tuple(devices[process::processes])
    mine = process % len(devices)
    together = len(range(mine, processes, len(devices)))
    return (devices[mine].part(together),)


def chosen(name: str, there: Sequence[Device]) -> tuple[Device, ...]:
    """The devices that an option names: ``auto`` all, ``cpu`` none, ``cuda`` all of a kind, ``cuda:1`` one.

    Raises UsageError where there is no such device.
    """
    if name == "cpu":
        return ()
    found = tuple(each for each in there if name in ("auto", each.kind, each.name))
    if not found and name != "auto":
        names = ", ".join(["cpu", *(each.name for each in there)])
        raise UsageError(f"--device {name}: there is no such device here; there is {names}")
    return found


def wanted(name: str | Device, limit_bytes: int | None = None, *, processes: int = 1) -> tuple[Device, ...]:
    """The devices that an option names, each bounded; a description stands for what this process has.

    ``processes`` of this machine want the same, and keep to the bound together. Raises UsageError where there is no
    such device.
    """
    if isinstance(name, Device):
        return (name.bounded(limit_bytes),)
    if name == "cpu":
        return ()
    return chosen(name, devices_there(processes, limit_bytes))
