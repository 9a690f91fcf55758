"""Pages are written as files: whole or not at all, and never among the files of a model."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_page(path: Path, *, inputs: Iterable[str] = (), out: Path | None = None) -> None:
    """See, before there is anything to write, that a page can go there.

    Raises UsageError for a folder, for a place without one, for the folder of an input, which is only read, and for
    ``out``, which holds a model and nothing else.
    """
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be a file: {error.args[-1]}") from None
    if is_folder:
        raise UsageError(f"{path}: is a folder; name the file that the page goes to")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    folder = path.parent.resolve()
    if folder in [Path(each).resolve() for each in inputs]:
        raise UsageError(f"{path}: {path.parent} is a model that is only read; put the page somewhere else")
    if out is not None and out.resolve() in (folder, path.resolve()):
        raise UsageError(f"{path}: {out} is where the model goes; put the page somewhere else")


def write_page(path: Path, lines: Iterable[str]) -> None:
    """Write a page line by line; one that was there is replaced. Raises OutputError."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
