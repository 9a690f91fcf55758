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

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TOKENIZER_LIMIT_BYTES = 200_000_000
"""Far above what there is: a vocabulary of 262 000 tokens takes 35 MB."""

_TOKENIZER, _SETTINGS, _GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"
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
    for name in (_TOKENIZER, _SETTINGS, "added_tokens.json"):
        fields = _read(folder, name, findings)
        if not fields:
            continue
        ids = [each for each in _ids_of(name, fields) if type(each) is int]
        if ids:
            found[name] = max(ids)
        elif name == _TOKENIZER:
            findings.problem(name, "has no vocabulary")
    return found


def _ids_of(name: str, fields: Mapping[str, object]) -> Iterator[object]:
    """Token ids in one of the files; of a long list, its last."""
    if name == "added_tokens.json":
        yield from fields.values()
        return
    if name == _SETTINGS:
        decoder = fields.get("added_tokens_decoder")
        yield from (int(key) for key in decoder if _ID.fullmatch(key)) if isinstance(decoder, dict) else ()
        return
    model = fields.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        yield from vocabulary.values()
    elif isinstance(vocabulary, list) and vocabulary:
        yield len(vocabulary) - 1
    added = fields.get("added_tokens")
    for each in added if isinstance(added, list) else ():
        if isinstance(each, dict):
            yield each.get("id")


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
        return read_json(folder / name, TOKENIZER_LIMIT_BYTES if name == _TOKENIZER else CONFIG_LIMIT_BYTES)
    except InputError as error:
        findings.problem(name, str(error).removeprefix(f"{folder / name}").lstrip(":").strip())
        return {}
