"""What survives a loss of power: the names of files, not only their bytes."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from ..engine.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

_UNSUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on disk. Raises OutputError.

    Windows has no such call, and some file systems refuse it: there it is theirs to keep names.
    """
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"{folder} cannot be opened: {error.strerror}") from error
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise OutputError(f"{folder} cannot be written to disk: {error.strerror}") from error
    finally:
        os.close(handle)
