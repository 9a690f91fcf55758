"""Reads and writes that go past the page cache, where the platform has them.

A merge writes every byte once and, when its inputs are larger than memory, reads every byte once: caching them
costs a copy and evicts what is worth keeping. Past the cache a write is also on its way to the disk at once, so
that waiting for durability at the end is short. The kernel asks for offsets, sizes and addresses that are whole
pages; what is not is left to the caller.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import Literal

PAGE_BYTES = 4096
"""Alignment that every current disk and file system accepts."""

_CANNOT = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


class DirectFile:
    """A second, uncached handle on a file; `read` and `write` return 0 where it cannot be used."""

    def __init__(self, path: str, mode: Literal["read", "write"]) -> None:
        flag = getattr(os, "O_DIRECT", None)
        self._fd: int | None = None
        self._lock = threading.Lock()
        if flag is not None and hasattr(os, "preadv"):
            try:
                self._fd = os.open(path, flag | (os.O_RDONLY if mode == "read" else os.O_WRONLY))
            except OSError:
                self._fd = None

    def write(self, offset_bytes: int, data: memoryview) -> int:
        """Write whole pages from a page-aligned address; returns the bytes written. Raises OSError."""
        fd = self._fd
        if fd is None:
            return 0
        try:
            return os.pwrite(fd, data, offset_bytes)
        except OSError as error:
            return self._give_up(error)

    def read(self, offset_bytes: int, out: memoryview) -> int:
        """Read whole pages to a page-aligned address; returns the bytes read, fewer at the end of the file."""
        fd = self._fd
        if fd is None:
            return 0
        try:
            return os.preadv(fd, [out], offset_bytes)
        except OSError as error:
            return self._give_up(error)

    def close(self) -> None:
        """Close the handle; closing twice is fine."""
        with self._lock:
            fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _give_up(self, error: OSError) -> int:
        if error.errno in _CANNOT:
            self.close()
            return 0
        raise error


def whole_pages(offset_bytes: int, address: int, size_bytes: int) -> tuple[int, int]:
    """The part (start, end) of a buffer that lies on whole pages both in the file and in memory; empty if none."""
    start = -offset_bytes % PAGE_BYTES
    end = start + (size_bytes - start) // PAGE_BYTES * PAGE_BYTES
    if (address + start) % PAGE_BYTES or end <= start:
        return 0, 0
    return start, end
