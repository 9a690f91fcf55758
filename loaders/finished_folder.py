"""A finished folder as its files tell it: manifest, index and headers, each held against the others.

Unlike an input of a merge, a folder is gone through to its end: what is wrong is collected and not raised.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.errors import InputError
from ..engine.graph import TensorSpec
from ..engine.model import StoredFile, StoredTensor
from ..engine.units import format_bytes, format_count, format_names
from .checkpoint import model_of, read_config, read_index, weight_files
from .findings import Check, Findings, skipped
from .manifest_file import MANIFEST_FILE, REASONS, Manifest, read_manifest
from .safetensors_file import read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..engine.model import Model
    from .findings import Severity
    from .manifest_file import RecordedFile, RecordedInput
    from .safetensors_file import Header

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PARTS = 4
"""Inputs of whose vocabulary some rows were used that are named."""

_NO_WEIGHTS = re.compile(r"adapter_model\.safetensors|consolidated.*\.safetensors")
"""What may lie beside a model's files and is not one of them."""


@dataclass(frozen=True)
class FinishedFolder:
    """A folder and what could be read of it.

    ``sizes_bytes`` has the weight files that are there, ``headers`` those of them whose header could be read; ``model``
    is None where a file is missing or cannot be read. ``checks`` is what came of comparing them.
    """

    path: Path
    manifest: Manifest | None
    sizes_bytes: Mapping[str, int]
    headers: Mapping[str, Header]
    config: Mapping[str, object]
    model: Model | None
    checks: tuple[Check, ...]


def read_folder(path: Path) -> FinishedFolder:
    """Read manifest, index, headers and config of a folder. Raises InputError where there is no model to look at."""
    if not path.is_dir():
        what = "is a file; a finished model is a folder" if path.exists() else "does not exist"
        raise InputError(f"{path}: {what}")
    shard_findings = Findings()
    manifest, manifest_error = _manifest(path)
    present = {entry.name: entry.stat().st_size for entry in sorted(path.iterdir()) if entry.is_file()}
    expected, index = _expected(path, manifest, present, shard_findings)
    if not expected:
        raise InputError(f"{path}: holds no safetensors files, so there is nothing to verify")
    headers: dict[str, Header] = {}
    for name in expected:
        if name not in present:
            shard_findings.problem(name, "the file is missing")
            continue
        try:
            headers[name] = read_header(path / name)
        except InputError as error:
            shard_findings.problem(name, str(error).removeprefix(f"{path / name}: "))
    holders = _holders(headers, shard_findings)
    if index is not None:
        _compare_index(index, holders, headers, shard_findings)
    others = [name for name in present if name.endswith(".safetensors") and name not in expected]
    for name in others:
        if _NO_WEIGHTS.fullmatch(name) and manifest is None:
            continue
        severity: Severity = "warning" if manifest is None else "problem"
        shard_findings.add(severity, name, "is no file of this model: neither index nor manifest has it")
    try:
        config, config_error = read_config(path), None
    except InputError as error:
        config, config_error = {}, error
    whole = len(headers) == len(expected) and config_error is None
    size_bytes = sum(present.get(name, 0) for name in expected)
    files = "1 file" if len(expected) == 1 else f"{format_count(len(expected))} files"
    tensors = "1 tensor" if len(holders) == 1 else f"{format_count(len(holders))} tensors"
    checks = [
        _check_manifest(manifest, manifest_error, present, headers),
        shard_findings.check("shards", f"{files}, {tensors}, {format_bytes(size_bytes)}"),
        _check_inputs(manifest),
    ]
    if config_error is not None:
        broken = Findings()
        broken.problem("config.json", str(config_error).removeprefix(f"{path / 'config.json'}: "))
        checks.append(broken.check("config", "cannot be read"))
    return FinishedFolder(
        path=path,
        manifest=manifest,
        sizes_bytes={name: present[name] for name in expected if name in present},
        headers=headers,
        config=config,
        model=_model(path, headers, config) if whole and holders else None,
        checks=tuple(checks),
    )


def _manifest(path: Path) -> tuple[Manifest | None, InputError | None]:
    if not (path / MANIFEST_FILE).exists():
        return None, None
    try:
        return read_manifest(path / MANIFEST_FILE), None
    except InputError as error:
        return None, error


def _expected(
    path: Path, manifest: Manifest | None, present: Mapping[str, int], findings: Findings
) -> tuple[list[str], dict[str, str] | None]:
    """The files that make up the model, and the index: by the manifest, else the index, else by what is there."""
    index: dict[str, str] | None = None
    if _INDEX in present:
        try:
            index = read_index(path / _INDEX)
        except InputError as error:
            findings.problem(_INDEX, str(error).removeprefix(f"{path / _INDEX}: "))
    if manifest is not None:
        names = [shard.name for shard in manifest.shards]
        if len(names) > 1 and _INDEX not in present:
            findings.problem(_INDEX, "the file is missing, and without it the shards are not found")
        return names, index
    if _SINGLE in present:
        if index is not None:
            findings.warning(_SINGLE, f"is read instead of the files that {_INDEX} lists")
        return [_SINGLE], None
    if index is not None:
        return sorted(set(index.values())), index
    try:
        names, found, _ = weight_files(path)
    except InputError as error:
        names = sorted(name for name in present if name.endswith(".safetensors") and not _NO_WEIGHTS.fullmatch(name))
        found = {}
        if names:
            findings.problem(path.name, str(error).removeprefix(f"{path}: "))
    return names, found or None


