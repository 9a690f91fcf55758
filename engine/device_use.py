"""The devices of one run: their backends, what each takes of the plan, and what there is to say of them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .backends import backend_of
from .device_check import agrees
from .device_worker import DeviceWorker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .backends import Backend
    from .execute import Run
    from .plan import Plan, ProgramPlan
    from .worker import Worker


class DevicesInUse:
    """The devices of one run, and what it has to say of them afterwards.

    ``notes`` are lines for people: what did not go as planned. ``backends`` may stand in for the devices' own.
    """

    def __init__(self, plan: Plan, backends: Mapping[str, Backend] | None = None) -> None:
        self.devices = plan.placement.devices
        self.backends = [(backends or {}).get(each.name) or backend_of(each) for each in self.devices]
        self.notes: list[str] = []
        self._lock = threading.Lock()
        self._workers = 0
        self._refused = [self._disagreeing(plan, index) for index in range(len(self.devices))]
        for backend in self.backends:
            backend.begin()

    def worker(self, run: Run) -> Worker:
        """A worker of the calling thread; see execute's ``timed``."""
        return DeviceWorker(run, self, self.next_home())

    def next_home(self) -> int:
        """The device of the next worker: each in turn."""
        with self._lock:
            self._workers += 1
            return (self._workers - 1) % len(self.devices)

    def note(self, line: str) -> None:
        """Keep a line, once."""
        with self._lock:
            if line not in self.notes:
                self.notes.append(line)

    def takes(self, home: int, plan: ProgramPlan, pass_index: int) -> bool:
        """Whether a pass that is placed on a device runs there."""
        return (id(plan), pass_index) not in self._refused[home]

    def measured_peaks_bytes(self) -> dict[str, int]:
        """The most memory that the run had on each device."""
        return {
            device.name: backend.measured_peak_bytes()
            for device, backend in zip(self.devices, self.backends, strict=True)
        }

    def _disagreeing(self, plan: Plan, index: int) -> set[tuple[int, int]]:
        """The passes that a device would round otherwise."""
        found: set[tuple[int, int]] = set()
        ops: set[str] = set()
        backend = self.backends[index]
        for each in plan.programs.values():
            for number, current in enumerate(each.passes):
                if each.on_device(number) is not None and not agrees(current, backend):
                    found.add((id(each), number))
                    ops.update(node.op.name for node in current.nodes if node.op.kernel is not None)
        if found:
            self.note(
                f"{self.devices[index].name}: passes of {', '.join(sorted(ops))} come out with other bytes there than "
                "here, and run on the processor"
            )
        return found
