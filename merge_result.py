"""What a finished run did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .verification import VerifyReport


@dataclass(frozen=True)
class MergeResult:
    """What a finished run did; the fields of ``plait run --json``. ``verification`` is there where it was asked for.

    Where there were several processes, figures of memory and workers are sums, and ``processes`` has those of each.
    """

    output: str
    recipe_sha256: str
    seed: int
    device: str
    workers: int
    tensors: int
    bytes_read: int
    bytes_written: int
    passes: int
    predicted_peak_bytes: int
    measured_peak_bytes: int
    reserved_bytes: int
    seconds: float
    resumed: bool
    shards: tuple[dict[str, object], ...]
    warnings: tuple[str, ...]
    processes: tuple[Mapping[str, Any], ...] = ()
    verification: VerifyReport | None = None
