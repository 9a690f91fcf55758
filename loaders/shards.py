"""Shards as files: what one is, and what an interrupted run left of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..engine.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PARTIAL_SUFFIX = ".partial"

ShardState: TypeAlias = Literal["missing", "partial", "whole"]
"""What is there of a shard: nothing of use, a file to be filled, or all of it under its name."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One output file: its name, its header, and where each tensor's data starts (from the file's start)."""

    file_name: str
    header: bytes
    offsets_bytes: Mapping[str, int]
    size_bytes: int

    @property
    def data_bytes(self) -> int:
        """Bytes of the tensors."""
        return self.size_bytes - len(self.header)


def shard_state(shard: Shard, folder: Path) -> ShardState:
    """What an interrupted run left of a shard. Raises OutputError."""
    if _is_as_planned(shard, folder / shard.file_name):
        return "whole"
    return "partial" if _is_as_planned(shard, folder / (shard.file_name + PARTIAL_SUFFIX)) else "missing"


class LeftShards:
    """The shards of an interrupted run, before they are written to again; see engine.model.ReadBack."""

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self.states = {shard.file_name: shard_state(shard, folder) for shard in shards}
        self._places: dict[str, tuple[Path, int]] = {}
        self.missing: set[str] = set()
        for shard in shards:
            state = self.states[shard.file_name]
            if state == "missing":
                self.missing.update(shard.offsets_bytes)
            path = folder / (shard.file_name + ("" if state == "whole" else PARTIAL_SUFFIX))
            self._places.update((name, (path, offset)) for name, offset in shard.offsets_bytes.items())

    def read_back(self, name: str, offset_bytes: int, size_bytes: int) -> bytes:
        """See engine.model.ReadBack."""
        path, start_bytes = self._places[name]
        return read_bytes(path, start_bytes + offset_bytes, size_bytes)


def read_bytes(path: Path, offset_bytes: int, size_bytes: int) -> bytes:
    """Bytes of a file, fewer at its end. Raises OutputError."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset_bytes)
            return file.read(size_bytes)
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}") from error


def _is_as_planned(shard: Shard, path: Path) -> bool:
    """Whether a file has a shard's size and header. Raises OutputError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == shard.size_bytes and file.read(len(shard.header)) == shard.header
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}") from error
