"""The output's shards: laid out before the first byte is computed, written in place, renamed when on disk.

All shapes are known, so every header is written first and a tensor's bytes have a place from the start; no shard
is ever held in memory. A shard is called ``….partial`` until its bytes are on disk: a file of full size with a
valid header and holes in it would load as zeros.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .direct_io import PAGE_BYTES
from .positioned_io import FilePool, PositionedFile
from .safetensors_file import HEADER_LIMIT_BYTES, encode_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    import torch

    from ..engine.graph import TensorSpec
    from ..engine.model import StoredTensor

INDEX_FILE = "model.safetensors.index.json"
PARTIAL_SUFFIX = ".partial"
METADATA = {"format": "pt"}

_ENTRY_BYTES = 120
"""What a tensor's entry takes in a header besides its name, at most: dtype, shape, two offsets, punctuation."""

_NAMED_LIMIT_BYTES = HEADER_LIMIT_BYTES // 4
"""Names and entries that a header holds at most: readers refuse longer ones, and some letters are escaped there."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One output file: its name, its header, and where each tensor's data starts (from the file's start)."""

    file_name: str
    header: bytes
    offsets_bytes: Mapping[str, int]
    size_bytes: int

    @property
    def data_bytes(self) -> int:
        """Bytes of the tensors."""
        return self.size_bytes - len(self.header)


def plan_shards(tensors: Iterable[tuple[str, TensorSpec]], limit_bytes: int) -> tuple[Shard, ...]:
    """Fill shards in order, each of at most ``limit_bytes`` unless a single tensor is larger."""
    groups: list[list[tuple[str, TensorSpec]]] = []
    filled_bytes = named_bytes = 0
    for name, spec in tensors:
        name_bytes = len(name.encode()) + _ENTRY_BYTES
        entry_bytes = spec.size_bytes + name_bytes
        if not groups or filled_bytes + entry_bytes > limit_bytes or named_bytes + name_bytes > _NAMED_LIMIT_BYTES:
            groups.append([])
            filled_bytes = 2 * _ENTRY_BYTES + PAGE_BYTES  # the header ends at a page boundary
            named_bytes = 0
        groups[-1].append((name, spec))
        filled_bytes += entry_bytes
        named_bytes += name_bytes
    return tuple(
        _make_shard(
            group, "model.safetensors" if len(groups) == 1 else f"model-{index:05d}-of-{len(groups):05d}.safetensors"
        )
        for index, group in enumerate(groups, 1)
    )


def _make_shard(group: Sequence[tuple[str, TensorSpec]], file_name: str) -> Shard:
    # Wide types first keeps every tensor aligned to its own width, as readers that map files expect.
    ordered = sorted(group, key=lambda entry: -entry[1].dtype.itemsize)
    entries = [(name, spec.dtype, spec.shape) for name, spec in ordered]
    header, offsets_bytes = encode_header(entries, METADATA, alignment_bytes=PAGE_BYTES)
    data_bytes = sum(spec.size_bytes for _, spec in group)
    return Shard(file_name, header, offsets_bytes, len(header) + data_bytes)


def index_of(shards: Sequence[Shard]) -> dict[str, object]:
    """The content of the index file."""
    return {
        "metadata": {"total_size": sum(shard.data_bytes for shard in shards)},
        "weight_map": {name: shard.file_name for shard in shards for name in shard.offsets_bytes},
    }


class _OpenShard:
    """A shard under way and the bytes of it that are still to come."""

    def __init__(self, shard: Shard, folder: Path) -> None:
        self.shard = shard
        self.final = folder / shard.file_name
        self.partial = folder / (shard.file_name + PARTIAL_SUFFIX)
        self.missing_bytes = shard.data_bytes
        self.lock = threading.Lock()
        # Nobody reads the output while it is written: it need not push the inputs out of the page cache.
        self.file = PositionedFile(str(self.partial), "create", direct=True)
        self.file.resize(shard.size_bytes)
        self.file.write_from(0, memoryview(shard.header))

    def publish(self) -> None:
        """Wait until the bytes are on disk and give the shard its name."""
        self.file.sync()
        self.file.close()
        self.partial.replace(self.final)


class ShardWriter:
    """Writes ranges of tensors into their shards; see engine.model.TensorWriter. Use it in a ``with`` block.

    A shard is synced and renamed in the background as soon as its last byte is written; ``finish`` waits for
    that. Leaving the block without it closes the files and leaves the partial shards where they are.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard], sources: FilePool) -> None:
        self._folder, self._shards, self._sources = folder, shards, sources
        self._open: list[_OpenShard] = []
        self._place: dict[str, tuple[_OpenShard, int]] = {}
        self._published: list[Future[None]] = []
        self._publisher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="plait-publish")
        self.bytes_written = 0

    def __enter__(self) -> ShardWriter:
        for shard in self._shards:
            opened = _OpenShard(shard, self._folder)
            self._open.append(opened)
            self._place.update((name, (opened, offset)) for name, offset in shard.offsets_bytes.items())
            self.bytes_written += len(shard.header)
            if opened.missing_bytes == 0:
                self._published.append(self._publisher.submit(opened.publish))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._publisher.shutdown(wait=True)
        for opened in self._open:
            opened.file.close()

    def write_from(self, name: str, offset_bytes: int, data: torch.Tensor) -> None:
        """Put a tile's bytes in place. Raises OutputError."""
        opened, start_bytes = self._place[name]
        opened.file.write_from(start_bytes + offset_bytes, data.numpy().data)
        self._count(opened, data.numel())

    def copy_from(self, name: str, offset_bytes: int, tensor: StoredTensor, size_bytes: int) -> bool:
        """Have the kernel copy a range; False where it cannot.

        It copies through the page cache. Inputs too large for that are moved past it by the caller, which is
        several times faster than having the cache read, filled and evicted.
        """
        if self._sources.direct:
            return False
        opened, start_bytes = self._place[name]
        with self._sources.use(tensor.file) as source:
            source_offset_bytes = tensor.offset_bytes + offset_bytes
            copied = opened.file.copy_range(source, source_offset_bytes, start_bytes + offset_bytes, size_bytes)
        if copied < size_bytes:
            return False
        self._count(opened, size_bytes)
        return True

    def finish(self) -> None:
        """Wait until every shard has its name. Raises OutputError if one could not be written."""
        for published in self._published:
            published.result()
        unfinished = [opened.shard.file_name for opened in self._open if opened.missing_bytes]
        if unfinished:
            raise AssertionError(f"not every tensor of {unfinished[0]} was written")

    def _count(self, opened: _OpenShard, written_bytes: int) -> None:
        if written_bytes == 0:  # of an empty tensor; its shard may be complete and have its name already
            return
        with opened.lock:
            opened.missing_bytes -= written_bytes
            complete = opened.missing_bytes == 0
            self.bytes_written += written_bytes
        if complete:
            self._published.append(self._publisher.submit(opened.publish))
