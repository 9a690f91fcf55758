"""The files of a tokenizer that differs from the one it is made of, as text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from ..engine.errors import InputError
from .tokenizer_file import (
    ADDED_FILE,
    SETTINGS_FILE,
    SPECIAL_FILE,
    SPECIAL_LISTS,
    SPECIAL_NAMES,
    TOKENIZER_FILE,
    ids_in,
    is_id,
    token_text,
)
from .tokenizer_model import check_merges, model_of, model_with

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .tokenizer_file import ModelTokenizer
    from .tokenizer_union import OutputTokens

_AT_A_TIME = 4096
"""Members of a vocabulary that are written at a time."""

_OTHER_FORMS = re.compile(
    r"vocab\.(json|txt|model)|merges\.txt|tokenizer\.model.*|spiece\.model|sentencepiece.*\.model|tekken\.json|.*\.tiktoken"
)
"""Files with the plain vocabulary in another form; what has a tokenizer.json does not need them."""


@dataclass(frozen=True)
class ChangedFiles:
    """Files that are written instead of copied, name to text, and names of those that are not copied either."""

    files: Mapping[str, str] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()


def changed_files(tokenizer: ModelTokenizer, document: Mapping[str, object], tokens: OutputTokens) -> ChangedFiles:
    """What becomes of a tokenizer's files where it has ``tokens`` now; ``document`` is its tokenizer.json.

    Raises InputError if they cannot be made of it.
    """
    if tokens.ids == tokenizer.ids and tokens.added == tokenizer.added:
        return ChangedFiles()
    folder, path = tokenizer.path.parent, tokenizer.path
    changed = _changed(document, tokens, path)
    files = {TOKENIZER_FILE: _lines(changed, path)}
    gone = tokens.cut.difference(tokens.ids)
    if tokenizer.settings:
        settings = _without(tokenizer.settings, gone)
        if "added_tokens_decoder" in settings:
            settings["added_tokens_decoder"] = {
                str(tokens.ids[text]): token.entry() for text, token in tokens.added.items()
            }
        if settings != tokenizer.settings:
            files[SETTINGS_FILE] = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    if tokenizer.special:
        special = _without(tokenizer.special, gone)
        if special != tokenizer.special:
            files[SPECIAL_FILE] = json.dumps(special, indent=2, ensure_ascii=False) + "\n"
    others = frozenset(entry.name for entry in folder.iterdir() if _OTHER_FORMS.fullmatch(entry.name))
    plain = model_of(changed, path).get("vocab")
    has_new_plain = plain != model_of(document, path).get("vocab")
    if (folder / ADDED_FILE).exists() or (others and not has_new_plain):
        known = plain if isinstance(plain, dict) else {}
        listed = {text: tokens.ids[text] for text in tokens.added if text not in known}
        files[ADDED_FILE] = json.dumps(listed, indent=2, ensure_ascii=False) + "\n"
    return ChangedFiles(files, others if has_new_plain else frozenset())


def _changed(document: Mapping[str, object], tokens: OutputTokens, path: Path) -> dict[str, object]:
    """The tokenizer.json with the output's tokens. Raises InputError if no tokenizer comes of it."""
    changed = dict(document)
    changed["added_tokens"] = [{"id": tokens.ids[text]} | token.entry() for text, token in tokens.added.items()]
    for part in ("post_processor", "padding"):
        if part in document:
            changed[part] = _renumbered(document[part], tokens.ids, path)
    for joining in (tokens.plain, (*tokens.plain, *tokens.added)):
        changed["model"] = model_with(model_of(document, path), tokens, joining)
        if ids_in(changed, path)[0] == tokens.ids:
            break
    else:
        raise InputError(f"{path}: its ids have gaps that the output's tokens cannot keep")
    check_merges(model_of(changed, path), path)
    _check_parts(changed, path)
    return changed


def _check_parts(document: Mapping[str, object], path: Path) -> None:
    """Let the library read everything but the vocabulary, which is large and known. Raises InputError."""
    model = dict(model_of(document, path))
    unknown, vocabulary = model.get("unk_id"), model.get("vocab")
    if isinstance(vocabulary, list):
        model["vocab"] = vocabulary[: unknown + 1 if is_id(unknown) else 1]
    elif isinstance(vocabulary, dict):
        model["vocab"] = {}
    if isinstance(model.get("merges"), list):
        model["merges"] = []
    try:
        Tokenizer.from_str(json.dumps({**document, "model": model, "added_tokens": []}))
    except BaseException as error:
        # What the library did not foresee is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{path}: the tokenizers library cannot read it: {error}") from error


def _renumbered(value: object, ids: Mapping[str, int], path: Path) -> object:
    """A post-processor or padding with the ids that its tokens have. Raises InputError for one that is not there."""

    def id_of(token: object) -> int:
        if not isinstance(token, str) or token not in ids:
            raise InputError(f"{path}: the post-processor or padding uses {token!r}, which is no token of the output")
        return ids[token]

    if isinstance(value, list):
        if len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int:  # sep and cls of BERT
            return [value[0], id_of(value[0])]
        return [_renumbered(each, ids, path) for each in value]
    if isinstance(value, dict):
        found = {key: _renumbered(each, ids, path) for key, each in value.items()}
        tokens = value.get("tokens")
        if "ids" in value and isinstance(tokens, list):
            found["ids"] = [id_of(token) for token in tokens]
        if "pad_id" in value and "pad_token" in value:
            found["pad_id"] = id_of(value["pad_token"])
        return found
    return value


def _without(settings: Mapping[str, object], gone: frozenset[str]) -> dict[str, object]:
    """Settings that name no token that is gone."""
    found = {key: value for key, value in settings.items() if key not in SPECIAL_NAMES or token_text(value) not in gone}
    for name in SPECIAL_LISTS:
        listed = found.get(name)
        if isinstance(listed, list):
            found[name] = [value for value in listed if token_text(value) not in gone]
    return found


def _lines(document: Mapping[str, object], path: Path) -> str:
    """JSON with a line for each part: the vocabulary's own lines would be half a million."""
    found: list[str] = []
    try:
        for number, (key, value) in enumerate(document.items()):
            found.append(("{\n  " if number == 0 else ",\n  ") + json.dumps(key) + ": ")
            for piece in _pieces(value):
                piece.encode()
                found.append(piece)
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: one of the output's tokens has half a character, which no text has") from error
    return "".join([*found, "\n}\n"])


def _pieces(value: object) -> Iterator[str]:
    """JSON of a value, some members at a time: the encoder holds several times what it writes."""
    if isinstance(value, dict) and len(value) <= _AT_A_TIME:
        start = "{"
        for key, member in value.items():
            yield f"{start}{json.dumps(key, ensure_ascii=False)}: "
            yield from _pieces(member)
            start = ", "
        yield "}" if value else "{}"
    elif isinstance(value, dict | list) and len(value) > _AT_A_TIME:
        members = iter(value.items() if isinstance(value, dict) else value)
        start = "{" if isinstance(value, dict) else "["
        while some := list(islice(members, _AT_A_TIME)):
            yield start + json.dumps(dict(some) if isinstance(value, dict) else some, ensure_ascii=False)[1:-1]
            start = ", "
        yield "}" if isinstance(value, dict) else "]"
    else:
        yield json.dumps(value, ensure_ascii=False)
