"""Reads and writes at given places of files, from any thread, without a shared position."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..engine.errors import InputError, OutputError
from .direct_io import DirectFile, whole_pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    import torch

    from ..engine.model import StoredTensor

CALL_LIMIT_BYTES = 1 << 30
"""Most bytes asked of one system call: macOS refuses 2 GiB, Linux stops short of it."""

_MODES: dict[str, Literal["rb", "r+b", "w+b"]] = {"read": "rb", "update": "r+b", "create": "w+b"}


class PositionedFile:
    """An open file that is read and written at offsets; safe to use from several threads.

    ``mode`` is "read", "update" (an existing file, read and write) or "create" (a new or emptied file). Uses
    ``preadv`` and ``pwrite`` where the platform has them, else a lock around seek and read.
    ``direct`` moves whole pages past the page cache where file offset and memory address allow it.
    Raises InputError (mode "read") or OutputError, both naming the file.
    """

    def __init__(self, path: str, mode: Literal["read", "update", "create"] = "read", *, direct: bool = False) -> None:
        self.path = path
        self._error = InputError if mode == "read" else OutputError
        try:
            self._file = open(path, _MODES[mode], buffering=0)  # noqa: SIM115, PTH123 - closed by close()
        except OSError as error:
            raise self._failed("cannot be opened", error) from error
        # One position for the whole file, used only on platforms without positioned calls.
        self._position_lock = threading.Lock()
        self._direct = DirectFile(path, "read" if mode == "read" else "write") if direct else None
        if direct and mode == "read" and hasattr(os, "posix_fadvise"):
            # What is left for the cache are pieces of pages: reading ahead of them would read everything twice.
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    @property
    def size_bytes(self) -> int:
        """Bytes of the file now."""
        try:
            return os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise self._failed("cannot be examined", error) from error

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (contiguous bytes, writable) from ``offset_bytes``; an error if the file ends before."""
        buffer, done = _as_bytes(buffer), 0
        while done < len(buffer):
            piece = buffer[done : done + CALL_LIMIT_BYTES]
            try:
                count = self._read_some(offset_bytes + done, piece)
            except OSError as error:
                raise self._failed(f"cannot be read at byte {offset_bytes + done}", error) from error
            if count == 0:
                raise self._error(
                    f"{self.path}: the file ends early: no data at byte {offset_bytes + done}, "
                    f"{len(buffer) - done} bytes missing"
                )
            done += count

    def write_from(self, offset_bytes: int, buffer: memoryview) -> None:
        """Write all of ``buffer`` (contiguous bytes) at ``offset_bytes``."""
        buffer, done = _as_bytes(buffer), 0
        while done < len(buffer):
            piece = buffer[done : done + CALL_LIMIT_BYTES]
            try:
                done += self._write_some(offset_bytes + done, piece)
            except OSError as error:
                raise self._failed(f"cannot be written at byte {offset_bytes + done}", error) from error

    def copy_range(self, source: PositionedFile, source_offset_bytes: int, offset_bytes: int, size_bytes: int) -> int:
        """Let the kernel copy bytes of another file to ``offset_bytes``; returns how many it copied.

        Fewer than ``size_bytes`` (often 0) where the kernel or the file systems cannot: the caller moves the rest
        itself. Any failure ends the copy without an error, because the read or write that the caller then makes
        says which of the two files is at fault.
        """
        copy = getattr(os, "copy_file_range", None)
        done = 0
        while copy is not None and done < size_bytes:
            try:
                count = copy(
                    source._file.fileno(),
                    self._file.fileno(),
                    min(size_bytes - done, CALL_LIMIT_BYTES),
                    source_offset_bytes + done,
                    offset_bytes + done,
                )
            except OSError:
                break
            if count == 0:
                break
            done += count
        return done

    def resize(self, size_bytes: int) -> None:
        """Make the file this long; what is added reads as zeros."""
        try:
            self._file.truncate(size_bytes)
        except OSError as error:
            raise self._failed("cannot be resized", error) from error

    def sync(self) -> None:
        """Return when the bytes written so far are on disk."""
        flush = getattr(os, "fdatasync", os.fsync)
        try:
            flush(self._file.fileno())
        except OSError as error:
            raise self._failed("cannot be written to disk", error) from error

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        try:
            if self._direct is not None:
                self._direct.close()
            self._file.close()
        except OSError as error:
            raise self._failed("cannot be closed", error) from error

    def __enter__(self) -> PositionedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_some(self, offset_bytes: int, piece: memoryview) -> int:
        if self._direct is not None:
            start, end = whole_pages(offset_bytes, _address(piece), len(piece))
            if start == 0 and end:
                count = self._direct.read(offset_bytes, piece[:end])
                if count:
                    return count
            elif start < end:
                piece = piece[:start]  # up to the first whole page through the cache, then past it
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [piece], offset_bytes)
        with self._position_lock:
            self._file.seek(offset_bytes)
            return self._file.readinto(piece) or 0

    def _write_some(self, offset_bytes: int, piece: memoryview) -> int:
        if self._direct is not None:
            start, end = whole_pages(offset_bytes, _address(piece), len(piece))
            if start == 0 and end:
                count = self._direct.write(offset_bytes, piece[:end])
                if count:
                    return count
            elif start < end:
                piece = piece[:start]
        if hasattr(os, "pwrite"):
            return os.pwrite(self._file.fileno(), piece, offset_bytes)
        with self._position_lock:
            self._file.seek(offset_bytes)
            return self._file.write(piece) or 0

    def _failed(self, what: str, error: OSError) -> InputError | OutputError:
        return self._error(f"{self.path}: {what}: {error.strerror or error}")


