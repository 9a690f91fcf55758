"""Large JSON files in pieces: the same values as Python's parser gives, the same places of mistakes, little memory."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plait.engine.errors import InputError
from plait.loaders import json_stream
from plait.loaders.json_stream import JsonStream

if TYPE_CHECKING:
    from pathlib import Path

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=6), inner, max_size=6)
)
PIECES = pytest.mark.parametrize("piece_bytes", [1, 7, 40])


def parsed(path: Path) -> object:
    with JsonStream(path, 1 << 30) as stream:
        found = stream.value()
        stream.end()
    return found


def skipped(path: Path) -> None:
    with JsonStream(path, 1 << 30) as stream:
        stream.skip()
        stream.end()


def walked(path: Path) -> object:
    """The same, member by member."""

    def take(stream: JsonStream) -> Any:
        if stream.kind == "{":
            return {key: take(stream) for key in stream.items()}
        if stream.kind == "[":
            return [take(stream) for _ in stream.items()]
        return stream.value()

    with JsonStream(path, 1 << 30) as stream:
        found = take(stream)
        stream.end()
    return found


@pytest.fixture
def piece_bytes() -> int:
    return json_stream.PIECE_BYTES


@PIECES
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_pieces_of_any_size_give_what_the_whole_gives(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    piece_bytes: int,
    value: object,
    indent: int | None,
    ascii_only: bool,
) -> None:
    monkeypatch.setattr(json_stream, "PIECE_BYTES", piece_bytes)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=ascii_only), "utf-8", errors="backslashreplace")
    assert parsed(path) == value
    assert walked(path) == value
    skipped(path)


@PIECES
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a": 1,}',
        "[1, 2,]",
        "[1 2]",
        '{"a" 1}',
        "{1: 2}",
        '{"a": [1, 2}',
        "[1]]",
        '{"a": 1}\n {}',
        '["a\nb"]',
        "[nul]",
        '{"x": {"y": [1, 2, {"z": +}]}}',
        '{"a": "\\x"}',
        "[" * 300,
        '{"a":' * 300,
        "[" + "9" * 5000 + "]",
    ],
)
def test_what_is_no_json_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int, text: str
) -> None:
    monkeypatch.setattr(json_stream, "PIECE_BYTES", piece_bytes)
    path = tmp_path / "x.json"
    path.write_text(text, "utf-8")
    for take in (parsed, skipped):
        with pytest.raises(InputError, match=r"x\.json(:\d+:\d+)?: (not JSON|nested more)"):
            take(path)


@PIECES
def test_a_mistake_is_named_with_line_and_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    monkeypatch.setattr(json_stream, "PIECE_BYTES", piece_bytes)
    path = tmp_path / "x.json"
    path.write_text('{"vocab": {"ä": 1,\n "b": 2,\n   "c": ?},\n "d": 4}', "utf-8")
    with pytest.raises(InputError, match=r"x\.json:3:9: not JSON: Expecting value"):
        parsed(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InputError, match=r"not JSON: .*utf-8"):
        parsed(path)


def test_memory_is_that_of_a_piece(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"merges": [["left", "right"]] * 60_000, "vocab": {f"t{n}": n for n in range(20_000)}}))
    tracemalloc.start()
    try:
        with JsonStream(path, 1 << 30) as stream:
            highest = 0
            for key in stream.items():
                if key == "vocab":
                    for batch in stream.batches():
                        assert isinstance(batch, dict)
                        highest = max(highest, *(number for number in batch.values() if isinstance(number, int)))
                else:
                    stream.skip()
            stream.end()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert highest == 19_999
    assert peak_bytes < 8_000_000
