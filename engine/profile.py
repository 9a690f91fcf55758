"""Where the time of a run went: what a table of it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ACTIVITIES = ("read", "check", "kernels", "write", "copy", "wait", "other")
"""What workers do: read, look for NaN and infinity, compute, write, have the kernel copy, wait for work, the rest."""


@dataclass(slots=True)
class OpTime:
    """What an op took: ``elements`` of its tiles, ``units`` of work as in `time_model.work_units`.

    ``copy`` is a tensor that passes unchanged, moved without the process; bytes are counted where there are some.
    """

    name: str
    calls: int = 0
    seconds: float = 0.0
    elements: int = 0
    units: float = 0.0
    bytes: int = 0

    def add(self, other: OpTime) -> None:
        """Take what another worker did."""
        self.calls += other.calls
        self.seconds += other.seconds
        self.elements += other.elements
        self.units += other.units
        self.bytes += other.bytes


@dataclass(frozen=True, slots=True)
class KindTime:
    """What the tensors of one kind took: their name without the number of the layer."""

    name: str
    tensors: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of a run went.

    ``stages`` are seconds of the run, by stage. The rest are seconds of all ``workers`` together, while they ran
    (``seconds`` of each): ``activities`` add up to that, ``ops`` are the kernels, reads, writes and copies among them,
    the costliest first, and ``kinds`` all but waiting by what tensor it was for. ``flush_seconds`` is the journal
    waiting for the disk, beside the workers. ``trace`` is the file that has it step by step, None without one.
    """

    seconds: float
    workers: int
    stages: Mapping[str, float]
    activities: Mapping[str, float]
    ops: tuple[OpTime, ...]
    kinds: tuple[KindTime, ...]
    flush_seconds: float = 0.0
    trace: str | None = None