class _Lease:
    """An open file and how many threads use it now."""

    __slots__ = ("file", "users")

    def __init__(self, file: PositionedFile) -> None:
        self.file = file
        self.users = 0


class FilePool:
    """Open input files, at most ``limit`` at a time where none in use has to stay; a TensorReader.

    The file that was used longest ago is closed first, and never one in use. ``expected_bytes`` gives the size of
    files as their headers were read: a file that has changed since is refused when it is opened. ``direct`` is for
    inputs too large to stay in the page cache.
    """

    def __init__(
        self, limit: int = 64, expected_bytes: Mapping[str, int] | None = None, *, direct: bool = False
    ) -> None:
        if limit < 1:
            raise ValueError("a pool holds at least one file")
        self._limit = limit
        self._direct = direct
        self._expected_bytes = dict(expected_bytes or {})
        self._lock = threading.Lock()
        self._leases: OrderedDict[str, _Lease] = OrderedDict()
        self._closed = False

    @property
    def direct(self) -> bool:
        """Whether reads go past the page cache where they can."""
        return self._direct

    @property
    def open_files(self) -> int:
        """Files open now."""
        return len(self._leases)

    @contextmanager
    def use(self, path: str) -> Iterator[PositionedFile]:
        """The open file at ``path``; it stays open inside the ``with`` block. Raises InputError."""
        with self._lock:
            lease = self._lease(path)
            lease.users += 1
        try:
            yield lease.file
        finally:
            with self._lock:
                lease.users -= 1
                self._trim()

    def read_into(self, tensor: StoredTensor, offset_bytes: int, out: torch.Tensor) -> None:
        """Fill ``out`` (1-D, uint8, contiguous) from ``offset_bytes`` of the tensor's data. Raises InputError."""
        size_bytes = out.numel()
        if offset_bytes < 0 or offset_bytes + size_bytes > tensor.size_bytes:
            raise ValueError(f"bytes {offset_bytes} to {offset_bytes + size_bytes} are outside {tensor.name}")
        if size_bytes == 0:
            return
        with self.use(tensor.file) as file:
            file.read_into(tensor.offset_bytes + offset_bytes, out.numpy().data)

    def close(self) -> None:
        """Close every file. Nothing may be in use."""
        with self._lock:
            self._closed = True
            while self._leases:
                self._leases.popitem()[1].file.close()

    def __enter__(self) -> FilePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lease(self, path: str) -> _Lease:
        lease = self._leases.get(path)
        if lease is not None:
            self._leases.move_to_end(path)
            return lease
        if self._closed:
            raise ValueError("the pool is closed")
        self._trim(spare=1)
        file = PositionedFile(path, direct=self._direct)
        expected_bytes = self._expected_bytes.get(path)
        if expected_bytes is not None and file.size_bytes != expected_bytes:
            size_bytes = file.size_bytes
            file.close()
            raise InputError(
                f"{path}: the file changed while Plait was running: {size_bytes} bytes, {expected_bytes} before"
            )
        lease = self._leases[path] = _Lease(file)
        return lease

    def _trim(self, spare: int = 0) -> None:
        excess = len(self._leases) + spare - self._limit
        if excess <= 0:
            return
        idle = [path for path, lease in self._leases.items() if lease.users == 0]
        for path in idle[:excess]:
            self._leases.pop(path).file.close()


def _address(buffer: memoryview) -> int:
    """Where a buffer lies in memory."""
    return int(np.frombuffer(buffer, dtype=np.uint8).ctypes.data) if buffer else 0


def _as_bytes(buffer: memoryview) -> memoryview:
    """The same memory counted in bytes; a view without elements cannot be cast."""
    return buffer.cast("B") if buffer.nbytes else memoryview(b"")
