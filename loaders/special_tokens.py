"""Which tokens a tokenizer knows as a whole, and which it has for what; from its small files, never its vocabulary."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from ..engine.errors import InputError
from .input_files import json_of, read_start

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TOKENIZER_CONFIG = "tokenizer_config.json"

_START_BYTES = 4_000_000
"""Where a tokenizer.json has its added tokens: before the vocabulary, which is long."""

_ADDED = re.compile(r'"added_tokens"\s*:\s*(?=\[)')


def added_tokens(folder: Path, files: Mapping[str, str] | None = None) -> dict[str, int] | None:
    """The tokens that a tokenizer knows as a whole, with their ids; None if no file says.

    ``files`` go before the folder's own.
    """
    found: dict[str, int] = {}
    for name, read in (
        ("added_tokens.json", _plain_map),
        (_TOKENIZER_CONFIG, _decoder),
        ("tokenizer.json", _at_the_start),
    ):
        try:
            found |= read(folder / name, files)
        except InputError:
            continue
    return found or None


def special_tokens(folder: Path, files: Mapping[str, str] | None = None) -> dict[str, str]:
    """A tokenizer's special tokens by their names, such as ``eos_token``. ``files`` go before its own."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", _TOKENIZER_CONFIG):
        try:
            value = json_of(folder / name, files) or {}
        except InputError:
            continue
        for key, token in value.items():
            text = token.get("content") if isinstance(token, dict) else token
            if key.endswith("_token") and isinstance(text, str):
                found[key] = text
    return found


def _plain_map(path: Path, files: Mapping[str, str] | None) -> dict[str, int]:
    """The tokens of an added_tokens.json."""
    return {token: number for token, number in (json_of(path, files) or {}).items() if type(number) is int}


def _decoder(path: Path, files: Mapping[str, str] | None) -> dict[str, int]:
    """The added tokens of a tokenizer_config.json, which has them by id."""
    entries = (json_of(path, files) or {}).get("added_tokens_decoder")
    return {
        entry["content"]: int(key)
        for key, entry in (entries.items() if isinstance(entries, dict) else ())
        if isinstance(entry, dict) and isinstance(entry.get("content"), str)
        if key.isascii() and key.isdecimal() and len(key) < 10
    }


def _at_the_start(path: Path, files: Mapping[str, str] | None) -> dict[str, int]:
    """The added tokens of a tokenizer.json, whose vocabulary is not read for them."""
    if files is not None and path.name in files:
        text = files[path.name][:_START_BYTES]
    else:
        text = read_start(path, _START_BYTES).decode("utf-8", "replace")
    place = _ADDED.search(text)
    try:
        entries = json.JSONDecoder().raw_decode(text, place.end())[0] if place is not None else []
    except (ValueError, RecursionError):
        return {}
    return {
        entry["content"]: entry["id"]
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("content"), str) and type(entry.get("id")) is int
    }
