"""Fields of a JSON file that may be edited, damaged or of another version: what is there has to be of its kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ..engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_T = TypeVar("_T")

_MOST = 2.0**63
"""Above every count of bytes and every number of seconds."""


def get(path: Path, fields: Mapping[str, object], key: str, kind: type[_T]) -> _T:
    """A field that has to be there. Raises InputError that names the file at ``path`` and the key."""
    value = fields.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{path}: {key!r} is {'not what a run writes there' if key in fields else 'missing'}")
    return value


def perhaps(path: Path, fields: Mapping[str, object], key: str, kind: type[_T]) -> _T | None:
    """A field that may be missing. Raises InputError if it is of another kind."""
    return get(path, fields, key, kind) if fields.get(key) is not None else None


def mappings(path: Path, fields: Mapping[str, object], key: str) -> list[dict[str, object]]:
    """A list of objects. Raises InputError."""
    found = get(path, fields, key, list)
    if not all(isinstance(each, dict) for each in found):
        raise _other(path, key)
    return found


def texts(path: Path, fields: Mapping[str, object], key: str) -> tuple[str, ...]:
    """A list of texts; empty where the field is missing. Raises InputError."""
    found = perhaps(path, fields, key, list) or []
    if not all(isinstance(each, str) for each in found):
        raise _other(path, key)
    return tuple(found)


def number(path: Path, fields: Mapping[str, object], key: str) -> float | None:
    """A number that is not negative; None where the field is missing. Raises InputError."""
    value = fields.get(key)
    return None if value is None else _number(path, key, value)


def whole(path: Path, fields: Mapping[str, object], key: str) -> int | None:
    """A count; None where the field is missing. Raises InputError."""
    value = number(path, fields, key)
    if value is not None and not isinstance(fields[key], int):
        raise _other(path, key)
    return None if value is None else int(value)


def numbers(path: Path, fields: Mapping[str, object], key: str) -> tuple[float, ...]:
    """A list of numbers that are not negative; empty where the field is missing. Raises InputError."""
    return tuple(_number(path, key, each) for each in perhaps(path, fields, key, list) or [])


def _number(path: Path, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _MOST:
        raise _other(path, key)  # NaN, too
    return value


def _other(path: Path, key: str) -> InputError:
    return InputError(f"{path}: {key!r} is not what a run writes there")
