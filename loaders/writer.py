"""The output's shards: laid out before the first byte is computed, written in place, renamed when on disk.

All shapes are known, so every header is written first and a tensor's bytes have a place from the start; no shard
is ever held in memory. A shard is called ``….partial`` until its bytes are on disk: a file of full size with a
valid header and holes in it would load as zeros.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..engine.errors import OutputError
from .direct_io import PAGE_BYTES
from .durable import sync_folder
from .positioned_io import FilePool, PositionedFile
from .safetensors_file import HEADER_LIMIT_BYTES, encode_header
from .shards import PARTIAL_SUFFIX, Shard, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    import torch

    from ..engine.graph import TensorSpec
    from ..engine.model import StoredTensor
    from .shards import ShardState

INDEX_FILE = "model.safetensors.index.json"
METADATA = {"format": "pt"}

_ENTRY_BYTES = 120
"""What a tensor's entry takes in a header besides its name, at most: dtype, shape, two offsets, punctuation."""

_NAMED_LIMIT_BYTES = HEADER_LIMIT_BYTES // 4
"""Names and entries that a header holds at most: readers refuse longer ones, and some letters are escaped there."""


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
    """A shard under way and the bytes of it that are still to come.

    ``state`` is what an earlier run left of it. A whole one takes no more bytes.
    """

    def __init__(self, shard: Shard, folder: Path, state: ShardState) -> None:
        self.shard = shard
        self.final = folder / shard.file_name
        self.partial = folder / (shard.file_name + PARTIAL_SUFFIX)
        self.missing_bytes = 0 if state == "whole" else shard.data_bytes
        self.lock = threading.Lock()
        self.published = self.named = state == "whole"
        self._naming = threading.Lock()
        self._lost: OutputError | None = None
        if self.named:
            return
        # Nobody reads the output while it is written: it need not push the inputs out of the page cache.
        self.file = PositionedFile(str(self.partial), "update" if state == "partial" else "create", direct=True)
        if state != "partial":
            self.file.resize(shard.size_bytes)
            self.file.write_from(0, memoryview(shard.header))

    def sync(self) -> None:
        """Return when the bytes written so far are on disk."""
        with self._naming:
            if not self.named:
                self._flush()

    def read_back(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Bytes of the file, through a handle of its own. Raises OutputError."""
        with self._naming:
            return read_bytes(self.final if self.named else self.partial, offset_bytes, size_bytes)

    def publish(self) -> None:
        """Wait until the bytes are on disk and give the shard its name."""
        with self._naming:
            self._flush()
            self.file.close()
            try:
                self.partial.replace(self.final)
            except OSError as error:
                raise OutputError(f"{self.partial} cannot be renamed: {error.strerror}") from error
            self.named = True

    def _flush(self) -> None:
        # The system tells of lost writes only once, and then they are as good as never made.
        if self._lost is None:
            try:
                self.file.sync()
            except OutputError as error:
                self._lost = error
        if self._lost is not None:
            raise self._lost

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if not self.named:
            self.file.close()


class ShardWriter:
    """Writes ranges of tensors into their shards; see engine.model.DurableWriter. Use it in a ``with`` block.

    A shard is synced and renamed in the background as soon as its last byte is written; ``finish`` waits for
    that. Leaving the block without it closes the files and leaves the partial shards where they are. ``states`` has,
    by name, what an earlier run left of shards; `keep` then says what of their tensors need not be written.
    """

    def __init__(
        self,
        folder: Path,
        shards: Sequence[Shard],
        sources: FilePool,
        states: Mapping[str, ShardState] | None = None,
    ) -> None:
        self._folder, self._shards, self._sources, self._states = folder, shards, sources, states or {}
        self._open: list[_OpenShard] = []
        self._place: dict[str, tuple[_OpenShard, int]] = {}
        self._published: list[Future[None]] = []
        self._publisher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="plait-publish")
        self.bytes_written = 0

    def __enter__(self) -> ShardWriter:
        for shard in self._shards:
            opened = _OpenShard(shard, self._folder, self._states.get(shard.file_name, "missing"))
            self._open.append(opened)
            self._place.update((name, (opened, offset)) for name, offset in shard.offsets_bytes.items())
            self.bytes_written += 0 if opened.named else len(shard.header)
            self._publish_if_complete(opened)
        # Their names have to survive what their bytes survive.
        sync_folder(self._folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._publisher.shutdown(wait=True)
        for opened in self._open:
            opened.close()

    def keep(self, kept_bytes: Mapping[str, int]) -> None:
        """So many bytes of these tensors are in place and will not come again; before anything is written."""
        for name, size_bytes in kept_bytes.items():
            opened, _ = self._place[name]
            if not opened.named:
                opened.missing_bytes -= size_bytes
                self._publish_if_complete(opened)

    def write_from(self, name: str, offset_bytes: int, data: torch.Tensor) -> None:
        """Put a tile's bytes in place. Raises OutputError."""
        opened, start_bytes = self._place[name]
        if opened.published:  # by an earlier run; the tensor goes to another shard, too
            return
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
        if opened.published:
            return True
        with self._sources.use(tensor.file) as source:
            source_offset_bytes = tensor.offset_bytes + offset_bytes
            copied = opened.file.copy_range(source, source_offset_bytes, start_bytes + offset_bytes, size_bytes)
        if copied < size_bytes:
            return False
        self._count(opened, size_bytes)
        return True

    def sync(self, names: Iterable[str]) -> None:
        """See engine.model.DurableWriter."""
        for opened in {id(shard): shard for shard, _ in map(self._place.__getitem__, names)}.values():
            opened.sync()

    def read_back(self, name: str, offset_bytes: int, size_bytes: int) -> bytes:
        """See engine.model.DurableWriter."""
        opened, start_bytes = self._place[name]
        return opened.read_back(start_bytes + offset_bytes, size_bytes)

    def finish(self) -> None:
        """Wait until every shard has its name, for good. Raises OutputError if one could not be written."""
        for published in self._published:
            published.result()
        unfinished = [opened.shard.file_name for opened in self._open if opened.missing_bytes]
        if unfinished:
            raise AssertionError(f"not every tensor of {unfinished[0]} was written")
        sync_folder(self._folder)

    def _count(self, opened: _OpenShard, written_bytes: int) -> None:
        if written_bytes == 0:  # of an empty tensor; its shard may be complete and have its name already
            return
        with opened.lock:
            opened.missing_bytes -= written_bytes
            self.bytes_written += written_bytes
            self._publish_if_complete(opened)

    def _publish_if_complete(self, opened: _OpenShard) -> None:
        """Hand a shard that has all its bytes to the publisher, once."""
        if opened.missing_bytes == 0 and not opened.published:
            opened.published = True
            self._published.append(self._publisher.submit(opened.publish))
