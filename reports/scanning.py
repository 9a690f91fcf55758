"""What the bytes of weight files are: finite or not, all the same or not, and their sha256, in one read.

Files are cut into chunks that several threads take, so that memory does not depend on the model. A digest needs a
file's bytes in order: then a thread takes a whole file, and another one digests what it has read.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..engine import host
from ..engine.errors import InputError
from ..engine.finite import all_finite
from ..engine.progress import Progress
from ..loaders.positioned_io import PositionedFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from ..engine.model import StoredTensor
    from ..engine.progress import Callback
    from ..loaders.safetensors_file import Header, HeaderEntry

CHUNK_BYTES = 1 << 21
PAGE_BYTES = 4096
MOST_WORKERS = 8
CACHED_SHARE = 0.5
"""Files above this share of free memory are read past the page cache: it could not keep them anyway."""

_BUFFERS = 3
"""Chunks of a file that is digested: one is read, one waits, one is digested."""

WORKER_BYTES = (_BUFFERS + 1) * CHUNK_BYTES
"""What a thread takes: its chunks, and as much for what is found out about them."""

_BLOCK_ELEMENTS = 1 << 14
_TELL_SECONDS = 0.2
_PLAIN = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@dataclass(slots=True)
class Values:
    """What was found in one tensor of floats.

    ``nonfinite`` counts NaN and infinity, ``first`` is the flat index of the first and ``what`` says which it is.
    ``constant`` is the value that all elements have, None if they differ.
    """

    nonfinite: int = 0
    first: int = -1
    what: str = ""
    constant: float | None = None
    seen: bool = False

    def add(self, piece: Values, lo: int) -> None:
        """Take what was found in the elements from ``lo`` on."""
        if piece.nonfinite:
            if self.first < 0 or lo + piece.first < self.first:
                self.first, self.what = lo + piece.first, piece.what
            self.nonfinite += piece.nonfinite
        self.constant = piece.constant if not self.seen or self.constant == piece.constant else None
        self.seen = True


@dataclass(frozen=True)
class Scan:
    """What reading the files found: values by tensor, digests and read errors by file."""

    values: Mapping[str, Values]
    sha256: Mapping[str, str]
    errors: Mapping[str, str]
    bytes_read: int


class _Piece(NamedTuple):
    """Elements of a tensor in a chunk: the first of them, and their bytes counted from the chunk's start."""

    name: str
    entry: HeaderEntry
    first_element: int
    lo_bytes: int
    hi_bytes: int


class _Chunk(NamedTuple):
    path: str
    offset_bytes: int
    size_bytes: int
    pieces: Sequence[_Piece]


