"""One model's tokenizer, read from its folder: the tokens, their ids, and how added tokens behave.

Ids are those that the `tokenizers` library and transformers give, which are not always those in the file: an added
token that the model's own vocabulary has keeps that id, any other takes the next free one. What transformers adds
besides (``added_tokens_decoder``, special tokens that only the settings name) is added here too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeGuard

from ..engine.errors import InputError
from .input_files import read_json
from .sentencepiece_file import MODEL_FILE, needs_conversion, sentencepiece_document
from .tokenizer_model import model_of, read_document
from .vocabulary_files import vocabulary_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"

TOKENIZER_LIMIT_BYTES = 100_000_000
"""Three times the largest there is: 262 144 tokens and 580 000 merges take 33 MB."""
SETTINGS_LIMIT_BYTES = 20_000_000

MOST_TOKENS = 1 << 24
"""Far above what there is; ids are counted in int32."""

_OTHER_FILES = ("tekken.json", "spiece.model", "sentencepiece.bpe.model", "qwen.tiktoken")

SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
SPECIAL_LISTS = ("additional_special_tokens", "extra_special_tokens")

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is looked for in the text before anything else; how it is found, and whether it is text at all."""

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False

    def entry(self) -> dict[str, object]:
        """As the files write it, without its id."""
        return {"content": self.content} | {name: getattr(self, name) for name in _FLAGS}


@dataclass(frozen=True)
class ModelTokenizer:
    """A model's tokenizer. ``ids`` has every token, added ones too; ``added`` those that are added, by id.

    ``settings`` and ``special`` are tokenizer_config.json and special_tokens_map.json, {} where there is none.
    """

    path: Path
    ids: Mapping[str, int]
    added: Mapping[str, AddedToken]
    settings: Mapping[str, object] = field(repr=False)
    special: Mapping[str, object] = field(repr=False)


def read_tokenizer(folder: Path, *, merges: bool = True) -> tuple[ModelTokenizer, dict[str, object]] | None:
    """Read the tokenizer of a model folder, and its tokenizer.json; None if there is none. Raises InputError.

    The parsed file is the large part of it: most callers let go of it, and need no ``merges``. Of other
    forms that are known, one is made.
    """
    path = folder / TOKENIZER_FILE
    settings = _read_optional(folder / SETTINGS_FILE)
    special = _read_optional(folder / SPECIAL_FILE)
    if os.path.lexists(path):
        document = read_document(path, TOKENIZER_LIMIT_BYTES, merges=merges)
    elif os.path.lexists(folder / MODEL_FILE):
        path = folder / MODEL_FILE
        document = sentencepiece_document(path, settings)
    elif found := vocabulary_document(folder, settings, _by_name(settings, special)):
        path, document = found
    else:
        other = next((name for name in _OTHER_FILES if os.path.lexists(folder / name)), None)
        if other is not None:
            raise InputError(needs_conversion(folder / other, "it cannot be read"))
        return None
    ids, added, plain_tokens = ids_in(document, path)
    _check_apart(ids, path)
    further = [
        *_further_tokens(settings, _read_optional(folder / ADDED_FILE), folder),
        *(AddedToken(text, normalized=False, special=True) for text in named_tokens(settings, special)),
    ]
    _add(further, ids, added, plain_tokens)
    ordered = dict(sorted(added.items(), key=lambda item: ids[item[0]]))
    return ModelTokenizer(path, ids, ordered, settings, special), document


