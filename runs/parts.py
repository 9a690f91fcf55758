"""A plan as the parts of several processes: who writes which shards, and what all of them take together."""

from __future__ import annotations

import socket
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..engine import host
from ..engine.shares import part_of, share_out

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from ..engine.plan import Plan
    from ..loaders.shards import Shard
    from .writing import Written

_OF_A_MACHINE = ("predicted_peak_bytes", "measured_peak_bytes", "reserved_bytes")


@dataclass(frozen=True)
class Parts:
    """The parts of a plan for so many ``processes``, ``together`` of them on each machine.

    Figures of memory are those that ``--memory`` bounds: sums over the processes of a machine, the fullest where there
    are several. Every process is taken to be alike.
    """

    plan: Plan
    shards: tuple[Shard, ...]
    processes: int
    together: int

    @cached_property
    def shares(self) -> tuple[tuple[int, ...], ...]:
        """For each process that has something to do, the numbers of the shards that it writes."""
        if self.processes == 1:
            return (tuple(range(len(self.shards))),)
        return tuple(filter(None, share_out(self.plan, len(self.shards), self.processes)))

    @cached_property
    def plans(self) -> tuple[Plan, ...]:
        """The plan of each of these processes."""
        return tuple(map(self.of, self.shares))

    def of(self, shards: Collection[int]) -> Plan:
        """The plan of a process that writes these shards."""
        if len(shards) == len(self.shards):
            return self.plan
        return part_of(self.plan, shards, sum(len(self.shards[number].header) for number in shards))

    @property
    def here(self) -> int:
        """How many processes the fullest machine has."""
        return min(self.together, len(self.shares))

    @property
    def machines(self) -> int:
        """How many machines have something to do."""
        return -(-len(self.shares) // self.together)

    @property
    def words(self) -> str:
        """How many processes on how many machines; nothing for one."""
        where = f" on {self.machines} machines" if self.machines > 1 else ""
        return f"{len(self.shares)} processes{where}" if len(self.shares) > 1 else ""

    @property
    def of_each(self) -> str:
        """What is to be said of memory where there are several machines."""
        return " on each machine" if self.machines > 1 else ""

    @cached_property
    def bytes_read(self) -> int:
        """Bytes that a run reads from tensors; processes that write the same tensor read for it each."""
        return sum(part.bytes_read for part in self.plans)

    @property
    def workers(self) -> int:
        """Workers of a machine."""
        return self.here * self.plan.workers

    @property
    def predicted_peak_bytes(self) -> int:
        """Peak resident memory."""
        return self.here * self.plan.predicted_peak_bytes

    @property
    def minimum_bytes(self) -> int:
        """The least bound on memory that works."""
        return self.here * self.plan.minimum_bytes

    @property
    def reserved_bytes(self) -> int:
        """What processes hold before the first tensor is read."""
        return self.here * self.plan.reserved_bytes

    @property
    def budget_bytes(self) -> int:
        """The bound on memory."""
        return self.here * self.plan.budget_bytes

    def planned(self) -> list[dict[str, Any]]:
        """What each process is to do and to take; nothing where there is only one."""
        several = len(self.shares) > 1
        return [
            self._facts(number, bytes_read=part.bytes_read, bytes_written=part.bytes_written)
            for number, part in enumerate(self.plans if several else ())
        ]

    def facts(self, number: int, written: Written) -> dict[str, Any]:
        """What this process, which has this number, did and took for its part of a run."""
        done, placement = written.progress, self.plan.placement
        return self._facts(number, bytes_read=done.bytes_read, bytes_written=written.bytes_written) | {
            "host": socket.gethostname(),
            "measured_peak_bytes": host.peak_resident_bytes(),
            "devices": list(placement.peaks(written.device_peaks_bytes)),
            "notes": list(written.notes),
            "seconds": round(done.seconds, 3),
        }

    def _facts(self, number: int, *, bytes_read: int, bytes_written: int) -> dict[str, Any]:
        return {
            "process": number,
            "machine": number // self.together,
            "shards": [self.shards[shard].file_name for shard in self.shares[number]],
            "bytes_read": bytes_read,
            "bytes_written": bytes_written,
            "workers": self.plan.workers,
            "predicted_peak_bytes": self.plan.predicted_peak_bytes,
            "reserved_bytes": self.plan.reserved_bytes,
        }


def of_a_machine(processes: Sequence[Mapping[str, Any]]) -> Mapping[str, int]:
    """Memory of processes from the facts of each, added up by machine; the most of any machine."""
    return {
        name: max(_added_up((process["machine"], process[name]) for process in processes).values())
        for name in _OF_A_MACHINE
    }


def devices_of(processes: Sequence[Mapping[str, Any]]) -> tuple[dict[str, object], ...]:
    """The devices of all processes from the facts of each; one that several of a machine have is added up."""
    used = [(process["machine"], each) for process in processes for each in process["devices"]]
    keys = dict.fromkeys((machine, each["name"]) for machine, each in used)
    peaks = {
        name: _added_up(((machine, each["name"]), each[name]) for machine, each in used)
        for name in ("predicted_peak_bytes", "measured_peak_bytes")
    }
    return tuple(
        {"name": key[1]}
        | ({"machine": key[0]} if len(processes) > 1 else {})
        | {name: found[key] for name, found in peaks.items()}
        for key in keys
    )


def notes_of(processes: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the processes have to say of their devices, each with its number where there are several."""
    several = len(processes) > 1
    return [
        f"process {process['process']}: {note}" if several else str(note)
        for process in processes
        for note in process["notes"]
    ]


def _added_up(values: Iterable[tuple[Any, int]]) -> Mapping[Any, int]:
    sums: dict[Any, int] = defaultdict(int)
    for key, value in values:
        sums[key] += value
    return sums
