"""The safetensors file format: headers in, checked as if an enemy wrote them, and headers out.

A file is an 8-byte little-endian length, a JSON object of that length, and the tensors' bytes without holes.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import dataclass
from sys import intern
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import torch

from ..engine.errors import InputError
from ..engine.units import align_up
from .input_files import open_input

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LENGTH_BYTES = 8
HEADER_LIMIT_BYTES = 100_000_000
"""The longest JSON that readers of the format accept."""

HEADER_ALIGNMENT_BYTES = 8

_ELEMENTS_LIMIT = 1 << 63
_DIMENSIONS_LIMIT = 64
_LONG_HEADER_BYTES, _TERSEST_BYTES = 10_000_000, 12  # a tensor has four keys and takes 50; empty lists take gigabytes
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{0,1000}")
_LFS_POINTER = b"version "
_METADATA = "__metadata__"

_TORCH_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {name: getattr(torch, torch_name) for name, torch_name in _TORCH_NAMES.items() if hasattr(torch, torch_name)}
)
"""The format's dtype names and what torch calls them; those that this torch has."""

DTYPE_NAMES: Mapping[torch.dtype, str] = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})
"""The same, the other way round."""


class HeaderEntry(NamedTuple):
    """One tensor of a file: ``offset_bytes`` is counted from the start of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds. ``entries`` is in the order of the data.

    ``header_bytes`` counts the length prefix and the padding, so the data starts there; ``sha256`` is the
    digest of exactly these bytes.
    """

    entries: Mapping[str, HeaderEntry]
    metadata: Mapping[str, str]
    sha256: str
    header_bytes: int
    file_bytes: int


def read_header(path: str | Path) -> Header:
    """Read and check the header of a file; no tensor is read. Raises InputError."""
    where = str(path)
    with open_input(path) as file:
        try:
            file_bytes = file.seek(0, 2)
            file.seek(0)
            prefix = file.read(LENGTH_BYTES)
            data = file.read(_json_bytes(prefix, file_bytes, where))
        except OSError as error:
            raise InputError(f"{where}: cannot be read: {error.strerror or error}") from error
    return parse_header(prefix + data, file_bytes, where)


def header_size(prefix: bytes, file_bytes: int, where: str) -> int:
    """How many bytes the header takes, prefix included, from the first 8 bytes of a file. Raises InputError."""
    return LENGTH_BYTES + _json_bytes(prefix, file_bytes, where)


def parse_header(data: bytes, file_bytes: int, where: str) -> Header:
    """Check the first bytes of a file, prefix included; more than the header may be given.

    ``where`` names the file in messages. Raises InputError, one line that names file and tensor, if anything
    is not as the format says: lengths, JSON, names that repeat, dtypes, shapes, holes or overlaps in the data.
    """
    json_bytes = _json_bytes(data[:LENGTH_BYTES], file_bytes, where)
    header_bytes = LENGTH_BYTES + json_bytes
    if len(data) < header_bytes:
        raise InputError(f"{where}: the file ends inside its header")
    fields = _parse_json(data[LENGTH_BYTES:header_bytes], where)
    metadata = _metadata(fields.pop(_METADATA, None), where)
    data_bytes = file_bytes - header_bytes
    entries = [(name, *_entry(name, value, data_bytes, where)) for name, value in fields.items()]
    entries.sort(key=lambda entry: (entry[3], entry[4]))
    return Header(
        entries=_contiguous(entries, header_bytes, file_bytes, where),
        metadata=metadata,
        sha256=hashlib.sha256(memoryview(data)[:header_bytes]).hexdigest(),
        header_bytes=header_bytes,
        file_bytes=file_bytes,
    )


