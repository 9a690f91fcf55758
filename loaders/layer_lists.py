"""What a config says layer by layer, rewritten for a stack whose layers were repeated, dropped or moved."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeGuard

from .config_keys import LayerCount, is_layer_count, part_of, stack_word, words_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_INDEX_WORDS = frozenset({"layer", "layers", "block", "blocks", "idx", "idxs", "index", "indexes", "indices"})
_OTHER_LISTS = frozenset({"token", "tokens", "architectures", "limit", "mean", "std", "label", "labels", "language"})
"""Lists that are never a value a layer, though in a small model their length may be the layer count."""

OTHER_MAPPINGS = frozenset({"rope", "quantization", "compression", "label", "auto", "task", "generation"})
_INDEX_TEXT = re.compile(r"^[0-9]{1,9}(,[0-9]{1,9})*$")
_INDEX_KEY = re.compile(r"^[0-9]{1,9}$")


@dataclass(frozen=True, slots=True)
class StackChange:
    """What happens to one (nested) config: layer ``sources[i]`` of ``old`` becomes layer i of a stack."""

    prefix: str
    path: tuple[str, ...]
    counts: tuple[LayerCount, ...]
    old: int
    sources: tuple[int, ...]


def is_of_another_stack(key: str, config: Mapping[str, object], own: str | None) -> bool:
    """Whether a key is about another stack than the one whose prefix has the word ``own``.

    A prefix that says nothing may be the only stack: then ``decoder_sparse_step`` is about it.
    """
    word = stack_word(key)
    if word is None or word == own:
        return False
    return own is not None or any(is_layer_count(other) and stack_word(other) == word for other in config)


def follow_layers(
    config: dict[str, object],
    change: StackChange,
    lengths: tuple[int, int],
    path: tuple[str, ...],
    done: set[tuple[tuple[str, ...], str]],
) -> None:
    """Let per-layer lists and lists of layer numbers follow, also in mappings that have no layer count themselves."""
    numbers = {key: found for key, value in config.items() if (found := _layer_numbers(key, value)) is not None}
    # Some families count their layers from 1; a list that holds the layer count itself gives that away.
    base = int(any(change.old in found for found in numbers.values()) and not any(0 in x for x in numbers.values()))
    own = stack_word(change.prefix)
    # Beside a decoder's own count, what does not say whose it is goes with the plain count, which is the encoder's.
    is_encoders = own == "decoder" and any(is_layer_count(key) and stack_word(key) == "encoder" for key in config)
    for key, value in list(config.items()):
        words = words_of(key)
        foreign = is_of_another_stack(key, config, own) or (is_encoders and stack_word(key) is None)
        if foreign or (path, key) in done or not _OTHER_LISTS.isdisjoint(words):
            continue
        if isinstance(value, dict) and "layer" in words and value and all(map(_INDEX_KEY.match, value)):
            config[key] = _renumbered(value, change.sources)
            done.add((path, key))
        elif isinstance(value, dict):
            counted = any(is_layer_count(inner) for inner in value)
            if not counted and OTHER_MAPPINGS.isdisjoint(words) and part_of(key) in ("", part_of(change.prefix)):
                follow_layers(value, change, lengths, (*path, key), done)
        elif value == change.old - 1 and "index" in words and not {"end", "last"}.isdisjoint(words):
            config[key] = len(change.sources) - 1
        else:
            followed = _followed(value, numbers.get(key), change, lengths, base, is_pattern="pattern" in words)
            if followed is not None:
                config[key] = followed
                done.add((path, key))


def _followed(
    value: object,
    numbers: list[int] | None,
    change: StackChange,
    lengths: tuple[int, int],
    base: int,
    *,
    is_pattern: bool,
) -> object | None:
    """A value after the layers moved; None where it is not about layers."""
    in_range = numbers is not None and all(base <= number < change.old + base for number in numbers)
    if numbers and in_range and (len(numbers) not in lengths or numbers == list(range(base, change.old + base))):
        listed = frozenset(number - base for number in numbers)
        moved = [place + base for place, source in enumerate(change.sources) if source in listed]
        return ",".join(map(str, moved)) if isinstance(value, str) else moved
    if isinstance(value, list) and len(value) in lengths:
        return [copy.deepcopy(value[source]) for source in change.sources if source < len(value)]
    if is_pattern and isinstance(value, str) and len(value) in lengths:
        return "".join(value[source] for source in change.sources if source < len(value))
    return None


def _renumbered(by_layer: dict[str, object], sources: tuple[int, ...]) -> dict[str, object]:
    """A mapping from layer numbers, written as ``5`` or as ``05``, after the layers moved."""
    found = {int(number): value for number, value in by_layer.items()}
    padded = any(number.startswith("0") and len(number) > 1 for number in by_layer)
    width = max(max(map(len, by_layer)), len(str(len(sources) - 1))) if padded else 1
    return {
        f"{place:0{width}}": copy.deepcopy(found[source]) for place, source in enumerate(sources) if source in found
    }


def _layer_numbers(key: str, value: object) -> list[int] | None:
    """The layer numbers that a value lists, such as ``mlp_only_layers: [0, 5]``; None if it lists none.

    Numbers rise strictly in such a list, which tells it from a value for each layer (``no_rope_layers: [1, 1, 0]``).
    """
    words = frozenset(words_of(key))
    if words.isdisjoint(_INDEX_WORDS) or not words.isdisjoint(_OTHER_LISTS):
        return None
    numbers: object = value
    if isinstance(value, str) and _INDEX_TEXT.match(value):
        numbers = [int(number) for number in value.split(",")]
    if not _is_integers(numbers) or any(a >= b for a, b in pairwise(numbers)):
        return None
    return numbers


def _is_integers(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)
