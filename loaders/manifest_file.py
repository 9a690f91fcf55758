"""What a folder's plait-manifest.json says of the files beside it; it may be edited, damaged or of an old version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..engine.errors import InputError
from .input_files import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFEST_FILE = "plait-manifest.json"

MANIFEST_LIMIT_BYTES = 100_000_000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """A file of the folder as the run left it; what was not recorded is None. ``header_sha256`` is a shard's."""

    name: str
    size_bytes: int | None
    header_sha256: str | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class UnusedTensors:
    """Tensors of an input that the output was not made of: ``why`` is a key of REASONS, ``names`` may be folded."""

    why: str
    count: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UsedRows:
    """A tensor of an input of which some rows only are in the output."""

    name: str
    used: int
    of: int


@dataclass(frozen=True, slots=True)
class RecordedInput:
    """An input of the run: how many tensors it has, and which were not used; None where that was not recorded."""

    reference: str
    tensors: int | None
    unused: tuple[UnusedTensors, ...] | None
    rows: tuple[UsedRows, ...]
    nonfinite: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest, as far as a verification needs it. ``beside`` are the files beside the shards."""

    version: str
    shards: tuple[RecordedFile, ...]
    beside: tuple[RecordedFile, ...]
    inputs: tuple[RecordedInput, ...]

    @property
    def lets_nonfinite_through(self) -> bool:
        """Whether NaN or infinity came in from an input, by request."""
        return any(each.nonfinite for each in self.inputs)


REASONS: Mapping[str, str] = {
    "layer": "of layers that the recipe does not take",
    "weight": "that the recipe's numbers leave nothing of (a weight or a scale of 0)",
    "elsewhere": "that the recipe takes from another model",
    "lender": "of a model that only lends tokens and rows of its vocabulary",
    "no_place": "that nothing in the output corresponds to",
}
"""Why a tensor of an input may be unused."""


def read_manifest(path: Path) -> Manifest:
    """Read a manifest. Raises InputError if it is not what a run writes."""
    fields = read_json(path, MANIFEST_LIMIT_BYTES)
    shards = _files(path, fields, "shards")
    if not shards:
        raise InputError(f"{path}: lists no shards")
    return Manifest(
        version=_get(path, fields, "version", str),
        shards=shards,
        beside=_files(path, fields, "files") if "files" in fields else (),
        inputs=tuple(_input(path, each) for each in _mappings(path, fields, "inputs")),
    )


def _files(path: Path, fields: Mapping[str, object], key: str) -> tuple[RecordedFile, ...]:
    found = tuple(
        RecordedFile(
            _get(path, each, "name", str),
            _perhaps(path, each, "bytes", int),
            _perhaps(path, each, "header_sha256", str),
            _perhaps(path, each, "sha256", str),
        )
        for each in _mappings(path, fields, key)
    )
    for file in found:
        # A name leads nowhere but to the manifest's own folder.
        if Path(file.name).name != file.name or not file.name.isprintable():
            raise InputError(f"{path}: {file.name!r} in {key!r} is not the name of a file in this folder")
    return found


def _input(path: Path, fields: Mapping[str, object]) -> RecordedInput:
    unused = None
    if "unused" in fields:
        unused = tuple(
            UnusedTensors(
                _get(path, each, "why", str),
                _get(path, each, "tensors", int),
                tuple(str(name) for name in _get(path, each, "names", list)),
            )
            for each in _mappings(path, fields, "unused")
        )
    return RecordedInput(
        reference=_get(path, fields, "reference", str),
        tensors=_perhaps(path, fields, "tensors", int),
        unused=unused,
        rows=tuple(
            UsedRows(_get(path, each, "name", str), _get(path, each, "used", int), _get(path, each, "of", int))
            for each in (_mappings(path, fields, "rows") if "rows" in fields else ())
        ),
        nonfinite=bool(fields.get("nonfinite")),
    )


def _mappings(path: Path, fields: Mapping[str, object], key: str) -> list[dict[str, object]]:
    found = _get(path, fields, key, list)
    if not all(isinstance(each, dict) for each in found):
        raise InputError(f"{path}: {key!r} is not what a run writes there")
    return found


def _get(path: Path, fields: Mapping[str, object], key: str, kind: type[_T]) -> _T:
    value = fields.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{path}: {key!r} is {'not what a run writes there' if key in fields else 'missing'}")
    return value


def _perhaps(path: Path, fields: Mapping[str, object], key: str, kind: type[_T]) -> _T | None:
    return _get(path, fields, key, kind) if fields.get(key) is not None else None
