"""What a manifest says of the run itself: what it moved, held and took; older versions say less of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.errors import InputError
from .json_fields import get, mappings, number, numbers, perhaps, texts, whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class RecordedSamples:
    """Moments of a run, as columns of one length: bytes so far, and the resident memory at that moment."""

    seconds: tuple[float, ...] = ()
    bytes_read: tuple[float, ...] = ()
    bytes_written: tuple[float, ...] = ()
    resident_bytes: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordedDevice:
    """A device that computed, ``machine`` counting from 0; None where there was only one."""

    name: str
    machine: int | None
    predicted_peak_bytes: int | None
    measured_peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class RecordedProcess:
    """One of several processes of a run: the seconds and the resident memory that its part took."""

    machine: int | None
    seconds: float | None
    measured_peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run did; None where that was not recorded. Bytes, seconds and samples are those of its last session."""

    seed: int | None
    recipe_sha256: str | None
    workers: int | None
    tensors: int | None
    passes: int | None
    bytes_read: int | None
    bytes_written: int | None
    predicted_peak_bytes: int | None
    measured_peak_bytes: int | None
    predicted_seconds: float | None
    seconds: float | None
    devices: tuple[RecordedDevice, ...]
    processes: tuple[RecordedProcess, ...]
    resumed: bool
    warnings: tuple[str, ...] | None
    overflows: Mapping[str, int]
    samples: RecordedSamples


def read_run(path: Path, fields: Mapping[str, object]) -> RunRecord:
    """What the manifest at ``path`` says of its run. Raises InputError where a field is of another kind."""
    overflows = perhaps(path, fields, "overflows", dict) or {}
    return RunRecord(
        seed=perhaps(path, fields, "seed", int),  # the only number that may be negative
        recipe_sha256=perhaps(path, fields, "recipe_sha256", str),
        workers=whole(path, fields, "workers"),
        tensors=whole(path, fields, "tensors"),
        passes=whole(path, fields, "passes"),
        bytes_read=whole(path, fields, "bytes_read"),
        bytes_written=whole(path, fields, "bytes_written"),
        predicted_peak_bytes=whole(path, fields, "predicted_peak_bytes"),
        measured_peak_bytes=whole(path, fields, "measured_peak_bytes"),
        predicted_seconds=number(path, fields, "predicted_seconds"),
        seconds=number(path, fields, "seconds"),
        devices=tuple(
            RecordedDevice(
                get(path, each, "name", str),
                whole(path, each, "machine"),
                whole(path, each, "predicted_peak_bytes"),
                whole(path, each, "measured_peak_bytes"),
            )
            for each in _listed(path, fields, "devices")
        ),
        processes=tuple(
            RecordedProcess(
                whole(path, each, "machine"), number(path, each, "seconds"), whole(path, each, "measured_peak_bytes")
            )
            for each in _listed(path, fields, "processes")
        ),
        resumed=fields.get("resumed") is True,
        warnings=texts(path, fields, "warnings") if "warnings" in fields else None,
        overflows={str(name): whole(path, overflows, name) or 0 for name in overflows},
        samples=_samples(path, perhaps(path, fields, "samples", dict) or {}),
    )


def _listed(path: Path, fields: Mapping[str, object], key: str) -> list[dict[str, object]]:
    return mappings(path, fields, key) if key in fields else []


def _samples(path: Path, fields: Mapping[str, object]) -> RecordedSamples:
    columns = [numbers(path, fields, key) for key in ("seconds", "bytes_read", "bytes_written", "resident_bytes")]
    if len({len(column) for column in columns}) > 1:
        raise InputError(f"{path}: the columns of 'samples' differ in length")
    return RecordedSamples(*columns)
