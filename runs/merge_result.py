"""What a finished run did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..engine import host
from ..engine.units import format_names
from .parts import devices_of, notes_of, of_a_machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ..engine.profile import Profile
    from ..merge import MergePlan
    from ..reports.verification import VerifyReport


@dataclass(frozen=True)
class MergeResult:
    """What a finished run did; the fields of ``plait run --json``.

    ``devices`` are those that computed, with their peaks. ``verification`` and ``profile`` are there where they were
    asked for. Where there were several processes, ``workers`` are all of theirs, memory is added up over those of a
    machine, and is that of the machine that took most; ``processes`` has the figures of each.
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
    processes: tuple[Mapping[str, Any], ...] = ()
    verification: VerifyReport | None = None
    profile: Profile | None = None


def result_of(
    merge: MergePlan,
    out: Path,
    *,
    moved_bytes: tuple[int, int],
    seconds: float,
    resumed: bool,
    processes: Sequence[Mapping[str, Any]],
    nonfinite: Mapping[str, Sequence[str]],
    warnings: Sequence[str],
) -> MergeResult:
    """What a run did that ended now.

    ``moved_bytes`` were read and written; ``processes`` has the facts of each process; ``nonfinite`` has the
    tensors let through by model reference, ``warnings`` what the run has to say besides.
    """
    bytes_read, bytes_written = moved_bytes
    # Process 0 has more to do after its part is done.
    processes = [{**processes[0], "measured_peak_bytes": host.peak_resident_bytes()}, *processes[1:]]
    memory, devices = of_a_machine(processes), devices_of(processes)
    return MergeResult(
        output=str(out),
        recipe_sha256=merge.recipe_sha256,
        seed=merge.plan.seed,
        device=", ".join(dict.fromkeys(str(each["name"]) for each in devices)) or "cpu",
        workers=sum(process["workers"] for process in processes),
        tensors=merge.tensors,
        bytes_read=bytes_read,
        bytes_written=bytes_written,
        passes=merge.plan.passes,
        predicted_peak_bytes=memory["predicted_peak_bytes"],
        measured_peak_bytes=memory["measured_peak_bytes"],
        reserved_bytes=memory["reserved_bytes"],
        predicted_seconds=round(merge.predicted_seconds, 3),
        seconds=round(seconds, 3),
        resumed=resumed,
        shards=merge.shard_facts,
        warnings=(
            *merge.warnings,
            *warnings,
            *notes_of(processes),
            *(
                f"{reference}: NaN or infinity let through in {format_names(names)}"
                for reference, names in nonfinite.items()
            ),
        ),
        devices=devices,
        processes=tuple(processes) if len(processes) > 1 else (),
    )
