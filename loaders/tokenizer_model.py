"""The part of a tokenizer.json that splits words into tokens: which tokens it can take up, and how."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tokenizers import pre_tokenizers

from ..engine.errors import InputError
from .input_files import check_depth
from .json_stream import JsonStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from .tokenizer_union import OutputTokens

_LAST_CHOICE = -1e6
"""A Unigram score so low that a piece is used only where nothing else fits."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def read_document(path: Path, limit_bytes: int, *, merges: bool) -> dict[str, object]:
    """Parse a tokenizer.json; without ``merges``, which are its larger half, they are left out. Raises InputError.

    Neither the text of the file nor a token of its vocabulary is held twice.
    """
    found: dict[str, object] = {}
    with JsonStream(path, limit_bytes) as stream:
        if stream.kind != "{":
            raise InputError(f"{path}: not a JSON object")
        for key in stream.items():
            assert key is not None
            if key != "model" or stream.kind != "{":
                found[key] = stream.value()
                continue
            model: dict[str, object] = {}
            for part in stream.items():
                assert part is not None
                if part != "merges" or stream.kind != "[":
                    model[part] = stream.value()
                elif merges:
                    model[part] = _merges(stream, model.get("vocab"))
                else:
                    stream.skip()
            found[key] = model
        stream.end()
    check_depth(found, path)
    return found


def _merges(stream: JsonStream, vocabulary: object) -> list[object]:
    """The merges, their tokens those of the vocabulary."""
    known = {token: token for token in vocabulary} if isinstance(vocabulary, dict) else {}
    found: list[object] = []
    for batch in stream.batches():
        for merge in batch:
            if isinstance(merge, list):
                merge[:] = [known.get(part, part) if isinstance(part, str) else part for part in merge]
            found.append(merge)
    return found


def model_of(document: Mapping[str, object], path: Path) -> Mapping[str, object]:
    """The model of a parsed tokenizer.json. Raises InputError if there is none."""
    model = document.get("model")
    if not isinstance(model, dict):
        raise InputError(f"{path}: has no 'model' with a vocabulary")
    return model


def takes_up(document: Mapping[str, object], path: Path) -> Callable[[str], bool]:
    """Which ordinary tokens of another model can join the vocabulary, so that text is split as before.

    Those for which the answer is False have to be added tokens. In BPE a token that no merge makes is never used,
    unless it is a single symbol, or words are looked up whole first (``ignore_merges``). A Unigram model uses a piece
    of the lowest score only where it has no other.
    """
    model = model_of(document, path)
    kind = model.get("type")
    if kind in ("Unigram", "WordLevel"):
        return lambda _: True
    if kind != "BPE" or model.get("ignore_merges") is True:
        return lambda _: False
    alphabet = frozenset(pre_tokenizers.ByteLevel.alphabet()) if _is_byte_level(document) else None
    prefix, suffix = (
        value if isinstance(value := model.get(key), str) else ""
        for key in ("continuing_subword_prefix", "end_of_word_suffix")
    )

    def is_unused(token: str) -> bool:
        symbol = token.removeprefix(prefix).removesuffix(suffix)
        if alphabet is not None and not alphabet.issuperset(symbol):
            return True
        return len(symbol) > 1 and _BYTE.fullmatch(symbol) is None

    return is_unused


def _is_byte_level(document: Mapping[str, object]) -> bool:
    """Whether text is bytes, written as letters, by the time it is split."""
    pending = [document.get("pre_tokenizer"), document.get("normalizer")]
    while pending:
        step = pending.pop()
        if isinstance(step, dict):
            if step.get("type") == "ByteLevel":
                return True
            for key in ("pretokenizers", "normalizers"):
                inner = step.get(key)
                pending.extend(inner if isinstance(inner, list) else ())
    return False


def model_with(model: Mapping[str, object], tokens: OutputTokens, joining: Iterable[str]) -> dict[str, object]:
    """The model without what is cut, and with the tokens that join it; merges that make or use a cut token go too.

    Added tokens need a place in the vocabulary only where they would not have the ids they are meant to have without.
    """
    found = dict(model)
    vocabulary, merges = found.get("vocab"), found.get("merges")
    joining = sorted(joining, key=tokens.ids.__getitem__)
    if isinstance(vocabulary, dict):
        kept = {token: index for token, index in vocabulary.items() if tokens.ids.get(token) == index}
        found["vocab"] = kept | {token: tokens.ids[token] for token in joining}
    elif isinstance(vocabulary, list):
        kept_pieces = [entry for index, entry in enumerate(vocabulary) if tokens.ids.get(entry[0]) == index]
        known = {entry[0] for entry in kept_pieces}
        found["vocab"] = kept_pieces + [[token, _LAST_CHOICE] for token in joining if token not in known]
    if isinstance(merges, list) and isinstance(vocabulary, dict) and not tokens.cut.isdisjoint(vocabulary):
        found["merges"] = [merge for merge in merges if tokens.cut.isdisjoint(_parts(merge, model))]
    return found


def check_merges(model: Mapping[str, object], path: Path) -> None:
    """Whether each merge makes a token of two. Raises InputError."""
    vocabulary, merges = model.get("vocab"), model.get("merges")
    if not (isinstance(vocabulary, dict) and isinstance(merges, list)):
        return
    for index, merge in enumerate(merges):
        parts = _parts(merge, model)
        if not parts or not (parts[0] in vocabulary and parts[1] in vocabulary and parts[2] in vocabulary):
            raise InputError(f"{path}: merge {index} ({merge!r}) does not make a token of two")


def _parts(merge: object, model: Mapping[str, object]) -> tuple[str, ...]:
    """The two tokens that a merge joins, and the one it makes; () if it is no merge."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not (isinstance(parts, list) and len(parts) == 2):
        return ()
    left, right = parts
    if not (isinstance(left, str) and isinstance(right, str)):
        return ()
    prefix = model.get("continuing_subword_prefix")
    return left, right, left + (right[len(prefix) :] if isinstance(prefix, str) else right)