def _holders(headers: Mapping[str, Header], findings: Findings) -> dict[str, str]:
    """Which file holds each tensor."""
    holders: dict[str, str] = {}
    for name, header in headers.items():
        for tensor in header.entries:
            if tensor in holders:
                findings.problem(tensor, f"is in {holders[tensor]} and in {name}")
            else:
                holders[tensor] = name
    return holders


def _compare_index(
    index: Mapping[str, str], holders: Mapping[str, str], headers: Mapping[str, Header], findings: Findings
) -> None:
    """Index against headers, both ways; tensors of a file that could not be read are not told of one by one."""
    for tensor, name in index.items():
        held = holders.get(tensor)
        if held is None and name in headers:
            findings.problem(tensor, f"the index lists it in {name}, and no file holds it")
        elif held is not None and held != name:
            findings.problem(tensor, f"the index lists it in {name}, and {held} holds it")
    for tensor, name in holders.items():
        if tensor not in index:
            findings.problem(tensor, f"{name} holds it, and the index does not list it")


def _check_manifest(
    manifest: Manifest | None, error: InputError | None, present: Mapping[str, int], headers: Mapping[str, Header]
) -> Check:
    findings = Findings()
    if error is not None:
        findings.problem(MANIFEST_FILE, str(error).partition(f"{MANIFEST_FILE}: ")[2] or str(error))
        return findings.check("manifest", "cannot be used")
    if manifest is None:
        return skipped("manifest", f"there is no {MANIFEST_FILE}: the folder is only checked against itself")
    by_header = {shard.header_sha256: shard.name for shard in manifest.shards}
    for shard in manifest.shards:
        if shard.name in present:
            _compare_shard(shard, present[shard.name], headers.get(shard.name), by_header, findings)
    for file in manifest.beside:
        if file.name not in present:
            findings.problem(file.name, "the run wrote it, and now it is missing")
        elif file.size_bytes is not None and present[file.name] != file.size_bytes:
            findings.warning(file.name, "was changed after the run: its size is another one")
    shards = "1 shard" if len(manifest.shards) == 1 else f"{format_count(len(manifest.shards))} shards"
    good = "" if findings else ", sizes and headers as written"
    return findings.check("manifest", f"of plait {manifest.version}: {shards}{good}")


def _compare_shard(
    shard: RecordedFile, size_bytes: int, header: Header | None, by_header: Mapping[str | None, str], findings: Findings
) -> None:
    if shard.size_bytes is not None and size_bytes != shard.size_bytes:
        findings.problem(shard.name, f"has {size_bytes} bytes, and was written with {shard.size_bytes}")
    if header is not None and shard.header_sha256 is not None and header.sha256 != shard.header_sha256:
        other = by_header.get(header.sha256)
        what = f"holds what was written as {other}" if other else "its header is not the one that was written"
        findings.problem(shard.name, what)


def _check_inputs(manifest: Manifest | None) -> Check:
    """Every tensor of the inputs used or explained, by what the run recorded."""
    if manifest is None or any(each.unused is None for each in manifest.inputs):
        return skipped("inputs", "nothing is recorded of what was used of them")
    findings = Findings()
    explained = 0
    for each in manifest.inputs:
        explained += _explained(each, findings)
    total = sum(each.tensors or 0 for each in manifest.inputs)
    inputs = "1 input" if len(manifest.inputs) == 1 else f"{format_count(len(manifest.inputs))} inputs"
    end = f"{format_count(explained)} of them unused, and explained" if explained else "all used"
    said = f"{inputs}, {format_count(total)} tensors, {end if not findings else 'not all used'}"
    parts: dict[tuple[str, int, int], list[str]] = {}
    for each in manifest.inputs:
        for part in each.rows:
            parts.setdefault((each.reference, part.used, part.of), []).append(part.name)
    partly = [
        f"{format_count(used)} of {format_count(of)} rows of {format_names(names)} of {reference}"
        for (reference, used, of), names in parts.items()
    ]
    if partly:
        said += "; of some only " + ", ".join(partly[:_PARTS]) + (" …" if len(partly) > _PARTS else "")
    return findings.check("inputs", said)


def _explained(each: RecordedInput, findings: Findings) -> int:
    """Count the unused tensors that have a reason; those without a place in the output are told of."""
    explained = 0
    for unused in each.unused or ():
        if unused.why in REASONS and unused.why != "no_place":
            explained += unused.count
        else:
            reason = REASONS.get(unused.why, "without a reason that this version knows")
            findings.warning(
                each.reference, f"{format_count(unused.count)} unused {reason}: {format_names(unused.names)}"
            )
    return explained


def _model(path: Path, headers: Mapping[str, Header], config: Mapping[str, object]) -> Model:
    """The folder as a model; of tensors that are there twice, the first."""
    tensors: dict[str, StoredTensor] = {}
    for name, header in headers.items():
        for tensor, entry in header.entries.items():
            spec = TensorSpec(entry.shape, entry.dtype)
            tensors.setdefault(tensor, StoredTensor(path.name, tensor, spec, str(path / name), entry.offset_bytes))
    files = (StoredFile(str(path / name), header.file_bytes, header.sha256) for name, header in headers.items())
    return model_of(path.name, path, list(tensors.values()), config, files)
