"""The files of a tokenizer that differs from the one it is made of, as text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
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
    model_of,
    token_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from .tokenizer_file import ModelTokenizer
    from .tokenizer_union import OutputTokens

_OTHER_FORMS = re.compile(
    r"vocab\.(json|txt|model)|merges\.txt|tokenizer\.model.*|spiece\.model|sentencepiece.*\.model|tekken\.json|.*\.tiktoken"
)
"""Files with the plain vocabulary in another form; what has a tokenizer.json does not need them."""


@dataclass(frozen=True)
class ChangedFiles:
    """Files that are written instead of copied, name to text, and names of those that are not copied either."""

    files: Mapping[str, str] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()


def changed_files(tokenizer: ModelTokenizer, tokens: OutputTokens) -> ChangedFiles:
    """What becomes of a tokenizer's files where it has ``tokens`` now. Raises InputError if they make no tokenizer."""
    if tokens.ids == tokenizer.ids and tokens.added == tokenizer.added:
        return ChangedFiles()
    folder, path = tokenizer.path.parent, tokenizer.path
    document = _document(tokenizer, tokens)
    files = {TOKENIZER_FILE: _lines(document)}
    _check(files[TOKENIZER_FILE], tokens, path)
    if tokenizer.settings:
        settings = _without(tokenizer.settings, tokens.cut)
        if "added_tokens_decoder" in settings:
            settings["added_tokens_decoder"] = {
                str(tokens.ids[text]): token.entry() for text, token in tokens.added.items()
            }
        if settings != tokenizer.settings:
            files[SETTINGS_FILE] = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    if tokenizer.special:
        special = _without(tokenizer.special, tokens.cut)
        if special != tokenizer.special:
            files[SPECIAL_FILE] = json.dumps(special, indent=2, ensure_ascii=False) + "\n"
    others = frozenset(entry.name for entry in folder.iterdir() if _OTHER_FORMS.fullmatch(entry.name))
    plain = model_of(document, path).get("vocab")
    has_new_plain = plain != model_of(tokenizer.document, path).get("vocab")
    if (folder / ADDED_FILE).exists() or (others and not has_new_plain):
        known = plain if isinstance(plain, dict) else {}
        listed = {text: tokens.ids[text] for text in tokens.added if text not in known}
        files[ADDED_FILE] = json.dumps(listed, indent=2, ensure_ascii=False) + "\n"
    return ChangedFiles(files, others if has_new_plain else frozenset())


def _document(tokenizer: ModelTokenizer, tokens: OutputTokens) -> dict[str, object]:
    """The tokenizer.json with the output's tokens."""
    document = dict(tokenizer.document)
    document["added_tokens"] = [{"id": tokens.ids[text]} | token.entry() for text, token in tokens.added.items()]
    document["model"] = _model(model_of(document, tokenizer.path), tokens)
    for part in ("post_processor", "padding"):
        if part in document:
            document[part] = _renumbered(document[part], tokens.ids, tokenizer.path)
    return document


def _model(model: Mapping[str, object], tokens: OutputTokens) -> dict[str, object]:
    """The plain vocabulary, without tokens that are cut and without merges that make or use them."""
    found = dict(model)
    vocabulary, merges = found.get("vocab"), found.get("merges")
    if isinstance(vocabulary, dict):
        found["vocab"] = {token: index for token, index in vocabulary.items() if token in tokens.ids}
    elif isinstance(vocabulary, list):
        found["vocab"] = [entry for entry in vocabulary if entry[0] in tokens.ids]
    if isinstance(merges, list) and isinstance(vocabulary, dict) and not tokens.cut.isdisjoint(vocabulary):
        prefix = found.get("continuing_subword_prefix")
        skipped = len(prefix) if isinstance(prefix, str) else 0
        found["merges"] = [merge for merge in merges if tokens.cut.isdisjoint(_parts(merge, skipped))]
    return found


def _parts(merge: object, skipped: int) -> Iterable[str]:
    """The two tokens that a merge joins, and the one it makes."""
    parts = merge.split(" ", 1) if isinstance(merge, str) else merge
    if not (isinstance(parts, list) and len(parts) == 2 and all(isinstance(part, str) for part in parts)):
        return ()  # the library says what is wrong with it
    return (*parts, parts[0] + parts[1][skipped:])


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


def _without(settings: Mapping[str, object], cut: frozenset[str]) -> dict[str, object]:
    """Settings that name no token that is cut."""
    found = {key: value for key, value in settings.items() if key not in SPECIAL_NAMES or token_text(value) not in cut}
    for name in SPECIAL_LISTS:
        listed = found.get(name)
        if isinstance(listed, list):
            found[name] = [value for value in listed if token_text(value) not in cut]
    return found


def _lines(document: Mapping[str, object]) -> str:
    """JSON with a line for each part: the vocabulary's own lines would be half a million."""
    parts = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in document.items()]
    return "{\n  " + ",\n  ".join(parts) + "\n}\n"


def _check(text: str, tokens: OutputTokens, path: Path) -> None:
    """Let the library read what will be written. Raises InputError if it does not, or finds other ids in it."""
    try:
        read = Tokenizer.from_str(text)
    except BaseException as error:
        # What the library did not foresee is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{path}: the tokenizers library cannot read it: {error}") from error
    size = read.get_vocab_size(with_added_tokens=True)
    other = next((token for token, index in tokens.ids.items() if read.token_to_id(token) != index), None)
    if other is not None or size != len(tokens.ids):
        what = f"token {other!r} would not have the id {tokens.ids[other]}" if other else f"it would have {size} tokens"
        raise InputError(f"{path}: its ids have gaps that cannot be kept: {what}")
