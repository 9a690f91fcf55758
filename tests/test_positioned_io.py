"""Positioned reads and writes: right bytes from many threads, with and without the platform's calls; clear errors."""

from __future__ import annotations

import errno
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from plait.engine.errors import InputError, OutputError
from plait.engine.graph import TensorSpec
from plait.engine.model import StoredTensor
from plait.loaders import positioned_io
from plait.loaders.positioned_io import FilePool, PositionedFile

CONTENT = bytes(random.Random(0).randbytes(50_000))


@pytest.fixture(params=["positioned calls", "seek under a lock"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform's own calls, and a platform that has none of them."""
    if request.param == "seek under a lock":
        for call in ("preadv", "pwrite", "copy_file_range", "fdatasync"):
            monkeypatch.delattr(os, call, raising=False)


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "data.bin"
    path.write_bytes(CONTENT)
    return str(path)


def stored(path: str, offset_bytes: int, size_bytes: int) -> StoredTensor:
    return StoredTensor("model", "x.weight", TensorSpec((size_bytes,), torch.uint8), path, offset_bytes)


def read(file: PositionedFile, offset_bytes: int, size_bytes: int) -> bytes:
    buffer = bytearray(size_bytes)
    file.read_into(offset_bytes, memoryview(buffer))
    return bytes(buffer)


@pytest.mark.usefixtures("platform")
def test_reads_a_range_from_many_threads(path: str) -> None:
    with PositionedFile(path) as file, ThreadPoolExecutor(8) as threads:
        assert file.size_bytes == len(CONTENT)
        places = [(random.Random(i).randrange(len(CONTENT)), random.Random(-i).randrange(3000)) for i in range(400)]
        places = [(start, min(size, len(CONTENT) - start)) for start, size in places]
        found = list(threads.map(lambda place: read(file, *place), places))
    assert found == [CONTENT[start : start + size] for start, size in places]


@pytest.mark.usefixtures("platform")
def test_a_large_read_or_write_is_made_of_several_calls(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positioned_io, "CALL_LIMIT_BYTES", 777)
    with PositionedFile(path) as file, PositionedFile(path + ".copy", "create") as copy:
        assert read(file, 1, len(CONTENT) - 1) == CONTENT[1:]
        copy.write_from(0, memoryview(CONTENT))
    assert Path(path + ".copy").read_bytes() == CONTENT


@pytest.mark.usefixtures("platform")
def test_writes_of_many_threads_land_in_their_places(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    with PositionedFile(str(path), "create") as file, ThreadPoolExecutor(8) as threads:
        file.resize(len(CONTENT))
        pieces = list(range(0, len(CONTENT), 1000))
        random.Random(1).shuffle(pieces)
        list(threads.map(lambda at: file.write_from(at, memoryview(CONTENT)[at : at + 1000]), pieces))
        file.sync()
    assert path.read_bytes() == CONTENT
    with PositionedFile(str(path), "update") as file:
        file.write_from(10, memoryview(b"new"))
        assert read(file, 8, 7) == CONTENT[8:10] + b"new" + CONTENT[13:15]


@pytest.mark.usefixtures("platform")
def test_a_file_that_ends_early_is_named(path: str) -> None:
    with PositionedFile(path) as file:
        with pytest.raises(InputError, match=r"data\.bin: the file ends early.* at byte 50000, 10 bytes missing"):
            read(file, len(CONTENT) - 90, 100)
        with pytest.raises(InputError, match="ends early"):
            read(file, 10**9, 1)
        assert read(file, len(CONTENT), 0) == b""


@pytest.mark.usefixtures("platform")
def test_inputs_are_opened_read_only(path: str) -> None:
    with PositionedFile(path) as file, pytest.raises((InputError, OSError)):
        file.write_from(0, memoryview(b"x"))
    assert Path(path).read_bytes() == CONTENT


def test_unusable_paths_are_errors_of_their_side(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent: cannot be opened"):
        PositionedFile(str(tmp_path / "absent"))
    with pytest.raises(OutputError, match=r"out: cannot be opened"):
        PositionedFile(str(tmp_path / "no" / "out"), "create")
    with pytest.raises(OutputError, match=r"absent: cannot be opened"):
        PositionedFile(str(tmp_path / "absent"), "update")
    assert not (tmp_path / "absent").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_output_error() -> None:
    with PositionedFile("/dev/full", "update") as file, pytest.raises(OutputError, match=r"/dev/full: .* space"):
        file.write_from(0, memoryview(b"x"))


def test_wide_elements_are_counted_in_bytes(path: str) -> None:
    numbers = torch.zeros(100, dtype=torch.int64)
    with PositionedFile(path) as file:
        file.read_into(16, numbers.numpy().data)
    assert numbers.numpy().tobytes() == CONTENT[16:816]


@pytest.mark.usefixtures("platform")
def test_copying_ranges_moves_all_or_says_how_much(path: str, tmp_path: Path) -> None:
    with PositionedFile(path) as source, PositionedFile(str(tmp_path / "out"), "create") as target:
        target.resize(60_000)
        copied = target.copy_range(source, 100, 2000, 40_000)
        assert 0 <= copied <= 40_000
        assert read(target, 2000, copied) == CONTENT[100 : 100 + copied]
        assert not any(read(target, 0, 2000))
        # The caller moves what is left, as executors do.
        target.write_from(2000 + copied, memoryview(CONTENT)[100 + copied : 40_100])
        assert read(target, 2000, 40_000) == CONTENT[100:40_100]
        assert target.copy_range(source, len(CONTENT) - 5, 0, 50) <= 5


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="the platform cannot copy ranges")
@pytest.mark.parametrize("code", ["EXDEV", "ENOSYS", "EINVAL", "EOPNOTSUPP", "EPERM", "EBADF", "EIO"])
def test_a_copy_that_the_kernel_refuses_half_way_is_no_error(
    code: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = os.copy_file_range
    calls = []

    def refusing(source: int, target: int, count: int, source_offset: int, offset: int) -> int:
        calls.append(count)
        if len(calls) > 2:
            raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))
        return kernel(source, target, min(count, 1000), source_offset, offset)

    monkeypatch.setattr(os, "copy_file_range", refusing)
    with PositionedFile(path) as source, PositionedFile(str(tmp_path / "out"), "create") as target:
        copied = target.copy_range(source, 0, 0, 5000)
        assert copied in (0, 2000)
        assert read(target, 0, copied) == CONTENT[:copied]


@pytest.mark.usefixtures("platform")
def test_a_pool_reads_tensors(path: str) -> None:
    out = torch.zeros(50, dtype=torch.uint8)
    with FilePool() as pool:
        pool.read_into(stored(path, 1000, 100), 50, out)
        assert bytes(out.tolist()) == CONTENT[1050:1100]
        view = torch.zeros(100, dtype=torch.uint8)[20:30]
        pool.read_into(stored(path, 1000, 100), 0, view)
        assert bytes(view.tolist()) == CONTENT[1000:1010]
        pool.read_into(stored(path, 1000, 100), 100, out[:0])
        for offset_bytes in (51, -1):
            with pytest.raises(ValueError, match=r"outside x\.weight"):
                pool.read_into(stored(path, 1000, 100), offset_bytes, out)


def test_a_pool_holds_no_more_files_than_its_limit(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.bin" for index in range(12)]
    for index, shard in enumerate(paths):
        shard.write_bytes(bytes([index]) * 10)
    most = 0
    with FilePool(limit=3) as pool:
        for _ in range(2):
            for index, shard in enumerate(paths):
                with pool.use(str(shard)) as file:
                    assert read(file, 0, 10) == bytes([index]) * 10
                most = max(most, pool.open_files)
        with pool.use(str(paths[-1])) as again:
            assert again is file  # still open: the files used last stay
    assert most == 3
    assert pool.open_files == 0


def test_the_file_used_longest_ago_is_closed_first(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{index}.bin") for index in range(3)]
    for shard in paths:
        Path(shard).write_bytes(CONTENT)
    with FilePool(limit=2) as pool:
        used = []
        for index in (0, 1, 0, 2, 0, 1):
            with pool.use(paths[index]) as file:
                used.append(file)
    assert used[0] is used[2] is used[4]
    assert used[1] is not used[5]


def test_a_pool_never_closes_a_file_in_use(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{index}.bin") for index in range(6)]
    for shard in paths:
        Path(shard).write_bytes(CONTENT)
    with FilePool(limit=2) as pool:
        with pool.use(paths[0]) as first, pool.use(paths[1]), pool.use(paths[2]):
            for shard in paths[3:]:
                with pool.use(shard) as file:
                    read(file, 0, 10)
            assert read(first, 0, 10) == CONTENT[:10]
            with pool.use(paths[0]) as same:
                assert same is first
        assert pool.open_files <= 2


def test_a_pool_under_many_threads(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{index}.bin") for index in range(9)]
    for index, shard in enumerate(paths):
        Path(shard).write_bytes(bytes([index]) * 1000)
    start = threading.Barrier(8)

    def work(seed: int) -> bool:
        choose = random.Random(seed)
        out = torch.empty(100, dtype=torch.uint8)
        start.wait()
        right = True
        for _ in range(300):
            index = choose.randrange(9)
            pool.read_into(stored(paths[index], 0, 1000), choose.randrange(900), out)
            right = right and bool((out == index).all())
        return right

    with FilePool(limit=2) as pool, ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))
        assert pool.open_files <= 2


def test_a_file_that_changed_since_its_header_was_read_is_refused(path: str) -> None:
    with FilePool(expected_bytes={path: len(CONTENT) + 1}) as pool:
        with pytest.raises(InputError, match=r"data\.bin: the file changed"), pool.use(path):
            pass
        assert pool.open_files == 0
    with FilePool(expected_bytes={path: len(CONTENT)}) as pool, pool.use(path):
        pass


def test_a_closed_pool_opens_nothing(path: str) -> None:
    with FilePool() as pool:
        pass
    with pytest.raises(ValueError, match="closed"), pool.use(path):
        pass


def test_errors_of_the_disk_name_file_and_place(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for call in ("preadv", "pwrite", "fdatasync", "fsync"):
        monkeypatch.setattr(os, call, broken, raising=False)
    with PositionedFile(path) as file, pytest.raises(InputError, match=r"data\.bin: cannot be read at byte 5: "):
        read(file, 5, 1)
    with PositionedFile(path, "update") as file:
        with pytest.raises(OutputError, match=r"data\.bin: cannot be written at byte 5: "):
            file.write_from(5, memoryview(b"x"))
        with pytest.raises(OutputError, match=r"data\.bin: cannot be written to disk: "):
            file.sync()
