"""What a finished run did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engine.profile import Profile
    from .verification import VerifyReport


@dataclass(frozen=True)
class MergeResult:
    """What a finished run did; the fields of ``plait run --json``.

    ``devices`` are those that computed, with their peaks. ``verification`` and ``profile`` are there where they were
    asked for.
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
    predicted_seconds: float
    seconds: float
    resumed: bool
    shards: tuple[dict[str, object], ...]
    warnings: tuple[str, ...]
    devices: tuple[dict[str, object], ...] = ()
    verification: VerifyReport | None = None
    profile: Profile | None = None
