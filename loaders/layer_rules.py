"""What a config says of its layers by rule: the first so many, every so many, a pattern that repeats.

A rule holds for the layers of the donor. Where layers were repeated, dropped or moved, the output's config says what
makes the same layers of the same kind; where no number does, the slices cannot be written down, and that is an error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..engine.errors import InputError
from .config_keys import is_count, stack_word, words_of
from .layer_lists import is_of_another_stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .layer_lists import StackChange

_FIRST_LAYERS = frozenset({"first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", "max_window_layers"})
"""Keys that count layers of one kind in front of those of the other."""

_LAST_LAYERS = frozenset({"num_kv_shared_layers"})
_PERIOD_WORDS = frozenset({"period", "interval", "step", "freq", "frequency", "every", "pattern"})
_COUNTED_WORDS = frozenset({"layer", "layers", "sparse", "attn", "attention", "sliding", "moe", "expert", "cross"})
_FROM_THE_FIRST = frozenset({"freq", "frequency", "every", "cross"})
"""Words of periods whose first layer is the special one; the others have it at the end of each period."""

_FROM_THE_SECOND = frozenset({"num_sparse_encoder_layers", "num_sparse_decoder_layers"})
"""Keys beside which a period's second layer is the special one."""

_EXPERT_WORDS = frozenset({"moe", "mlp", "expert", "experts", "sparse", "dense"})
_KIND_WORDS = frozenset({"type", "types", "pattern", "layers", "kinds"})
_CYCLES = frozenset({"block_types"})
"""Lists of kinds that are shorter than the stack and start again when they end."""


@dataclass(frozen=True, slots=True)
class _Period:
    """A rule of every so many layers; ``start`` is the special layer of a period that has no offset in the config."""

    key: str
    offset_key: str | None
    start: int
    length: int
    offset: int

    def holds(self, layer: int) -> bool:
        return layer % self.length == self.offset


def follow_rules(config: dict[str, object], change: StackChange) -> None:
    """Rewrite the rules of one config for a stack whose layers moved. Raises InputError where none fits.

    A rule beside a full list of the same kinds of layers is only a remnant: it is left as it is if nothing fits.
    """
    listed = {_is_about_experts(key) for key, value in config.items() if _lists_kinds(key, value, change.old)}
    for key, value in list(config.items()):
        if is_of_another_stack(key, config, stack_word(change.prefix)):
            continue
        if key in _CYCLES and isinstance(value, list) and 0 < len(value) < change.old:
            moved = [value[source % len(value)] for source in change.sources]
            if moved != [value[place % len(value)] for place in range(len(moved))]:
                config[key] = moved
            continue
        if not is_count(value):
            continue
        found: dict[str, int] | None = {}
        if key in _FIRST_LAYERS:
            found = _first(key, value, change)
        elif key in _LAST_LAYERS:
            found = _last(key, value, change)
        elif (period := _period(config, key, value)) is not None:
            found = _repeated(period, change)
        if found is not None:
            config |= found
        elif not _is_remnant(config, key, listed):
            raise InputError(
                f"{change.prefix}: the config's {key} ({value}) says which layers are of which kind, and there is no "
                "number that says it for these slices; let each slice keep the layers' order of kinds"
            )


def _first(key: str, count: int, change: StackChange) -> dict[str, int] | None:
    """A count of the layers in front."""
    front = [source < count for source in change.sources]
    return {key: sum(front)} if front == sorted(front, reverse=True) else None


def _last(key: str, count: int, change: StackChange) -> dict[str, int] | None:
    """A count of the layers at the end."""
    end = [source >= change.old - count for source in change.sources]
    return {key: sum(end)} if end == sorted(end) else None


def _period(config: dict[str, object], key: str, value: int) -> _Period | None:
    """The rule that a key gives the length of, if it is one and not all layers are alike."""
    words = frozenset(words_of(key))
    if value < 2 or not words & _PERIOD_WORDS or not words & _COUNTED_WORDS:
        return None
    offset_key = key.replace("period", "offset")
    offset = config.get(offset_key)
    if offset_key != key and type(offset) is int:
        return _Period(key, offset_key, 0, value, offset)
    start = 1 if not _FROM_THE_SECOND.isdisjoint(config) else 0 if words & _FROM_THE_FIRST else -1
    return _Period(key, None, start, value, start % value)


def _repeated(period: _Period, change: StackChange) -> dict[str, int] | None:
    """Length and offset of a period that has the special layers where they now are."""
    special = [period.holds(source) for source in change.sources]
    if _fits(period, special):
        return {}
    for length in range(1, len(special) + 2):
        for offset in range(length) if period.offset_key is not None else (period.start % length,):
            if _fits(replace(period, length=length, offset=offset), special):
                return {period.key: length} | ({period.offset_key: offset} if period.offset_key else {})
    return None


def _fits(period: _Period, special: Sequence[bool]) -> bool:
    return all(period.holds(place) == kind for place, kind in enumerate(special))


def _lists_kinds(key: str, value: object, layers: int) -> bool:
    """Whether a value says for every layer of the donor what kind it is of."""
    return isinstance(value, (list, str)) and len(value) == layers and not _KIND_WORDS.isdisjoint(words_of(key))


def _is_about_experts(key: str) -> bool:
    return not _EXPERT_WORDS.isdisjoint(words_of(key))


def _is_remnant(config: dict[str, object], key: str, listed: set[bool]) -> bool:
    """Whether nothing is built by a rule: a list says the same, or what it is about is switched off or not there."""
    if key == "max_window_layers" and not config.get("use_sliding_window"):
        return True
    if _is_about_experts(key):
        has_experts = any("experts" in words_of(other) and is_count(value) for other, value in config.items())
        return True in listed or not has_experts
    return False in listed
