"""Tokenizer files and special tokens against the rows of the embedding: no id may be beyond them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..engine.errors import InputError
from ..engine.units import format_count
from .checkpoint import CONFIG_LIMIT_BYTES
from .config_checks import CONFIG_FILE, text_configs
from .findings import Check, Findings, skipped
from .input_files import read_json
from .json_stream import JsonStream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TOKENIZER_LIMIT_BYTES = 200_000_000
"""Far above what there is: a vocabulary of 262 000 tokens takes 35 MB."""

_TOKENIZER, _SETTINGS, _GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"
_ADDED = "added_tokens.json"
_VOCABULARIES = ("tokenizer", "vocab", "spiece", "sentencepiece", "merges", "source.spm", "target.spm")
_ID = re.compile(r"[0-9]{1,12}")
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "decoder_start_token_id", "sep_token_id")


def check_tokenizer(folder: Path, config: Mapping[str, object], rows: int | None) -> Check:
    """Check the ids that a folder's files name; ``rows`` are those of the embedding, None where it has none."""
    findings = Findings()
    ids = _tokenizer_ids(folder, findings)
    if rows is None:
        return findings.check("tokenizer", "no token embeddings to hold it against", skipped=not findings)
    extra = config.get("additional_vocab_size")  # rows in a table of their own
    rows += extra if isinstance(extra, int) and extra > 0 else 0
    said = []
    if ids:
        highest = max(ids, key=lambda name: ids[name])
        said.append(f"ids to {format_count(ids[highest])} in {format_count(rows)} rows")
        for name, found in ids.items():
            if found >= rows:
                findings.problem(name, f"has a token of id {found}, and the embedding has {rows} rows")
    elif not findings:
        _warn_without_vocabulary(folder, findings)
    known = ids.get(_TOKENIZER)
    special = 0
    for where, key, number in _special_ids(folder, config, findings):
        special += 1
        if number >= rows:
            findings.problem(where, f"{key} is {number}, and the embedding has {rows} rows")
        elif known is not None and number > known:
            findings.warning(where, f"{key} is {number}, and the tokenizer ends at {known}")
    if special:
        said.append(f"{special} special ids")
    if not said and not findings:
        return skipped("tokenizer", "the folder has none")
    return findings.check("tokenizer", ", ".join(said) or "nothing of it could be read")


def _tokenizer_ids(folder: Path, findings: Findings) -> dict[str, int]:
    """The highest token id that each of the tokenizer's files has."""
    found: dict[str, int] = {}
    if (folder / _TOKENIZER).exists():
        try:
            highest = _highest_id(folder / _TOKENIZER)
        except InputError as error:
            _tell(folder / _TOKENIZER, error, findings)
        else:
            if highest >= 0:
                found[_TOKENIZER] = highest
            else:
                findings.problem(_TOKENIZER, "has no vocabulary")
    decoder = _read(folder, _SETTINGS, findings).get("added_tokens_decoder")
    listed = {
        _SETTINGS: [int(key) for key in decoder if _ID.fullmatch(key)] if isinstance(decoder, dict) else [],
        _ADDED: [number for number in _read(folder, _ADDED, findings).values() if type(number) is int],
    }
    return found | {name: max(ids) for name, ids in listed.items() if ids}


def _highest_id(path: Path) -> int:
    """The highest id in a tokenizer.json, -1 if there is none; a piece of the file at a time. Raises InputError."""
    highest = -1
    with JsonStream(path, TOKENIZER_LIMIT_BYTES) as stream:
        if stream.kind != "{":
            raise InputError(f"{path}: not a JSON object")
        for key in stream.items():
            if key == "model" and stream.kind == "{":
                for inner in stream.items():
                    if inner == "vocab" and stream.kind in "{[":
                        highest = max(highest, _highest_of(stream))
                    else:
                        stream.skip()
            elif key == "added_tokens" and stream.kind == "[":
                for batch in stream.batches():
                    ids = (each.get("id") for each in batch if isinstance(each, dict))
                    highest = max((highest, *(number for number in ids if type(number) is int)))
            else:
                stream.skip()
        stream.end()
    return highest


def _highest_of(stream: JsonStream) -> int:
    """The highest id of a vocabulary: a mapping of tokens to ids, or a list, whose places are the ids."""
    highest, count = -1, 0
    for batch in stream.batches():
        if isinstance(batch, dict):
            highest = max((highest, *(number for number in batch.values() if type(number) is int)))
        else:
            count += len(batch)
            highest = count - 1
    return highest


def _special_ids(folder: Path, config: Mapping[str, object], findings: Findings) -> Iterator[tuple[str, str, int]]:
    """Special tokens as (file, key, id); a negative one means that there is none."""
    sources = [(CONFIG_FILE, start, inner) for start, inner in text_configs(config)]
    sources.append((_GENERATION, "", _read(folder, _GENERATION, findings)))
    for where, start, fields in sources:
        for key in _SPECIAL:
            value = fields.get(key)
            for number in value if isinstance(value, list) else [value]:
                if type(number) is int and number >= 0:
                    yield where, start + key, number


def _warn_without_vocabulary(folder: Path, findings: Findings) -> None:
    names = [path.name for path in folder.iterdir()]
    if _SETTINGS in names and not any(name.startswith(_VOCABULARIES) and name != _SETTINGS for name in names):
        findings.warning(_SETTINGS, "is there, and no file with a vocabulary")


def _read(folder: Path, name: str, findings: Findings) -> dict[str, object]:
    if not (folder / name).exists():
        return {}
    try:
        return read_json(folder / name, CONFIG_LIMIT_BYTES)
    except InputError as error:
        _tell(folder / name, error, findings)
        return {}


def _tell(path: Path, error: InputError, findings: Findings) -> None:
    findings.problem(path.name, str(error).removeprefix(str(path)).lstrip(":").strip())
