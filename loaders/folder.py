"""The output folder: empty or refused, filled in place or beside the one it replaces, complete or not there.

A run that was interrupted leaves its journal, and no index and no config. The journal goes when everything else is
in place, so that whatever has none is finished or was never begun.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.errors import InputError, OutputError, UsageError
from .durable import sync_folder
from .input_files import as_json, open_input
from .lock import LOCK_FILE, FolderLock, refuse_if_locked
from .roster import clear_roster

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

JOURNAL_FILE = "plait-journal"
TRACE_FILE = "plait-trace.json.gz"

_STAGING_SUFFIX = ".plait-new"
_REPLACED_SUFFIX = ".plait-old"

_DONATED = re.compile(
    r"generation_config\.json|tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab.*|merges\.txt|spiece\.model"
    r"|sentencepiece.*\.model|chat_template.*|.*preprocessor_config\.json|processor_config\.json|.*\.py"
)
"""Files that go from the donor to the output as they are: tokenizer, generation, processors, remote code."""

_MODEL_FILES = re.compile(
    r"(.*\.safetensors(\.index\.json)?(\.partial)?|config\.json|plait-manifest\.json|README\.md|plait\.yml|"
    r"plait-journal(-\d+)?|plait-process-\d+|plait-trace\.json\.gz|plait\.lock.*|additional_chat_templates|"
    + _DONATED.pattern
    + r")(\.tmp)?"
)
"""What a model folder is made of; anything else in a replaced folder is somebody's own and is kept."""


_AT_A_TIME = 1 << 16

_NOTHING_YET = re.compile(r"plait\.lock.*|plait-journal\.tmp|plait-process-.*")


class OutputFolder:
    """The folder a run writes to, as a ``with`` block; ``path`` is where files go meanwhile.

    A new or empty folder is filled in place. With ``overwrite`` the result is built beside the old folder and
    takes its name when it is complete, so that at every moment one of the two is whole. With ``resume`` an
    interrupted run goes on where there is one (then ``goes_on``), and begins where there is nothing.
    """

    def __init__(self, out: Path, *, overwrite: bool, inputs: Iterable[Path], resume: bool = False) -> None:
        _check_apart(out, inputs)
        occupied = _is_occupied(out)
        self.out = out = _with_a_name(out)
        self._staging = out.with_name(out.name + _STAGING_SUFFIX)
        interrupted = [folder for folder in (out, self._staging) if (folder / JOURNAL_FILE).exists()]
        if occupied and not overwrite:
            _refuse_occupied(out, resume=resume, interrupted=interrupted)
        self.goes_on = resume and bool(interrupted)
        if self.goes_on:
            self.path = interrupted[0]
        else:
            self.path = self._staging if occupied else out
        self._replaces = self.path is self._staging
        if self._replaces and Path.cwd().is_relative_to(out.resolve()):
            raise UsageError(f"{out} is the working directory, or around it, and cannot be replaced from inside")
        self._lock = FolderLock()

    def __enter__(self) -> OutputFolder:
        # Another run may be about to replace this folder, or be at work in the one that this run replaces.
        refuse_if_locked(self.out if self._replaces else self._staging)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be made: {error.strerror or error}") from error
        self._lock.take(self.path)
        try:
            clear_roster(self.path)
        except BaseException:
            self._lock.release(self.path)
            raise
        if self._replaces and not self.goes_on:
            self._clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release(self.path)

    @property
    def journal(self) -> Path:
        """Where the run's journal is."""
        return self.path / JOURNAL_FILE

    @property
    def is_beside(self) -> bool:
        """Whether files go to a folder beside the one that they will replace."""
        return self._replaces

    def remove_journal(self) -> None:
        """The folder is complete: nothing is left to go on with."""
        _remove(self.journal)

    def remove_journals_of_others(self) -> None:
        """What the other processes of an earlier run wrote down is in the run's own journal now."""
        for path in journals_of_others(self.path):
            _remove(path)

    def taken_bytes(self) -> int:
        """Disk that an interrupted run has taken already."""
        sizes = [entry.stat() for entry in self.path.glob("*.safetensors*")]
        # A shard has its full size from the start, but takes only what was written. (Windows does not tell.)
        return sum(min(getattr(found, "st_blocks", 0) * 512, found.st_size) for found in sizes)

    def write_text(self, name: str, text: str) -> None:
        """Write a file at once or not at all; ``name`` may be in a folder of the output's own."""
        temporary = self.path / (name + ".tmp")
        try:
            temporary.parent.mkdir(exist_ok=True)
            # Half a character, in a config or in the name of a file, is written as JSON escapes it.
            with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                # A tokenizer's text is large, and its bytes would be as much again.
                for start in range(0, len(text), _AT_A_TIME):
                    file.write(text[start : start + _AT_A_TIME])
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path / name)
        except OSError as error:
            raise OutputError(f"{self.path / name} cannot be written: {error.strerror}") from error

    def write_json(self, name: str, value: Mapping[str, object]) -> None:
        """Write a JSON file at once or not at all."""
        self.write_text(name, as_json(value))

    def take_from(self, copies: Mapping[str, Path]) -> None:
        """Copy files of the inputs that a merge leaves as they are: from where, by name in the output."""
        for name, source in copies.items():
            temporary = self.path / (name + ".tmp")
            try:
                temporary.parent.mkdir(exist_ok=True)
                shutil.copyfile(source, temporary)
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                temporary.replace(self.path / name)
            except OSError as error:
                raise OutputError(f"{self.path / name} cannot be written: {error.strerror}") from error

    def sync(self) -> None:
        """Return when the names of everything written so far are on disk."""
        sync_folder(self.path)

    def publish(self) -> None:
        """Give the folder its name, replacing the old one."""
        if not self._replaces and not self.goes_on:
            return
        old = self.out.with_name(self.out.name + _REPLACED_SUFFIX)
        try:
            if self._replaces:
                if self.out.exists():
                    if old.exists():  # a replacement was interrupted while it cleared up
                        _put_away(old, self.out)
                    self.out.rename(old)
                self.path.rename(self.out)
                self.path, self._replaces = self.out, False
                sync_folder(self.out.parent)
            if old.exists():
                _put_away(old, self.out)
        except OSError as error:
            raise OutputError(
                f"{self.out} cannot be replaced: {error.strerror or error}; the result is in {self.path}"
            ) from error

    def _clear(self) -> None:
        """Remove what an interrupted replacement left; it is all ours."""
        try:
            for entry in self.path.iterdir():
                if entry.name == LOCK_FILE:
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        except OSError as error:
            raise OutputError(f"{self.path} cannot be cleared: {error.strerror}") from error


