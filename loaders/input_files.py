"""Small files of an input, read as if an enemy had put them there: of a bounded size, text, JSON of a bounded depth."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

JSON_LEVELS = 100
"""Nesting that is still read: what follows is recursive, and Python's own stack ends at a thousand calls."""

_SIDE_JSON_BYTES = 32_000_000
"""What is read of a JSON file beside the weights, at most: several times the largest that is known."""


def open_input(path: str | Path) -> BinaryIO:
    """Open a file of an input for reading. Raises InputError.

    Links are followed, since caches are made of them; pipes and devices, which never end, are refused.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - the path may be text
            raise InputError(f"{path}: cannot be read: it is not a file")
        return Path(path).open("rb")
    except OSError as error:
        lost = f"it is a link to {Path(path).readlink()}, which is not there" if _leads_nowhere(path) else ""
        raise InputError(f"{path}: cannot be read: {lost or error.strerror or error}") from error


def _leads_nowhere(path: str | Path) -> bool:
    return os.path.islink(path) and not os.path.exists(path)  # noqa: PTH110, PTH114 - names that no file can have


def read_start(path: Path, limit_bytes: int) -> bytes:
    """The first bytes of a file, at most ``limit_bytes``. Raises InputError."""
    with open_input(path) as file:
        try:
            return file.read(limit_bytes)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_json(path: Path, limit_bytes: int) -> dict[str, object]:
    """Parse a JSON object of at most ``limit_bytes``. Raises InputError with the line of the mistake."""
    data = read_start(path, limit_bytes + 1)
    if len(data) > limit_bytes:
        raise InputError(f"{path}: larger than {limit_bytes // 1_000_000} MB")
    return _parse_json(data, path)


def json_of(path: Path, files: Mapping[str, str] | None = None) -> dict[str, object] | None:
    """A JSON file beside the weights; ``files`` (texts by name) go before what is on disk. None without one.

    Raises InputError.
    """
    if files is not None and path.name in files:
        return _parse_json(files[path.name].encode("utf-8", "backslashreplace"), path)
    return read_json(path, _SIDE_JSON_BYTES) if path.is_file() else None


def as_json(value: Mapping[str, object]) -> str:
    """The text of a JSON file."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _parse_json(data: bytes, path: Path) -> dict[str, object]:
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise too_deep(path) from error
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object")
    check_depth(value, path)
    return value


def check_depth(value: object, path: Path) -> None:
    """Refuse what is nested deeper than anybody writes, one level after the other."""
    level = [value]
    for _ in range(JSON_LEVELS):
        if not level:
            return
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner.extend(each.values())
            elif isinstance(each, list):
                inner.extend(each)
        level = inner
    if level:
        raise too_deep(path)


def too_deep(path: Path) -> InputError:
    """What to say of a file that is nested deeper than anybody writes."""
    return InputError(f"{path}: nested more than {JSON_LEVELS} levels deep")