def scan(
    files: Mapping[str, tuple[int, Header | None]],
    *,
    digests: bool,
    room_bytes: int | None = None,
    progress: Callback | None = None,
) -> Scan:
    """Read files once. ``files`` has, by path, the size and the header; None for a file that is only digested.

    There are as many threads as there are cores, as are of use and as ``room_bytes`` of memory allow; at least one.
    """
    workers = min(host.usable_cores(), MOST_WORKERS)
    if room_bytes is not None:
        workers = max(min(workers, room_bytes // WORKER_BYTES), 1)
    with host.one_torch_thread():
        return _Scanner(files, digests=digests, workers=workers, progress=progress).run()


def same_bytes(a: StoredTensor, b: StoredTensor) -> bool:
    """Whether two stored tensors have the same bytes. Raises InputError."""
    first, second = torch.empty(CHUNK_BYTES, dtype=torch.uint8), torch.empty(CHUNK_BYTES, dtype=torch.uint8)
    with PositionedFile(a.file) as file_a, PositionedFile(b.file) as file_b:
        for offset in range(0, a.size_bytes, CHUNK_BYTES):
            count = min(CHUNK_BYTES, a.size_bytes - offset)
            file_a.read_into(a.offset_bytes + offset, first[:count].numpy().data)
            file_b.read_into(b.offset_bytes + offset, second[:count].numpy().data)
            if not first[:count].equal(second[:count]):
                return False
    return True


class _Scanner:
    """Threads that take chunks, and what they have found so far."""

    def __init__(
        self,
        files: Mapping[str, tuple[int, Header | None]],
        *,
        digests: bool,
        workers: int,
        progress: Callback | None,
    ) -> None:
        self._files, self._digests, self._workers, self._progress = files, digests, workers, progress
        self._total_bytes = sum(size for size, header in files.values() if digests or header is not None)
        self._direct = self._total_bytes > host.free_memory_bytes() * CACHED_SHARE
        self._tensors = sum(len(header.entries) for _, header in files.values() if header is not None)
        self._values: dict[str, Values] = {}
        self._sha256: dict[str, str] = {}
        self._errors: dict[str, str] = {}
        self._bytes_read = 0
        self._stop = False
        self._lock = threading.Lock()
        self._started = time.perf_counter()

    def run(self) -> Scan:
        paths = [path for path, (_, header) in self._files.items() if self._digests or header is not None]
        # Without digests several threads share a file: each takes every n-th chunk of it.
        shares = 1 if self._digests else self._workers
        with ThreadPoolExecutor(self._workers, thread_name_prefix="plait-scan") as pool:
            futures = [pool.submit(self._file, path, share, shares) for path in paths for share in range(shares)]
            try:
                while wait(futures, timeout=_TELL_SECONDS).not_done:
                    self._tell()
                for future in futures:
                    future.result()
            except BaseException:
                self._stop = True
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self._tell()
        return Scan(self._values, self._sha256, self._errors, self._bytes_read)

    def _tell(self) -> None:
        if self._progress is not None:
            seconds = time.perf_counter() - self._started
            self._progress(Progress(self._bytes_read, 0, self._total_bytes, len(self._values), self._tensors, seconds))

    def _file(self, path: str, share: int, shares: int) -> None:
        """Go through every ``shares``-th chunk of a file from number ``share`` on."""
        size_bytes, header = self._files[path]
        digest = hashlib.sha256() if self._digests else None
        buffers = [_page_aligned(CHUNK_BYTES + PAGE_BYTES) for _ in range(_BUFFERS if digest else 1)]
        pending: deque[Future[None]] = deque()
        try:
            with PositionedFile(path, direct=self._direct) as file, ThreadPoolExecutor(1) as digester:
                for number, chunk in enumerate(_chunks(path, header, size_bytes)):
                    if self._stop:
                        return
                    if number % shares != share:
                        continue
                    if len(pending) == _BUFFERS:
                        pending.popleft().result()
                    # Past the page cache, a place in memory has to fit the place in the file.
                    start = chunk.offset_bytes % PAGE_BYTES
                    data = buffers[number % len(buffers)][start : start + chunk.size_bytes]
                    file.read_into(chunk.offset_bytes, data.numpy().data)
                    if digest is not None:
                        pending.append(digester.submit(digest.update, data.numpy().data))
                    self._look(chunk, data)
            if digest is not None:
                for each in pending:
                    each.result()
                self._sha256[path] = digest.hexdigest()
        except InputError as error:
            self._errors[path] = str(error).removeprefix(f"{path}: ")

    def _look(self, chunk: _Chunk, data: torch.Tensor) -> None:
        found = [
            (piece, look(data[piece.lo_bytes : piece.hi_bytes], piece.entry.dtype, self._may_be_constant(piece.name)))
            for piece in chunk.pieces
        ]
        with self._lock:
            self._bytes_read += chunk.size_bytes
            for piece, values in found:
                self._values.setdefault(piece.name, Values()).add(values, piece.first_element)

    def _may_be_constant(self, name: str) -> bool:
        known = self._values.get(name)
        return known is None or not known.seen or known.constant is not None


def look(data: torch.Tensor, dtype: torch.dtype, constant: bool = True) -> Values:
    """Look into elements given as bytes (1-D, uint8); whether all are the same only where ``constant``."""
    if dtype in (torch.complex64, torch.complex128):
        values = look(data, torch.float32 if dtype == torch.complex64 else torch.float64, constant)
        values.first //= 2
        return values
    if not dtype.is_floating_point:
        return Values()
    if data.data_ptr() % dtype.itemsize:
        data = data.clone()  # files of other writers need not align tensors to their elements
    x = data.view(dtype)
    found = Values(constant=_constant(x) if constant else None)
    if dtype in _PLAIN and all_finite(x):
        return found
    for lo in range(0, x.numel(), _BLOCK_ELEMENTS):
        part = x[lo : lo + _BLOCK_ELEMENTS].float() if dtype not in _PLAIN else x[lo : lo + _BLOCK_ELEMENTS]
        bad = ~torch.isfinite(part)
        count = int(bad.sum().item())
        if count and not found.nonfinite:
            place = int(bad.nonzero()[0].item())
            found.first, found.what = lo + place, _called(float(part[place].item()))
        found.nonfinite += count
    return found


def _called(value: float) -> str:
    return "NaN" if math.isnan(value) else "infinity" if value > 0 else "-infinity"


def _constant(x: torch.Tensor) -> float | None:
    """The value that all elements have, zeros of either sign alike; mostly the first two tell that they differ."""
    whole = x.dtype in _PLAIN
    first = float(x[0].float().item()) if x.dtype != torch.float64 else float(x[0].item())
    for lo, hi in ((0, 64), *((lo, lo + _BLOCK_ELEMENTS) for lo in range(0, x.numel(), _BLOCK_ELEMENTS))):
        part = x[lo:hi] if whole else x[lo:hi].float()
        if not bool((part == first).all()):
            return None
    return first


def _chunks(path: str, header: Header | None, size_bytes: int) -> Iterator[_Chunk]:
    """Cut a file, from its first byte to its last, at pages and between elements."""
    entries = list(header.entries.items()) if header is not None else []
    at = offset = 0
    while offset < size_bytes:
        end = min((offset + CHUNK_BYTES) // PAGE_BYTES * PAGE_BYTES, size_bytes)
        pieces = []
        while at < len(entries):
            name, entry = entries[at]
            entry_end = entry.offset_bytes + entry.size_bytes
            if entry_end <= offset:
                at += 1
                continue
            if entry.offset_bytes >= end:
                break
            lo, width = max(entry.offset_bytes, offset), entry.dtype.itemsize
            if entry_end > end:
                end -= (end - entry.offset_bytes) % width
            hi = min(entry_end, end)
            if hi > lo:
                pieces.append(_Piece(name, entry, (lo - entry.offset_bytes) // width, lo - offset, hi - offset))
            if entry_end > end:
                break
            at += 1
        yield _Chunk(path, offset, end - offset, pieces)
        offset = end


def _page_aligned(size_bytes: int) -> torch.Tensor:
    """Bytes whose address is a whole page."""
    room = torch.empty(size_bytes + PAGE_BYTES, dtype=torch.uint8)
    start = -room.data_ptr() % PAGE_BYTES
    return room[start : start + size_bytes]
