"""One run at a time in a folder: a file that names the process, and is taken over when that process is gone."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import TYPE_CHECKING

import psutil

from ..engine.errors import OutputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

LOCK_FILE = "plait.lock"

_ATTEMPTS, _PAUSE_SECONDS = 40, 0.05
"""How long a lock without a name in it may take to get one: its holder is just making it."""


class FolderLock:
    """The lock of a folder. ``take`` and ``release`` it; the folder may be renamed in between."""

    def __init__(self) -> None:
        self._own = json.dumps(this_process())

    def take(self, folder: Path) -> None:
        """Hold the folder. Raises UsageError if a run that goes on holds it, OutputError if that cannot be written."""
        path = folder / LOCK_FILE
        for attempt in range(_ATTEMPTS):
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(self._own)
            except FileExistsError:
                held = _read(path)
                if held == "" and attempt + 1 < _ATTEMPTS:
                    time.sleep(_PAUSE_SECONDS)
                elif held is not None:
                    _refuse_if_held(path, held)
                    self._remove_stale(path, held)
            except OSError as error:
                raise OutputError(f"{path} cannot be written: {error.strerror}") from error
            else:
                return
        raise UsageError(f"{path}: other runs keep taking this folder")

    def release(self, folder: Path) -> None:
        """Let the folder go, if it is still ours."""
        path = folder / LOCK_FILE
        if _read(path) == self._own:
            path.unlink(missing_ok=True)

    def _remove_stale(self, path: Path, held: str) -> None:
        """Take away the lock of a process that is gone; only one of several that try does it."""
        aside = path.with_name(f"{LOCK_FILE}.{os.getpid()}")
        try:
            path.replace(aside)
            if _read(aside) != held and not path.exists():
                aside.replace(path)  # somebody else was quicker, and this is their lock
            else:
                aside.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"{path} cannot be removed: {error.strerror}") from error


def this_process() -> dict[str, int | str | float]:
    """What tells this process from every other one: its number, its machine, and when it was started."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": psutil.Process().create_time()}


def refuse_if_locked(folder: Path) -> None:
    """Raise UsageError if a run that goes on holds a folder."""
    path = folder / LOCK_FILE
    held = _read(path)
    if held:
        _refuse_if_held(path, held)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def _refuse_if_held(path: Path, held: str) -> None:
    try:
        holder = json.loads(held)
        pid, host, started = int(holder["pid"]), str(holder["host"]), float(holder["started"])
    except (ValueError, TypeError, KeyError):
        return  # cut short: whoever wrote it did not live to finish it
    if host != socket.gethostname():
        raise UsageError(
            f"{path.parent} is in use by process {pid} on {host}; if that has ended, remove {path} and try again"
        )
    if runs(pid, started):
        raise UsageError(f"{path.parent} is in use by process {pid}: wait for it, or choose another folder")


def runs(pid: int, started: float) -> bool:
    """Whether the process that was started then still runs: numbers are given again."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
