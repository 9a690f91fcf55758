"""The output folder: empty or refused, filled in place or beside the one it replaces, complete or not there."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import TYPE_CHECKING

from ..engine.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

_STAGING_SUFFIX = ".plait-new"
_REPLACED_SUFFIX = ".plait-old"

_DONATED = re.compile(
    r"generation_config\.json|tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab.*|merges\.txt|spiece\.model"
    r"|sentencepiece.*\.model|chat_template.*|.*preprocessor_config\.json|processor_config\.json|.*\.py"
)
"""Files that go from the donor to the output as they are: tokenizer, generation, processors, remote code."""

_MODEL_FILES = re.compile(
    r".*\.safetensors(\.index\.json)?(\.partial)?|config\.json|plait-manifest\.json|README\.md|plait\.yml|"
    + _DONATED.pattern
)
"""What a model folder is made of; anything else in a replaced folder is somebody's own and is kept."""


class OutputFolder:
    """The folder a run writes to, as a ``with`` block; ``path`` is where files go meanwhile.

    A new or empty folder is filled in place. With ``overwrite`` the result is built beside the old folder and
    takes its name when it is complete, so that at every moment one of the two is whole.
    """

    def __init__(self, out: Path, *, overwrite: bool, inputs: Iterable[Path]) -> None:
        _check_apart(out, inputs)
        # A link stays one: what is replaced is the folder it leads to.
        self.out = out = out.resolve() if out.is_symlink() else out
        occupied = _is_occupied(out)
        if occupied and not overwrite:
            raise UsageError(f"{out} is not empty; choose another folder, or replace it with --overwrite")
        self._replaces = occupied
        self.path = out.with_name(out.name + _STAGING_SUFFIX) if occupied else out

    def __enter__(self) -> OutputFolder:
        try:
            if self._replaces and self.path.exists():
                shutil.rmtree(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be made: {error.strerror or error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def write_text(self, name: str, text: str) -> None:
        """Write a file at once or not at all."""
        temporary = self.path / (name + ".tmp")
        try:
            # Half a character, in a config or in the name of a file, is written as JSON escapes it.
            with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path / name)
        except OSError as error:
            raise OutputError(f"{self.path / name} cannot be written: {error.strerror}") from error

    def write_json(self, name: str, value: Mapping[str, object]) -> None:
        """Write a JSON file at once or not at all."""
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def take_from(self, donor: Path) -> tuple[str, ...]:
        """Copy the donor's files that a merge leaves as they are; returns their names."""
        names = sorted(entry.name for entry in donor.iterdir() if entry.is_file() and _DONATED.fullmatch(entry.name))
        for name in names:
            try:
                shutil.copyfile(donor / name, self.path / name)
            except OSError as error:
                raise OutputError(f"{self.path / name} cannot be written: {error.strerror}") from error
        return tuple(names)

    def publish(self) -> None:
        """Give the folder its name, replacing the old one."""
        if not self._replaces:
            return
        old = self.out.with_name(self.out.name + _REPLACED_SUFFIX)
        try:
            for entry in self.out.iterdir():
                if not _MODEL_FILES.fullmatch(entry.name) and not (self.path / entry.name).exists():
                    entry.rename(self.path / entry.name)
            if old.exists():  # a replacement was interrupted while it cleared up
                shutil.rmtree(old)
            self.out.rename(old)
            self.path.rename(self.out)
            shutil.rmtree(old)
        except OSError as error:
            raise OutputError(
                f"{self.out} cannot be replaced: {error.strerror or error}; the result is in {self.path}"
            ) from error


def _is_occupied(out: Path) -> bool:
    try:
        return any(out.iterdir()) if out.exists() else False
    except NotADirectoryError:
        raise UsageError(f"{out} is a file; the output is a folder") from None
    except OSError as error:
        raise OutputError(f"{out} cannot be examined: {error.strerror}") from error


def _check_apart(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output that is an input, inside one, or around one."""
    try:
        resolved = out.resolve()
    except RuntimeError:
        raise UsageError(f"{out} is a link that leads to itself") from None
    for folder in inputs:
        other = folder.resolve()
        if resolved == other or other in resolved.parents or resolved in other.parents:
            raise UsageError(f"{out} overlaps with the input {folder}; inputs are never written to")


def free_disk_bytes(out: Path) -> int:
    """Free bytes where the output goes: on the file system of the nearest folder that exists."""
    folder = out.resolve()
    while not os.path.exists(folder):  # noqa: PTH110 - no, too, for a name that no file can have
        folder = folder.parent
    return shutil.disk_usage(folder).free
