"""What a folder's plait-manifest.json says of the files beside it; it may be edited, damaged or of an old version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.errors import InputError
from .input_files import read_json
from .json_fields import get, mappings, perhaps, texts
from .run_record import read_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .run_record import RunRecord

MANIFEST_FILE = "plait-manifest.json"

MANIFEST_LIMIT_BYTES = 100_000_000


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
    """An input of the run; what was not recorded is None. ``nonfinite`` tensors were let through as they are."""

    reference: str
    revision: str | None
    size_bytes: int | None
    files: tuple[RecordedFile, ...]
    tensors: int | None
    unused: tuple[UnusedTensors, ...] | None
    rows: tuple[UsedRows, ...]
    nonfinite: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished folder is made of, and of what. ``beside`` are the files beside the shards."""

    version: str
    shards: tuple[RecordedFile, ...]
    beside: tuple[RecordedFile, ...]
    inputs: tuple[RecordedInput, ...]
    run: RunRecord

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
        version=get(path, fields, "version", str),
        shards=shards,
        beside=_files(path, fields, "files") if "files" in fields else (),
        inputs=tuple(_input(path, each) for each in mappings(path, fields, "inputs")),
        run=read_run(path, fields),
    )


def _files(path: Path, fields: Mapping[str, object], key: str) -> tuple[RecordedFile, ...]:
    found = tuple(
        RecordedFile(
            get(path, each, "name", str),
            perhaps(path, each, "bytes", int),
            perhaps(path, each, "header_sha256", str),
            perhaps(path, each, "sha256", str),
        )
        for each in mappings(path, fields, key)
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
                get(path, each, "why", str),
                get(path, each, "tensors", int),
                tuple(str(name) for name in get(path, each, "names", list)),
            )
            for each in mappings(path, fields, "unused")
        )
    return RecordedInput(
        reference=get(path, fields, "reference", str),
        revision=perhaps(path, fields, "revision", str),
        size_bytes=perhaps(path, fields, "bytes", int),
        files=_files(path, fields, "files") if "files" in fields else (),
        tensors=perhaps(path, fields, "tensors", int),
        unused=unused,
        rows=tuple(
            UsedRows(get(path, each, "name", str), get(path, each, "used", int), get(path, each, "of", int))
            for each in (mappings(path, fields, "rows") if "rows" in fields else ())
        ),
        nonfinite=texts(path, fields, "nonfinite"),
    )
