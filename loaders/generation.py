"""Token ids in config.json and generation_config.json, kept in step with the output's vocabulary. Pure functions."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from .config_keys import is_count, part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_EOS = "eos_token_id"
_LISTS = r"(begin_)?suppress_tokens|bad_words_ids"
_OPTIONAL = re.compile(r"(bos|eos|pad|unk|sep|cls|mask|decoder_start|forced_bos|forced_eos)_token_id|" + _LISTS)
"""Ids that may be none: without their tokens, such a key says null."""

_IDS = re.compile(r"\w*_token_(ids?|index|indices)|" + _LISTS)
"""Keys whose numbers, alone or in lists, are ids of tokens."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What is known of the output's tokens.

    ``ids`` are those of the output's tokenizer (at least of its added tokens), None if not known, and ``rows`` those of
    its embedding. ``donor_ids`` says which id each of the donor's tokens has now; one that it does not name is as good
    as gone, which None says, too. It is None itself where the donor's ids hold.
    """

    ids: Mapping[str, int] | None = None
    rows: int | None = None
    donor_ids: Mapping[int, int | None] | None = None


@dataclass(frozen=True, slots=True)
class TokenIds:
    """The two files as they have to be. ``generation`` is None without a generation_config.json."""

    config: dict[str, object]
    generation: dict[str, object] | None
    notes: tuple[str, ...]


def follow_vocabulary(
    config: Mapping[str, object],
    generation: Mapping[str, object] | None,
    vocabulary: Vocabulary,
    *,
    special_tokens: Mapping[str, str],
    turn_ends: Sequence[str] = (),
) -> TokenIds:
    """Give every id its number in the output, and let generation stop at the tokens that end a turn.

    ``special_tokens`` are the output tokenizer's, by name (``eos_token``): they stand in for a token that is gone.
    What did not change is not touched, but an id of an end of text that no row of the embedding has is left out.
    """
    notes: list[str] = []
    ids = vocabulary.ids or {}
    made = copy.deepcopy(dict(config))
    found = copy.deepcopy(dict(generation)) if generation is not None else None
    places = [("config.json", inner) for inner in _about_text(made)]
    places += [("generation_config.json", found)] if found is not None else []
    if vocabulary.donor_ids is not None:
        for file, inner in places:
            notes += _renumber(file, inner, vocabulary, special_tokens)
    else:
        rows = vocabulary.rows if vocabulary.rows is not None else _vocabulary_size(made)
        for file, inner in places:
            notes += _leave_out(file, inner, rows)
    stops = [token for token in turn_ends if token in ids]
    if vocabulary.donor_ids is not None and special_tokens.get("eos_token") in ids:
        stops.append(special_tokens["eos_token"])
    if stops:
        found, added = _stop_at(found, made, {token: ids[token] for token in stops})
        if added:
            notes.append(f"generation_config.json: generation stops at {' and '.join(added)}, too")
    return TokenIds(made, found, tuple(dict.fromkeys(notes)))


def _renumber(
    file: str, config: dict[str, object], vocabulary: Vocabulary, special_tokens: Mapping[str, str]
) -> Iterator[str]:
    """Write the output's ids for the donor's; yields what has no token of its own any more."""
    new_ids, ids = vocabulary.donor_ids or {}, vocabulary.ids or {}
    for key, value in list(config.items()):
        if not _IDS.fullmatch(key) or value is None:
            continue
        lost = sorted({old for old in _numbers(value) if old >= 0 and new_ids.get(old) is None})
        what = f"{file}: {key} {_list(lost)} has no token in the output's tokenizer"
        if lost and not _OPTIONAL.fullmatch(key):
            # A key that has to have an id: which one it is now, nobody can say.
            yield f"{what}, and is left as it was"
            continue
        config[key] = made = _with_ids(value, new_ids.get)
        if lost:
            stand_in = special_tokens.get(key.removesuffix("_id"))
            if made is None and stand_in is not None:
                config[key] = ids.get(stand_in)
            yield f"{what}; it is {_list([config[key]])} now"


def _leave_out(file: str, config: dict[str, object], rows: int | None) -> Iterator[str]:
    """Leave out ends of text that no row stands for; yields which."""
    beyond = [old for old in _numbers(config.get(_EOS)) if rows is not None and old >= rows]
    if not beyond:
        return
    what = f"{file}: {_EOS} {_list(beyond)}"
    made = _with_ids(config[_EOS], lambda old: None if old in beyond else old)
    if made is None and isinstance(config[_EOS], list):
        # A model's class that wants a list here does not take nothing for one, and did take this.
        yield f"{what} is beyond the vocabulary, which ends at {rows}, and is left as it was"
        return
    config[_EOS] = made
    yield f"{what} is left out: the vocabulary ends at {rows}"


def _stop_at(
    generation: dict[str, object] | None, config: Mapping[str, object], stops: Mapping[str, int]
) -> tuple[dict[str, object] | None, list[str]]:
    """Add ids to those that end a generation; without a generation_config.json the config's ids begin one."""
    made = generation
    if made is None:
        text = next((inner for inner in _about_text(dict(config)) if inner.get(_EOS) is not None), dict(config))
        made = {key: text[key] for key in ("bos_token_id", _EOS, "pad_token_id") if text.get(key) is not None}
    present = _numbers(made.get(_EOS))
    added = {token: number for token, number in stops.items() if number not in present}
    if not added:
        return generation, []
    every = list(dict.fromkeys([*present, *added.values()]))
    made[_EOS] = every if len(every) > 1 else every[0]
    return made, list(added)


def _with_ids(value: object, new_id: Callable[[int], int | None]) -> object:
    """An id, or a list of ids or of lists, in other numbers. Without its ids a list is None; so is half a word."""
    if _is_id(value):
        return new_id(value) if value >= 0 else value
    if not isinstance(value, list):
        return value
    made = [_with_ids(each, new_id) for each in value]
    kept = [
        each
        for old, each in zip(value, made, strict=True)
        if each is not None and not (isinstance(old, list) and isinstance(each, list) and len(each) < len(old))
    ]
    return kept or (None if value else value)


def _is_id(value: object) -> TypeGuard[int]:
    return type(value) is int


def _numbers(value: object) -> list[int]:
    """Every id in a value."""
    if isinstance(value, list):
        return [number for each in value for number in _numbers(each)]
    return [value] if _is_id(value) else []


def _about_text(config: dict[str, object]) -> Iterator[dict[str, object]]:
    """The config and those inside it that speak of the text's vocabulary; an eye's or an ear's ids are its own."""
    yield config
    for key, inner in config.items():
        if isinstance(inner, dict) and part_of(key) in ("", "text"):
            yield from _about_text(inner)


def _vocabulary_size(config: dict[str, object]) -> int | None:
    """The largest vocabulary that the configs about text speak of."""
    sizes = [inner["vocab_size"] for inner in _about_text(config) if is_count(inner.get("vocab_size"))]
    return max((size for size in sizes if isinstance(size, int)), default=None)


def _list(values: Sequence[object]) -> str:
    return ", ".join("none" if value is None else str(value) for value in values)
