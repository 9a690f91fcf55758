"""Headers: what the library reads we read alike, what it writes too; whatever else a file holds is an InputError."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plait.engine.errors import InputError
from plait.loaders.safetensors_file import DTYPE_NAMES, DTYPES, Header, encode_header, parse_header, read_header
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from pathlib import Path

TENSORS = {
    "embed.weight": torch.arange(12, dtype=torch.bfloat16).reshape(4, 3),
    "scalar": torch.tensor(7, dtype=torch.int64),
    "empty": torch.zeros(0, 5, dtype=torch.float16),
    "mask": torch.tensor([True, False, True]),
    "größe": torch.linspace(0, 1, 5, dtype=torch.float64),
}


def file_bytes(fields: object, data_bytes: int = 0) -> bytes:
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data_bytes)


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def parse(data: bytes) -> Header:
    return parse_header(data, len(data), "file")


VALID = file_bytes(
    {
        "__metadata__": {"format": "pt"},
        "a": entry(),
        "b.weight": entry("BF16", (2, 3), (8, 20)),
        "c": entry("U8", [], (20, 21)),
    },
    21,
)


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt", "note": "ü"})
    header = read_header(path)
    content = path.read_bytes()
    assert header.metadata == {"format": "pt", "note": "ü"}
    assert header.file_bytes == len(content)
    assert header.sha256 == hashlib.sha256(content[: header.header_bytes]).hexdigest()
    assert set(header.entries) == set(TENSORS)
    for name, tensor in TENSORS.items():
        found = header.entries[name]
        assert (found.dtype, found.shape, found.size_bytes) == (tensor.dtype, tuple(tensor.shape), tensor.nbytes)
        data = content[found.offset_bytes : found.offset_bytes + found.size_bytes]
        assert data == raw(tensor)
    offsets = [found.offset_bytes for found in header.entries.values()]
    assert offsets == sorted(offsets)


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    header, offsets = encode_header(
        [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()], {"format": "pt"}
    )
    assert len(header) % 8 == 0
    assert list(offsets) == list(TENSORS)
    assert next(iter(offsets.values())) == len(header)
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(header)
        for name, tensor in TENSORS.items():
            assert file.tell() == offsets[name]
            file.write(raw(tensor))
    loaded = load_file(path)
    assert set(loaded) == set(TENSORS)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_dtype_names_are_the_librarys(name: str, tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    try:
        save_file({"x": torch.zeros(2, 3).to(DTYPES[name])}, path)
    except (KeyError, SafetensorError):
        pytest.skip(f"this safetensors does not write {name}")
    assert f'"dtype":"{name}"'.encode() in path.read_bytes()
    assert read_header(path).entries["x"].dtype == DTYPES[name]
    assert DTYPE_NAMES[DTYPES[name]] == name


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([("a", torch.float32, (1,)), ("a", torch.float32, (1,))], "'a'"),
        ([("__metadata__", torch.float32, (1,))], "__metadata__"),
        ([("a", torch.complex128, (1,))], "complex128"),
    ],
)
def test_a_header_that_cannot_be_is_not_written(
    entries: list[tuple[str, torch.dtype, tuple[int, ...]]], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        encode_header(entries)


WRONG = {
    "dtype unknown": (file_bytes({"bad": entry("F33")}, 8), "tensor 'bad': dtype 'F33' is unknown"),
    "dtype no text": (file_bytes({"bad": entry(["F32"])}, 8), "'bad'"),
    "shape negative": (file_bytes({"bad": entry(shape=[-2])}, 8), "-2"),
    "shape fraction": (file_bytes({"bad": entry(shape=[2.0])}, 8), "'bad': its shape"),
    "shape boolean": (file_bytes({"bad": entry(shape=[True, 2])}, 8), "'bad': its shape"),
    "shape no list": (file_bytes({"bad": entry(shape=2)}, 8), "'bad': its shape"),
    "shape huge": (file_bytes({"bad": entry(shape=[2**62, 2**62])}, 8), "'bad': its shape has too many"),
    "shape huge and empty": (file_bytes({"bad": entry(shape=[2**62, 2**62, 0], offsets=(0, 0))}), "too many"),
    "shape of absurd digits": (file_bytes(b'{"bad": ' + b"9" * 5000 + b"}"), "where a size or an offset belongs"),
    "shape other than data": (file_bytes({"bad": entry(shape=[3])}, 8), "'bad': [3] of F32 takes 12 bytes"),
    "offsets one": (file_bytes({"bad": entry(offsets=[8])}, 8), "data_offsets"),
    "offsets backwards": (file_bytes({"bad": entry(offsets=[8, 0])}, 8), "'bad': its data at 8 to 0"),
    "offsets outside": (file_bytes({"bad": entry(offsets=[8, 16])}, 8), "'bad': its data at 8 to 16 lies outside"),
    "no dtype": (
        file_bytes({"bad": {"shape": [2], "data_offsets": [0, 8]}}, 8),
        "'bad': its header entry has no dtype",
    ),
    "entry no object": (file_bytes({"bad": [1]}, 8), "'bad': its header entry is not an object"),
    "hole at the start": (file_bytes({"bad": entry(offsets=[8, 16])}, 16), "'bad': its data leaves a hole"),
    "hole": (file_bytes({"a": entry(), "bad": entry(offsets=[12, 20])}, 20), "'bad': its data leaves a hole"),
    "overlap": (file_bytes({"a": entry(), "bad": entry(offsets=[4, 12])}, 12), "'bad': its data overlaps"),
    "the same data": (file_bytes({"a": entry(), "bad": entry()}, 8), "'bad': its data overlaps"),
    "bytes behind": (file_bytes({"a": entry()}, 9), "its header describes"),
    "bytes missing": (file_bytes({"bad": entry()}, 7), "'bad': its data at 0 to 8 lies outside"),
    "metadata no map": (file_bytes({"__metadata__": ["pt"]}), "__metadata__"),
    "metadata no text": (file_bytes({"__metadata__": {"format": {"a": "b"}}}), "__metadata__"),
    "name twice": (file_bytes(b'{"bad":{"dtype":"U8"},"bad":{"dtype":"U8"}}'), "'bad' twice"),
    "key twice": (file_bytes(b'{"a":{"dtype":"U8","shape":[],"shape":[1],"data_offsets":[0,1]}}', 1), "'shape' twice"),
    "name with line break": (file_bytes({"a\nb": entry("F33")}, 8), r"'a\nb'"),
    "name half a character": (file_bytes({"\ud800": entry()}, 8), "not valid Unicode"),
    "not JSON": (file_bytes(b'{"a": }'), "not JSON"),
    "not a number": (file_bytes(b'{"a": NaN}'), "NaN"),
    "not UTF-8": (file_bytes(b'{"\xff": 1}'), "not UTF-8"),
    "not an object": (file_bytes(b"[]      "), "does not start with"),
    "padding before": (file_bytes(b" {}"), "does not start with"),
    "nested without end": (file_bytes(b'{"a":' + b"[" * 100_000), "nested too deeply"),
    "header above the limit": (struct.pack("<Q", 100_000_001) + bytes(100), "100000001 bytes"),
    "header longer than the file": (struct.pack("<Q", 60) + b"{}", "ends inside its header"),
    "negative length": (b"\xff" * 8, "not a safetensors file"),
    "short": (b"1234567", "too few"),
    "empty": (b"", "too few"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_an_input_error_of_one_line(case: str, tmp_path: Path) -> None:
    data, problem = WRONG[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_header(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert problem in message
    assert "\n" not in message
    assert len(message) < 600 + len(str(path))
    # The format's own text forbids these, and the library lets them through.
    if case not in ("name twice", "key twice", "padding before"):
        with pytest.raises(SafetensorError):
            deserialize(data)


def test_unreadable_paths_are_input_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.safetensors"):
        with pytest.raises(InputError, match="cannot be read"):
            read_header(path)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"__metadata__": None, "a": entry()},
        {"a": {**entry(), "more": [1]}},
        {"b": entry(offsets=[8, 16]), "a": entry()},
    ],
    ids=["no tensors", "no metadata", "a key of the future", "another order"],
)
def test_what_the_library_accepts_besides(fields: dict[str, dict[str, object]]) -> None:
    data = file_bytes(fields, 8 * sum(name != "__metadata__" for name in fields))
    assert {name for name, _ in deserialize(data)} == set(parse(data).entries)


@pytest.mark.parametrize("length", range(len(VALID)))
def test_a_file_cut_off_anywhere_is_refused(length: int) -> None:
    with pytest.raises(InputError):
        parse(VALID[:length])


def agrees_with_the_library(data: bytes) -> None:
    """Either an InputError, or exactly what the library finds."""
    try:
        header = parse(data)
    except InputError:
        return
    found = dict(deserialize(data))
    assert set(found) == set(header.entries)
    for name, ours in header.entries.items():
        theirs = found[name]
        assert theirs["shape"] == list(ours.shape)
        assert theirs["dtype"] == DTYPE_NAMES[ours.dtype]
        assert bytes(theirs["data"]) == data[ours.offset_bytes : ours.offset_bytes + ours.size_bytes]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(VALID) - 22), st.integers(0, 255)), min_size=1, max_size=3))
def test_flipped_bytes_never_get_through_unnoticed(flips: list[tuple[int, int]]) -> None:
    data = bytearray(VALID)
    for place, value in flips:
        data[place] = value
    agrees_with_the_library(bytes(data))


_NUMBERS = st.one_of(st.integers(-1, 24), st.sampled_from([2**31, 2**63, 2**64, 1.0, True, None, "8"]))
_ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F32", "BF16", "F8_E4M3", "F4", "f32", None]),
        "shape": st.lists(_NUMBERS, max_size=3),
        "data_offsets": st.lists(_NUMBERS, min_size=2, max_size=2),
    }
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["a", "b.c", "__metadata__", ""]), _ENTRIES, max_size=3), st.integers(0, 24))
def test_lying_headers_never_get_through_unnoticed(fields: dict[str, object], data_bytes: int) -> None:
    agrees_with_the_library(file_bytes(fields, data_bytes))


_COMMON = [DTYPES[name] for name in ("BOOL", "U8", "I16", "BF16", "F16", "I32", "F32", "I64", "F64", "F8_E4M3")]


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=8).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(st.sampled_from(_COMMON), st.lists(st.integers(0, 3), max_size=3).map(tuple)),
        max_size=5,
    )
)
def test_what_we_write_we_read(tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
    header, offsets = encode_header([(name, dtype, shape) for name, (dtype, shape) in tensors.items()])
    sizes = {name: torch.Size(shape).numel() * dtype.itemsize for name, (dtype, shape) in tensors.items()}
    read = parse(header + bytes(sum(sizes.values())))
    assert {name: (found.dtype, found.shape) for name, found in read.entries.items()} == tensors
    assert {name: found.offset_bytes for name, found in read.entries.items()} == offsets
    agrees_with_the_library(header + bytes(sum(sizes.values())))
