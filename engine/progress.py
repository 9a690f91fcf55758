"""How far a run is, as it tells those who watch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    tensors by how they are made. ``resident_bytes`` is the memory of the process, 0 where nobody looked, and
    ``device_bytes`` what it has allocated on accelerators.
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
    device_bytes: int = 0

    @property
    def share(self) -> float:
        """Part of all bytes that is done, 0 to 1."""
        # A wrong guess means reading a tensor once more than planned.
        return min((self.bytes_read + self.bytes_written) / self.bytes_total, 1.0) if self.bytes_total else 1.0


def together(parts: Sequence[Progress], seconds: float | None = None) -> Progress:
    """How far several processes are as one; ``seconds`` since the start, else those of the first.

    The whole is done when the last process is.
    """
    first = parts[0]
    known = [part.seconds_left for part in parts if part.seconds_left is not None]
    titles: dict[str, Part] = {}
    for title, done, total in (each for part in parts for each in part.parts):
        before = titles.get(title, Part(title, 0, 0))
        titles[title] = Part(title, before.done + done, before.total + total)
    weights = [part.work_share * part.bytes_total for part in parts if part.work_share is not None]
    total_bytes = sum(part.bytes_total for part in parts)
    return replace(
        first,
        bytes_read=sum(part.bytes_read for part in parts),
        bytes_written=sum(part.bytes_written for part in parts),
        bytes_total=total_bytes,
        tensors_done=sum(part.tensors_done for part in parts),
        tensors_total=sum(part.tensors_total for part in parts),
        seconds=first.seconds if seconds is None else seconds,
        work_share=sum(weights) / total_bytes if len(weights) == len(parts) and total_bytes else None,
        seconds_left=max(known) if len(known) == len(parts) else None,
        workers=sum(part.workers for part in parts),
        busy_seconds=sum(part.busy_seconds for part in parts),
        parts=tuple(titles[title] for title in sorted(titles)),
        resident_bytes=sum(part.resident_bytes for part in parts),
        device_bytes=sum(part.device_bytes for part in parts),
    )


Callback: TypeAlias = Callable[[Progress], None]
