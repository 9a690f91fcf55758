"""Verify a finished folder: against its manifest, against itself, and value by value.

>>> report = plait.verify("out/", hash=True)
>>> report.ok, [str(finding) for check in report.checks for finding in check.findings]
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine import host
from ..engine.errors import InputError, UsageError
from ..engine.units import MIB, format_bytes, format_count
from ..loaders.config_checks import check_config, tied_head
from ..loaders.findings import Check, Findings, skipped
from ..loaders.finished_folder import FinishedFolder, read_folder
from ..loaders.folder import JOURNAL_FILE
from ..loaders.lock import refuse_if_locked
from ..loaders.shards import PARTIAL_SUFFIX
from ..loaders.tokenizer_checks import check_tokenizer
from ..runs.manifest import record_digests
from .scanning import WORKER_BYTES, Scan, Values, same_bytes, scan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine.progress import Callback
    from ..loaders.folder import OutputFolder
    from ..loaders.safetensors_file import HeaderEntry
    from ..merge import MergeResult

TENSOR_BYTES = 2048
"""What is held of one tensor, about: its header's entry, its part in the model, what was found of its values."""

BESIDE_BYTES = 10 * MIB
"""What is held while files beside the weights are read: a piece of a tokenizer as it is parsed, code that runs."""

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found.

    ``ok`` is whether there is no problem; warnings are none. ``shards`` has the name, the bytes and, where contents
    were read for it, the sha256 of every weight file.
    """

    folder: str
    ok: bool
    has_manifest: bool
    tensors: int
    bytes_read: int
    seconds: float
    checks: tuple[Check, ...]
    shards: tuple[dict[str, object], ...]

    @property
    def problems(self) -> int:
        """How many problems there are."""
        return sum(check.problems for check in self.checks)

    @property
    def warnings(self) -> int:
        """How many warnings there are."""
        return sum(check.warnings for check in self.checks)


def verify(folder: str | Path, hash: bool = False, *, progress: Callback | None = None) -> VerifyReport:  # noqa: A002
    """Check a finished folder; with ``hash`` the sha256 of its shards, too.

    What is wrong is in the report. Raises InputError where there is nothing to check: no folder, no model in it, an
    interrupted run, or one that is still at work there.
    """
    path = Path(folder)
    refuse_unfinished(path, "verify")
    return examine(path, digests=hash, progress=progress)


def needed_bytes(tensors: int) -> int:
    """Memory that a verification takes at least: it needs no more where there is no room for more threads."""
    return tensors * TENSOR_BYTES + BESIDE_BYTES + WORKER_BYTES


def examine(
    path: Path, *, digests: bool, room_bytes: int | None = None, progress: Callback | None = None
) -> VerifyReport:
    """Check a folder whoever is at work in it, in ``room_bytes`` of memory. Raises InputError where there is no model.

    Below what is needed it takes what is needed.
    """
    started = time.perf_counter()
    folder = read_folder(path)
    checks = list(folder.checks)
    if all(check.name != "config" for check in checks):
        checks.append(check_config(folder.model))
    rows = folder.model.vocabulary_rows if folder.model is not None else None
    if folder.model is None:
        checks.append(skipped("tokenizer", "not checked: a file of the model is missing or cannot be read"))
    else:
        checks.append(check_tokenizer(path, folder.config, rows))
    tensors = sum(len(header.entries) for header in folder.headers.values())
    found = scan(
        {str(path / name): (size, folder.headers.get(name)) for name, size in folder.sizes_bytes.items()},
        digests=digests,
        room_bytes=None if room_bytes is None else room_bytes - needed_bytes(tensors) + WORKER_BYTES,
        progress=progress,
    )
    checks += [_check_values(folder, found), _check_contents(folder, found, digests=digests)]
    return VerifyReport(
        folder=str(path),
        ok=not any(check.problems for check in checks),
        has_manifest=folder.manifest is not None,
        tensors=tensors,
        bytes_read=found.bytes_read,
        seconds=round(time.perf_counter() - started, 3),
        checks=tuple(checks),
        shards=tuple(
            {"name": name, "bytes": size, "sha256": found.sha256.get(str(path / name))}
            for name, size in folder.sizes_bytes.items()
        ),
    )


def verified(folder: OutputFolder, result: MergeResult, progress: Callback | None) -> MergeResult:
    """The result of a run that ended just now, with a report on what it wrote; digests of a good one are recorded.

    It stays within the peak that the run was planned with.
    """
    room_bytes = result.predicted_peak_bytes - host.resident_bytes()
    try:
        report = examine(folder.path, digests=True, room_bytes=room_bytes, progress=progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the model is complete; verify it with: plait verify {folder.out}") from None
    if report.ok:
        record_digests(folder, {str(shard["name"]): str(shard["sha256"]) for shard in report.shards})
    said = f"sha256 of {_files(len(report.shards))} {'recorded' if report.ok else 'not recorded'}"
    contents = Check("contents", said, skipped=not report.ok)
    checks = tuple(contents if check.name == "contents" else check for check in report.checks)
    return replace(result, verification=replace(report, checks=checks), measured_peak_bytes=host.peak_resident_bytes())


def refuse_unfinished(path: Path, what: str) -> None:
    """InputError if a run is at work in a folder, or was interrupted in it; ``what`` was to be done with it."""
    try:
        refuse_if_locked(path)
    except UsageError as error:
        raise InputError(str(error)) from None
    if (path / JOURNAL_FILE).exists():
        raise InputError(
            f"{path}: holds an interrupted run, so there is nothing to {what} yet; "
            f"go on with: plait run RECIPE {path} --resume ({path / 'plait.yml'} is a copy of the recipe)"
        )
    partial = sorted(path.glob(f"*{PARTIAL_SUFFIX}"))
    if partial:
        raise InputError(
            f"{partial[0]}: a shard that was not finished, and no journal to go on with; "
            f"begin anew with: plait run RECIPE {path} --overwrite"
        )


def _check_values(folder: FinishedFolder, found: Scan) -> Check:
    """NaN and infinity, and tensors that are all the same where others of their kind are not."""
    findings = Findings()
    entries = {name: entry for header in folder.headers.values() for name, entry in header.entries.items()}
    let_through = folder.manifest is not None and folder.manifest.lets_nonfinite_through
    for name, error in found.errors.items():
        findings.problem(Path(name).name, error)
    for name, entry in entries.items():
        values = found.values.get(name)
        if values is not None and values.nonfinite:
            more = f", {format_count(values.nonfinite)} NaN or infinite in all" if values.nonfinite > 1 else ""
            text = f"{list(entry.shape)} holds {values.what} at {_place(values.first, entry.shape)}{more}"
            if let_through:
                findings.warning(name, f"{text}; the run let NaN and infinity through")
            else:
                findings.problem(name, text)
    _warn_of_constant(entries, found.values, findings)
    model = folder.model
    tied = tied_head(model) if model is not None else None
    if tied is not None and not found.errors and not same_bytes(*tied):
        findings.problem(
            tied[1].name, f"differs from {tied[0].name}, and config.json ties them: whoever loads the model loses it"
        )
    size_bytes = sum(entry.size_bytes for entry in entries.values())
    said = f"{format_count(len(entries))} tensors, {format_bytes(size_bytes)}" + ("" if findings else ": all finite")
    return findings.check("values", said)


def _warn_of_constant(entries: Mapping[str, HeaderEntry], values: Mapping[str, Values], findings: Findings) -> None:
    """Tensors that are one value throughout, where others of the same kind (all numbers in names left out) are not."""
    kinds: dict[str, list[str]] = {}
    for name, entry in entries.items():
        if entry.dtype.is_floating_point and entry.size_bytes > entry.dtype.itemsize:
            kinds.setdefault(_NUMBER.sub("*", name), []).append(name)
    for names in kinds.values():
        constant = [name for name in names if name in values and values[name].constant is not None]
        zero_table = len(names) == 1 and constant and min(entries[names[0]].shape) > 1
        if not constant or (len(constant) == len(names) and not zero_table):
            continue
        others = "" if zero_table else ", and others of its kind are not"
        for name in constant:
            value = values[name].constant
            findings.warning(name, f"is all {'zeros' if value == 0 else value}{others}")


def _check_contents(folder: FinishedFolder, found: Scan, *, digests: bool) -> Check:
    recorded = {shard.name: shard.sha256 for shard in folder.manifest.shards} if folder.manifest is not None else {}
    known = [name for name, digest in recorded.items() if digest]
    if not digests:
        return skipped("contents", "not digested; --hash does" if known else "no digests are recorded")
    if not known:
        why = "run with --verify to have them" if folder.manifest is not None else "there is no manifest"
        return skipped("contents", f"digested, but none are recorded to compare with: {why}")
    findings = Findings()
    for name in known:
        digest = found.sha256.get(str(folder.path / name))
        if digest is not None and digest != recorded[name]:
            findings.problem(name, f"its contents changed since the run: sha256 {digest}, recorded {recorded[name]}")
    return findings.check("contents", f"sha256 of {_files(len(known))}" + ("" if findings else ": as recorded"))


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{format_count(count)} files"


def _place(element: int, shape: Sequence[int]) -> list[int]:
    """A flat index as one index a dimension."""
    place: list[int] = []
    for extent in reversed(shape):
        element, index = divmod(element, extent)
        place.insert(0, index)
    return place