def encode_header(
    entries: Sequence[tuple[str, torch.dtype, tuple[int, ...]]],
    metadata: Mapping[str, str] | None = None,
    *,
    alignment_bytes: int = HEADER_ALIGNMENT_BYTES,
) -> tuple[bytes, dict[str, int]]:
    """Make the header of a file that holds ``entries`` (name, dtype, shape), their data in the order given.

    Returns the bytes that start the file, length prefix and padding included, and for each name the offset of
    its data in bytes from the start of the file. The header is padded so that the data starts at a multiple of
    ``alignment_bytes``, itself a multiple of 8. Raises ValueError for a name that repeats or is reserved, a
    dtype the format does not have, or a header above the limit.
    """
    fields: dict[str, object] = {_METADATA: dict(metadata)} if metadata else {}
    starts: dict[str, int] = {}
    end = 0
    for name, dtype, shape in entries:
        if name in fields or name == _METADATA:
            raise ValueError(f"tensor {name!r} is listed twice or has a reserved name")
        if dtype not in DTYPE_NAMES:
            raise ValueError(f"tensor {name!r}: safetensors has no name for {dtype}")
        start, end = end, end + _elements(shape) * dtype.itemsize
        fields[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        starts[name] = start
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (align_up(LENGTH_BYTES + len(text), alignment_bytes) - LENGTH_BYTES - len(text))
    if len(text) > HEADER_LIMIT_BYTES:
        raise ValueError(f"a header of {len(text)} bytes is above the format's limit; use more shards")
    header = struct.pack("<Q", len(text)) + text
    return header, {name: len(header) + start for name, start in starts.items()}


def _json_bytes(prefix: bytes, file_bytes: int, where: str) -> int:
    """Check the length prefix and return the length of the JSON."""
    if len(prefix) < LENGTH_BYTES:
        raise InputError(f"{where}: {file_bytes} bytes are too few for a safetensors file; was a download cut off?")
    if prefix == _LFS_POINTER:
        raise InputError(f"{where}: this is a Git LFS pointer, not the weights; run 'git lfs pull' in its folder")
    (json_bytes,) = struct.unpack("<Q", prefix)
    if json_bytes > HEADER_LIMIT_BYTES:
        raise InputError(f"{where}: not a safetensors file: its header would be {json_bytes} bytes long")
    if json_bytes > file_bytes - LENGTH_BYTES:
        raise InputError(
            f"{where}: the file ends inside its header ({file_bytes} bytes of {LENGTH_BYTES + json_bytes}); "
            "was a download cut off?"
        )
    return int(json_bytes)


def _parse_json(text: bytes, where: str) -> dict[str, object]:
    """Parse the JSON object strictly: UTF-8, no name twice, no negative numbers, no NaN."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise InputError(f"{where}: the header names {_shown(twice)} twice")
        return found

    def natural(digits: str) -> int:
        # No number of the format has more digits; int() of many digits is slow and then refused.
        if digits.startswith("-") or len(digits) > 20:
            raise InputError(f"{where}: the header holds {_shown(digits)} where a size or an offset belongs")
        return int(digits)

    def refuse(constant: str) -> NoReturn:
        raise InputError(f"{where}: the header holds {constant}, which is not JSON")

    if not text.startswith(b"{"):
        raise InputError(f"{where}: not a safetensors file: its header does not start with '{{'")
    if len(text) > _LONG_HEADER_BYTES and max(map(text.count, (b":", b"[", b"{"))) * _TERSEST_BYTES > len(text):
        raise InputError(f"{where}: not a safetensors file: its header holds more than tensors could fill it with")
    try:
        fields = json.loads(text.decode(), object_pairs_hook=unique, parse_int=natural, parse_constant=refuse)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: the header is not UTF-8 at byte {LENGTH_BYTES + error.start}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: the header is not JSON: {error.msg} at character {error.pos}") from error
    except (RecursionError, ValueError, MemoryError) as error:
        what = "takes more memory than there is" if isinstance(error, MemoryError) else "is nested too deeply"
        raise InputError(f"{where}: the header cannot be parsed: it {what}") from error
    if not isinstance(fields, dict):
        raise InputError(f"{where}: the header is not a JSON object")
    return fields


def _metadata(value: object, where: str) -> dict[str, str]:
    """Check the optional map of text to text."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise InputError(f"{where}: the header's {_METADATA} is not a map of text to text")
    return value


def _entry(name: str, value: object, data_bytes: int, where: str) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    """Check one tensor by itself: returns dtype, shape, begin and end in bytes from the start of the data."""

    def wrong(problem: str) -> InputError:
        return InputError(f"{where}: tensor {_shown(name)}: {problem}")

    if not _NAME.fullmatch(name):
        raise wrong("the name is far too long, holds control characters or is not valid Unicode")
    if not isinstance(value, dict):
        raise wrong("its header entry is not an object")
    missing = [key for key in ("dtype", "shape", "data_offsets") if key not in value]
    if missing:
        raise wrong(f"its header entry has no {missing[0]}")
    dtype_name, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    dtype = DTYPES.get(dtype_name) if isinstance(dtype_name, str) else None
    if dtype is None:
        raise wrong(f"dtype {_shown(dtype_name)} is unknown or not read yet")
    if not isinstance(shape, list) or not all(type(extent) is int for extent in shape):
        raise wrong("its shape is not a list of sizes")
    if len(shape) > _DIMENSIONS_LIMIT:
        raise wrong(f"its shape has {len(shape)} dimensions, more than any tensor")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise wrong("its data_offsets are not two numbers")
    begin, end = offsets
    if begin > end or end > data_bytes:
        raise wrong(f"its data at {begin} to {end} lies outside the file's {data_bytes} bytes; was a download cut off?")
    elements = _elements(shape)
    if elements >= _ELEMENTS_LIMIT:
        raise wrong("its shape has too many elements")
    if elements * dtype.itemsize != end - begin:
        raise wrong(f"{shape} of {dtype_name} takes {elements * dtype.itemsize} bytes but the file gives {end - begin}")
    return dtype, tuple(shape), begin, end


def _contiguous(
    entries: list[tuple[str, torch.dtype, tuple[int, ...], int, int]],
    header_bytes: int,
    file_bytes: int,
    where: str,
) -> dict[str, HeaderEntry]:
    """Check that sorted entries follow each other to the end of the file; returns them with absolute offsets."""
    found: dict[str, HeaderEntry] = {}
    position = 0
    for name, dtype, shape, begin, end in entries:
        if begin != position:
            problem = "overlaps the tensor before it" if begin < position else "leaves a hole before it"
            raise InputError(f"{where}: tensor {_shown(name)}: its data {problem} ({begin}, expected {position})")
        # Models of one family share their names: interning keeps one copy for all of them.
        found[intern(name)] = HeaderEntry(dtype, shape, header_bytes + begin, end - begin)
        position = end
    if header_bytes + position != file_bytes:
        raise InputError(f"{where}: the file is {file_bytes} bytes but its header describes {header_bytes + position}")
    return found


def _elements(shape: Sequence[int]) -> int:
    """Product of the extents, no further than the limit: a zero does not excuse absurd extents before it."""
    count = 1
    for extent in shape:
        count *= extent
        if count >= _ELEMENTS_LIMIT or extent >= _ELEMENTS_LIMIT:
            return _ELEMENTS_LIMIT
    return count


def _shown(value: object) -> str:
    """A value from the file, quoted on one line and short enough for a message."""
    text = ascii(value[:200] if isinstance(value, str) else value)
    return text if len(text) <= 200 else text[:197] + "..."
