"""How far a run is, as it tells those who watch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class Part(NamedTuple):
    """Some of a run's tensors: how they are made (``copied``, ``1 pass``, ``2 passes``), and how many are done."""

    title: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Rates are the caller's to compute: bytes are monotonic, seconds since the stage's start.

    ``stage`` is one of ``stages``, the run's in their order: ``tensors``, ``finish`` (what is still on its way to the
    disk, the files beside the shards), ``verify``. ``work_share`` weighs what is done by the time it takes (a copy is
    quicker than a tensor that is read three times), and ``seconds_left`` is until the end of the last stage; both None
    where that is not known. ``busy_seconds`` sums up what the ``workers`` were at work. ``parts`` are the stage's
    tensors by how they are made. ``resident_bytes`` is the memory of the process, 0 where nobody looked.
    """

    bytes_read: int
    bytes_written: int
    bytes_total: int
    tensors_done: int
    tensors_total: int
    seconds: float
    stage: str = "tensors"
    stages: tuple[str, ...] = ("tensors",)
    work_share: float | None = None
    seconds_left: float | None = None
    workers: int = 0
    busy_seconds: float = 0.0
    parts: tuple[Part, ...] = ()
    resident_bytes: int = 0

    @property
    def share(self) -> float:
        """Part of all bytes that is done, 0 to 1."""
        # A wrong guess means reading a tensor once more than planned.
        return min((self.bytes_read + self.bytes_written) / self.bytes_total, 1.0) if self.bytes_total else 1.0


Callback: TypeAlias = Callable[[Progress], None]