def folder_beside(out: Path) -> Path:
    """Where a run writes that replaces a finished folder."""
    out = _with_a_name(out)
    return out.with_name(out.name + _STAGING_SUFFIX)


def _with_a_name(out: Path) -> Path:
    """The folder by a name that another one can stand beside; a link stays one, and is where it leads to."""
    out = out.resolve() if out.is_symlink() or out.name in ("", "..") else out
    if not out.name:
        raise UsageError(f"{out} is a whole file system; name a folder in it")
    return out


def journal_of(folder: Path, process: int) -> Path:
    """The journal of a process of a run; process 0 has the run's own."""
    return folder / (f"{JOURNAL_FILE}-{process:04d}" if process else JOURNAL_FILE)


def journals_of_others(folder: Path) -> list[Path]:
    """The journals of all processes but the first, those of earlier runs, too."""
    return sorted(path for path in folder.glob(f"{JOURNAL_FILE}-*") if path.name.rpartition("-")[2].isdigit())


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be removed: {error.strerror}") from error


def _put_away(old: Path, new: Path) -> None:
    """Remove a folder that was replaced; what is somebody's own in it moves on."""
    for entry in old.iterdir():
        if not _MODEL_FILES.fullmatch(entry.name) and not (new / entry.name).exists():
            entry.rename(new / entry.name)
    shutil.rmtree(old)


def _refuse_occupied(out: Path, *, resume: bool, interrupted: list[Path]) -> None:
    """Say why a folder that is not empty cannot be written to; nothing where a run in it may go on."""
    if resume and out in interrupted:
        return
    if interrupted and out not in interrupted and resume:
        raise UsageError(f"{out}: the interrupted run was to replace it; go on with --resume --overwrite")
    if out in interrupted:
        raise UsageError(
            f"{out} is not empty: it holds an interrupted run; go on with it with --resume, "
            "or start anew with --overwrite"
        )
    if resume:
        raise UsageError(f"{out} holds no interrupted run; choose another folder, or replace it with --overwrite")
    raise UsageError(
        f"{out} is not empty; choose another folder, or replace it with --overwrite "
        "(an interrupted run goes on with --resume)"
    )


def _is_occupied(out: Path) -> bool:
    """Whether a folder holds anything but what a run leaves that ended before it had begun."""
    try:
        return any(not _NOTHING_YET.fullmatch(entry.name) for entry in out.iterdir()) if out.exists() else False
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


def donated_files(donor: Path) -> tuple[Path, ...]:
    """The donor's files that a merge leaves as they are. Raises InputError if one is there that cannot be read."""
    try:
        entries = sorted(donor.iterdir())
    except OSError as error:
        raise InputError(f"{donor}: cannot be read: {error.strerror}") from error
    files = tuple(entry for entry in entries if _DONATED.fullmatch(entry.name) and not entry.is_dir())
    for file in files:
        open_input(file).close()  # such as a link that leads nowhere
    return files


def free_disk_bytes(out: Path) -> int:
    """Free bytes where the output goes: on the file system of the nearest folder that exists."""
    folder = out.resolve()
    while not os.path.exists(folder):  # noqa: PTH110 - no, too, for a name that no file can have
        folder = folder.parent
    return shutil.disk_usage(folder).free