def token_text(value: object) -> str | None:
    """A token in the settings: text, or a mapping with ``content``."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def named_tokens(*settings: Mapping[str, object]) -> Iterator[str]:
    """The special tokens that settings name, in the order in which transformers adds those that are missing."""
    for name in SPECIAL_NAMES:
        for mapping in settings:
            text = token_text(mapping.get(name))
            if text is not None:
                yield text
    for name in SPECIAL_LISTS:
        for mapping in settings:
            listed = mapping.get(name)
            values = listed.values() if isinstance(listed, dict) else listed if isinstance(listed, list) else ()
            for value in values:
                text = token_text(value)
                if text is not None:
                    yield text


def _by_name(*settings: Mapping[str, object]) -> dict[str, str]:
    """The special tokens that settings name, by their names; the first to name one counts."""
    found = ((name, token_text(mapping.get(name))) for mapping in reversed(settings) for name in SPECIAL_NAMES)
    return {name: text for name, text in found if text is not None}


def ids_in(document: Mapping[str, object], path: Path) -> tuple[dict[str, int], dict[str, AddedToken], int]:
    """The id of every token of a parsed tokenizer.json, its added tokens, and the size of its plain vocabulary.

    Raises InputError.
    """
    vocabulary = _vocabulary(document, path)
    ids, added = dict(vocabulary), dict[str, AddedToken]()
    _add(_added_tokens(document, path), ids, added, len(vocabulary))
    return ids, added, len(vocabulary)


def _read_optional(path: Path) -> dict[str, object]:
    return read_json(path, SETTINGS_LIMIT_BYTES) if os.path.lexists(path) else {}


def _vocabulary(document: Mapping[str, object], path: Path) -> dict[str, int]:
    """The plain vocabulary: a mapping of tokens to ids, or of a Unigram model a list of tokens and scores."""
    found = model_of(document, path).get("vocab")
    if isinstance(found, list):
        tokens: dict[str, int] = {}
        for index, entry in enumerate(found):
            # A token that is listed twice is the later one.
            if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
                raise InputError(f"{path}: entry {index} of the vocabulary is not a token and its score")
            tokens[entry[0]] = index
        return tokens
    if not isinstance(found, dict):
        raise InputError(f"{path}: the model's 'vocab' is neither a mapping nor a list")
    for token, index in found.items():
        if not is_id(index):
            raise InputError(f"{path}: token {token!r}: the id {index!r} is not a number from 0 to {MOST_TOKENS - 1}")
    return found


def is_id(value: object) -> TypeGuard[int]:
    """Whether a value can be a token's id."""
    return type(value) is int and 0 <= value < MOST_TOKENS


def _added_tokens(document: Mapping[str, object], path: Path) -> list[AddedToken]:
    """The added tokens of a tokenizer.json in the file's order."""
    listed = document.get("added_tokens") or []
    if not isinstance(listed, list):
        raise InputError(f"{path}: 'added_tokens' is not a list")
    found = []
    for index, entry in enumerate(listed):
        token = _parsed(entry)
        if token is None or not is_id(entry.get("id")):
            raise InputError(f"{path}: entry {index} of added_tokens is not a token with its id and settings")
        found.append(token)
    return found


def _further_tokens(settings: Mapping[str, object], legacy: Mapping[str, object], folder: Path) -> Iterator[AddedToken]:
    """Tokens that the settings list by id, or else added_tokens.json, in the order of their ids."""
    listed = settings.get("added_tokens_decoder")
    if isinstance(listed, dict):
        path, entries = folder / SETTINGS_FILE, {}
        for key, value in listed.items():
            token = _parsed(value)
            if token is None or not (key.isdecimal() and key.isascii() and len(key) < 9):
                raise InputError(f"{path}: entry {key!r} of added_tokens_decoder is not a token with its settings")
            entries[token] = int(key)
    else:
        path, entries = folder / ADDED_FILE, {}
        for text, index in legacy.items():
            if not is_id(index):
                raise InputError(f"{path}: token {text!r}: the id {index!r} is not a number from 0")
            entries[AddedToken(text)] = index
    yield from sorted(entries, key=lambda token: entries[token])


def _parsed(entry: object) -> AddedToken | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        return None
    special = entry.get("special", False)
    flags = {"normalized": not special} | {name: entry[name] for name in _FLAGS if name in entry}
    if not all(isinstance(value, bool) for value in flags.values()):
        return None
    return AddedToken(entry["content"], **flags)


def _add(tokens: Iterable[AddedToken], ids: dict[str, int], added: dict[str, AddedToken], plain_tokens: int) -> None:
    """Add tokens as the library does: of two with one text the first; the id is that of the text, else the next one."""
    highest = max((ids[text] for text in added), default=-1)
    for token in tokens:
        if not token.content or token.content in added:
            continue
        if token.content not in ids:
            ids[token.content] = max(highest + 1, plain_tokens)
        highest = max(highest, ids[token.content])
        added[token.content] = token


def _check_apart(ids: Mapping[str, int], path: Path) -> None:
    """Refuse ids that stand for two tokens."""
    if len(set(ids.values())) == len(ids):
        return
    seen: dict[int, str] = {}
    for token, index in ids.items():
        if index in seen:
            raise InputError(f"{path}: the id {index} stands for two tokens, {seen[index]!r} and {token!r}")
        seen[index] = token
