"""A plan as the parts of several processes: who writes which shards, and what all of them take together."""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..engine import host
from ..engine.shares import part_of, share_out

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ..engine.plan import Plan
    from ..loaders.shards import Shard

_ADDED_UP = ("workers", "predicted_peak_bytes", "measured_peak_bytes", "reserved_bytes")


@dataclass(frozen=True)
class Parts:
    """The parts of a plan for so many ``processes``. Figures of memory are sums: every process is taken to be alike."""

    plan: Plan
    shards: tuple[Shard, ...]
    processes: int

    @cached_property
    def shares(self) -> tuple[tuple[int, ...], ...]:
        """For each process that has something to do, the numbers of the shards that it writes."""
        if self.processes == 1:
            return (tuple(range(len(self.shards))),)
        return tuple(filter(None, share_out(self.plan, len(self.shards), self.processes)))

    def of(self, shards: Collection[int]) -> Plan:
        """The plan of a process that writes these shards."""
        if len(shards) == len(self.shards):
            return self.plan
        return part_of(self.plan, shards, sum(len(self.shards[number].header) for number in shards))

    @cached_property
    def bytes_read(self) -> int:
        """Bytes that a run reads from tensors; processes that write the same tensor read for it each."""
        return sum(self.of(shards).bytes_read for shards in self.shares)

    @property
    def predicted_peak_bytes(self) -> int:
        """Peak resident memory."""
        return len(self.shares) * self.plan.predicted_peak_bytes

    @property
    def minimum_bytes(self) -> int:
        """The least bound on memory that works."""
        return len(self.shares) * self.plan.minimum_bytes

    @property
    def reserved_bytes(self) -> int:
        """What processes hold before the first tensor is read."""
        return len(self.shares) * self.plan.reserved_bytes

    @property
    def budget_bytes(self) -> int:
        """The bound on memory."""
        return len(self.shares) * self.plan.budget_bytes

    def facts(self, number: int, *, bytes_read: int, bytes_written: int, seconds: float) -> dict[str, Any]:
        """What this process, which has this number, did and took for its part of a run."""
        return {
            "process": number,
            "host": socket.gethostname(),
            "shards": [self.shards[shard].file_name for shard in self.shares[number]],
            "bytes_read": bytes_read,
            "bytes_written": bytes_written,
            "workers": self.plan.workers,
            "predicted_peak_bytes": self.plan.predicted_peak_bytes,
            "measured_peak_bytes": host.peak_resident_bytes(),
            "reserved_bytes": self.plan.reserved_bytes,
            "seconds": round(seconds, 3),
        }


def added_up(processes: Sequence[Mapping[str, Any]]) -> Mapping[str, int]:
    """Memory and workers of all processes, from the facts of each."""
    return Counter({name: sum(process[name] for process in processes) for name in _ADDED_UP})
