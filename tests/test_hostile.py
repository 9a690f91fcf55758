"""Weight files that an enemy or a broken disk wrote: refused in one line, or merged as an independent reader has them.

What each single mistake in a header is called is in test_safetensors_file.py; here whole merges run over such files.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from random import Random
from typing import TYPE_CHECKING

import pytest
import torch
from hostile_support import VICTIM, World, entry, file_of, header_end, read_independently, short, spliced
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from merge_support import peak_bytes
from merge_support import plait as in_a_process
from plait.engine.graph import TensorSpec
from plait.loaders.writer import plan_shards

if TYPE_CHECKING:
    from pathlib import Path

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("hostile"))


def test_without_corruption_all_is_well(world: World) -> None:
    assert world.agrees(world.proper)
    assert world.averages(world.proper)


# ------------------------------------------------------------------------------------------------ corruption


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF, *(pytest.param(1 << bit, marks=SLOW) for bit in range(1, 7))])
def test_every_byte_of_a_header_flipped(world: World, flip: int) -> None:
    merged = 0
    for place in range(header_end(world.proper)):
        data = bytearray(world.proper)
        data[place] ^= flip
        merged += world.agrees(bytes(data))
    # A flipped letter in a name or in the metadata is still a header; whatever else it hits is noticed.
    free = sum(map(len, VICTIM)) + len("__metadata__formatpt")
    assert merged <= free if flip < 0x80 else merged == 0


def test_a_file_cut_off_anywhere(world: World) -> None:
    end = header_end(world.proper)
    assert not any(world.agrees(world.proper[:length]) for length in range(end + 1))
    assert not any(world.agrees(world.proper[:length]) for length in range(end, len(world.proper), 5))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=SLOW) for seed in range(1, 21))])
def test_random_splices(world: World, seed: int) -> None:
    random = Random(seed)
    merged = sum(world.agrees(spliced(world.proper, random)) for _ in range(300))
    assert 0 < merged < 200, "some are harmless, most are not"


@pytest.mark.parametrize("seed", [100, *(pytest.param(seed, marks=SLOW) for seed in range(101, 121))])
def test_random_splices_in_a_model_that_is_merged_with_another(world: World, seed: int) -> None:
    random = Random(seed)
    merged = sum(world.averages(spliced(world.proper, random)) for _ in range(150))
    assert 0 < merged < 100


def test_random_values_are_merged_or_named(world: World) -> None:
    random, end = Random(5), header_end(world.proper)
    merged = 0
    for _ in range(30):
        merged += world.averages(world.proper[:end] + random.randbytes(len(world.proper) - end))
    assert merged > 10


NUMBERS = st.one_of(st.integers(-1, 16), st.sampled_from([2**31, 2**32, 2**63, 2**64, 1.0, True, None, "8", []]))
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F32", "BF16", "I64", "F8_E4M3", "C64", "F4", "f32", "", None]),
        "shape": st.one_of(st.lists(NUMBERS, max_size=3), NUMBERS),
        "data_offsets": st.one_of(st.lists(NUMBERS, min_size=2, max_size=2), NUMBERS),
    },
    optional={"more": NUMBERS},
)
NAMES = st.one_of(
    st.sampled_from(["", ".", "..", "a", "0", ".0.", "layers.0.w", "layers.1.w", "layers.01.w", "layers.999999.w.w"]),
    st.sampled_from(["__metadata__", "../x", "/x", "a\0b", "\x1b[2J", "\x9b", "lm_head.weight", "embed.weight"]),
    st.text("ab.0129/\\\n\u2028\u202eü💥", max_size=12),
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=3_000)


def proper_file(layout: dict[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """A file that is as the format wants it, whatever its tensors are called."""
    fields, end = {}, 0
    for name, (dtype, shape) in layout.items():
        start, end = end, end + {"U8": 1, "BF16": 2, "F32": 4}[dtype] * int(shape[0] * shape[1])
        fields[name] = entry(shape, (start, end), dtype)
    return file_of(fields, bytes(range(256)) * (end // 256) + bytes(range(end % 256)))


LAYOUTS = st.dictionaries(
    NAMES.filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(["U8", "BF16", "F32"]), st.tuples(st.integers(0, 3), st.integers(0, 3))),
    min_size=1,
    max_size=6,
)
LIES = st.builds(file_of, st.dictionaries(NAMES, ENTRIES, max_size=3), st.binary(max_size=24))


@QUICK
@given(st.one_of(LAYOUTS.map(proper_file), LIES))
def test_headers_that_lie_and_names_of_any_kind(world: World, data: bytes) -> None:
    world.agrees(data)


@SLOW
@LONG
@given(st.one_of(LAYOUTS.map(proper_file), LIES))
def test_headers_that_lie_for_long(world: World, data: bytes) -> None:
    world.agrees(data)


# ------------------------------------------------------------------------------------------------ one by one

EIGHT = bytes(range(8))


def test_empty_tensors_wherever_they_stand(world: World) -> None:
    empty = entry([0, 5], (0, 0))
    assert world.agrees(file_of({"a": empty}))
    assert world.agrees(file_of({"a": empty, "b": entry(), "c": entry([3, 0], (8, 8)), "d": entry([0], (8, 8))}, EIGHT))


@pytest.mark.parametrize(
    "name",
    ["../../outside", "/etc/passwd", "..", ".", "a/b", "C:\\x", "~", "$(id)", "", "a b", "ü", "\u202e", "a" * 1000],
)
def test_a_name_is_only_a_name(world: World, name: str) -> None:
    assert world.agrees(file_of({name: entry()}, EIGHT))
    assert list(read_independently(file_of({name: entry()}, EIGHT)) or {}) == [name]


@pytest.mark.parametrize("name", ["a\0b", "\x1b]0;title\x07", "two\nlines", "\r", "\x7f", "\x9b2J"])
def test_a_name_that_does_things_to_terminals_is_refused(world: World, name: str) -> None:
    world.file.write_bytes(file_of({name: entry()}, EIGHT))
    world.refusal("model.safetensors", "control characters")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (struct.pack("<Q", 2**63) + b"{}", "header would be 9223372036854775808 bytes"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "header would be 18446744073709551615 bytes"),
        (file_of({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)), "'b': its data overlaps"),
        (file_of({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)), "'b': its data leaves a hole"),
        (file_of({"a": entry(offsets=(8, 16))}, bytes(8)), "'a': its data at 8 to 16 lies outside"),
        (file_of(b'{"a":' + json.dumps(entry()).encode() + b',"a":1}', EIGHT), "'a' twice"),
        (file_of({"a": entry(dtype="F31")}, EIGHT), "'a': dtype 'F31' is unknown"),
        (file_of({"a": entry(shape=[2**33, 2**33])}, EIGHT), "'a': its shape has too many elements"),
        (file_of({"a": entry(shape=[2**32, 2**32, 2])}, EIGHT), "'a': its shape has too many elements"),
        (file_of({"a": entry(shape=[1] * 10_000 + [2])}, EIGHT), "'a': its shape has 10001 dimensions"),
        (file_of({"a" * 1001: entry()}, EIGHT), "the name is far too long"),
        (file_of({"a": entry(dtype=[{"b": "\x1b"}] * 1000)}, EIGHT), "is unknown"),
        (file_of(b'{"a":' * 10_000 + b"1" + b"}" * 10_000), "nested too deeply"),
    ],
    ids=short,
)
def test_a_header_that_lies_is_refused_with_file_and_tensor(world: World, data: bytes, problem: str) -> None:
    world.file.write_bytes(data)
    world.refusal(f"{world.file}: ", problem)
    assert not world.out.exists()


def test_a_tensor_larger_than_the_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    # The file is as it says, and a hole.
    world = World(tmp_path)
    size_bytes = 1 << 43
    world.file.write_bytes(file_of({"a": entry([size_bytes], (0, size_bytes), "U8")}))
    try:
        os.truncate(world.file, world.file.stat().st_size + size_bytes)
    except OSError:
        pytest.skip("this file system has no files of that size")
    outcome = world.merge()
    assert isinstance(outcome, Exception)
    assert "disk" in str(outcome)
    assert not list(world.out.glob("*.safetensors*"))


def test_headers_that_are_written_are_short_enough_to_be_read() -> None:
    names = [f"{number:07}" + '"' * 900 for number in range(30_000)]
    shards = plan_shards(((name, TensorSpec((), torch.uint8)) for name in names), 1 << 40)
    assert len(shards) > 1
    assert [name for shard in shards for name in shard.offsets_bytes] == names
    assert max(len(shard.header) for shard in shards) <= LARGEST


LARGEST = 100_000_000
LARGE = {
    "spaces": (b"{" + json.dumps({"a": entry()}).encode()[1:-1], b" ", b"}"),
    "lists": (b'{"a":[[]', b",[]", b"]}"),
    "objects": (b'{"a":[{}', b",{}", b"]}"),
    "numbers": (b'{"a":[0', b",0", b"]}"),
    "fractions": (b'{"a":[0', b",0.5", b"]}"),
    "a name": (b'{"', b"a", b'":{}}'),
    "names": (b'{"a":0', b',"":0', b"}"),
    "brackets": (b'{"a":', b"[", b"}"),
    "digits": (b'{"a":', b"9", b"}"),
    "escapes": (b'{"', b"\\u0041", b'":{}}'),
    "wide letters": (b'{"', "💥".encode(), b'":{}}'),
}


@pytest.mark.parametrize("case", [*list(LARGE)[:2], *(pytest.param(case, marks=SLOW) for case in list(LARGE)[2:])])
def test_a_header_of_a_hundred_megabytes_is_bounded_in_memory_and_time(tmp_path: Path, case: str) -> None:
    world = World(tmp_path)
    first, middle, last = LARGE[case]
    text = first + middle * ((LARGEST - len(first) - len(last)) // len(middle)) + last
    world.file.write_bytes(file_of(text + b" " * (LARGEST - len(text)), EIGHT if case == "spaces" else b""))
    linux = sys.platform == "linux"
    finished = in_a_process("inspect", "victim", "--json", cwd=tmp_path, measured=linux)
    assert "Traceback" not in finished.stderr
    assert finished.returncode == (0 if case == "spaces" else 3), finished.stderr
    if linux:
        assert peak_bytes(finished) < 2 << 30
