"""The output's config.json: the donor's, with layers, dtype, vocabulary and ties as they are now."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING

from ..engine.errors import InputError
from .config_keys import (
    LayerCount,
    configs,
    is_count,
    is_extra_count,
    layer_counts,
    part_of,
    stack_word,
    words_of,
)
from .layer_lists import OTHER_MAPPINGS, StackChange, follow_layers
from .layer_rules import follow_rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DTYPE_KEYS = ("dtype", "torch_dtype")
_DTYPE_SINCE = (4, 56)
"""The first version of transformers that writes ``dtype``; older ones read only ``torch_dtype``."""


def output_config(
    donor_config: Mapping[str, object],
    *,
    stack_layers: Mapping[str, tuple[int, tuple[int, ...]]],
    dtype_name: str,
    vocabulary_rows: int | None = None,
    tie_word_embeddings: bool | None = None,
) -> dict[str, object]:
    """Make the output's config from the donor's. Pure; key order is kept, what is not named here is not touched.

    ``stack_layers`` gives for each stack's prefix the donor's layer count and, for each output layer, the donor layer
    it comes from: counts, per-layer lists and lists of layer numbers follow it, in the (nested) config that is about
    this stack. ``dtype_name`` is written under the key the donor uses. ``vocabulary_rows`` and
    ``tie_word_embeddings`` are written where given. An empty config (a model without one) stays empty. Raises
    InputError where a config cannot say what became of the layers.
    """
    config: dict[str, object] = copy.deepcopy(dict(donor_config))
    if not config:
        return config
    done: set[tuple[tuple[str, ...], str]] = set()
    changes = [
        change
        for prefix, (old, sources) in stack_layers.items()
        if sources != tuple(range(old))
        for change in _changes(donor_config, prefix, old, sources)
    ]
    for change in changes:
        _restack(_at(config, change.path), change, done)
    _set_dtype(config, dtype_name)
    if vocabulary_rows is not None:
        _set_vocabulary(config, vocabulary_rows)
    if tie_word_embeddings is not None:
        _set_ties(config, tie_word_embeddings)
    return config


def _changes(config: Mapping[str, object], prefix: str, old: int, sources: tuple[int, ...]) -> list[StackChange]:
    """Which configs describe a stack, and under which keys."""
    counts = _about(layer_counts(config), prefix)
    fitting = [count for count in counts if old in (count.count, count.count + count.extra)]
    if fitting:
        paths = dict.fromkeys(count.path for count in fitting)
        return [
            StackChange(prefix, path, tuple(count for count in fitting if count.path == path), old, sources)
            for path in paths
        ]
    if counts:
        said = ", ".join(f"{_full_key(count)} {count.count}" for count in counts)
        raise InputError(
            f"{prefix}: {old} layers are stored, and the config counts others ({said}); "
            "slices that change how many there are cannot be written down"
        )
    part = part_of(prefix)
    home = [path for path, _ in configs(config) if len(path) == 1 and part_of(path[0]) == (part or "text")]
    path = home[0] if home else ()
    if not home and part not in ("", "text"):
        return []
    # Left out of the donor's config because it is the default of its family: now it has to be said.
    return [StackChange(prefix, path, (LayerCount(path, "num_hidden_layers", old),), old, sources)]


def counts_about(config: Mapping[str, object], prefix: str) -> list[LayerCount]:
    """The layer counts of a config that are about a stack."""
    return _about(layer_counts(config), prefix)


def _about(counts: Sequence[LayerCount], prefix: str) -> list[LayerCount]:
    """The counts that are about a stack rather than about another part of the model."""
    part = part_of(prefix)
    if part in ("", "text"):
        chosen = [count for count in counts if count.part == "text" or not count.path]
        chosen = chosen or [count for count in counts if count.part == ""]
    else:
        chosen = [count for count in counts if count.part == part]
        chosen = chosen or [count for count in counts if not count.path and all(not other.path for other in counts)]
    own = stack_word(prefix)
    specific = [count for count in chosen if own is not None and stack_word(_full_key(count)) == own]
    if not specific and part == "" and own is not None:
        # The config of an encoder or a decoder, which may be one of text and say so only further inside.
        specific = [c for c in counts if c.path and c.part in ("", "text") and stack_word(_full_key(c)) == own]
    generic = [count for count in chosen if stack_word(_full_key(count)) is None]
    if not specific:
        return generic if generic or own is not None else chosen
    # Where a config counts encoder and decoder apart, its plain count is the encoder's.
    return specific + generic if own == "encoder" else specific


def _full_key(count: LayerCount) -> str:
    return ".".join((*count.path, count.key))


def _restack(config: dict[str, object], change: StackChange, done: set[tuple[tuple[str, ...], str]]) -> None:
    """Rewrite the keys of one config that count or list the layers of a stack."""
    old, new, stored = change.old, len(change.sources), change.old
    for count in change.counts:
        if count.count == old:
            config[count.key] = new
            continue
        # The config counts the stack's last layers apart (next-token prediction): so does the output.
        stored = count.count
        plain = sum(source < stored for source in change.sources)
        config[count.key] = plain
        for key in [key for key, value in config.items() if is_extra_count(key) and is_count(value)][:1]:
            config[key] = new - plain
    follow_rules(config, change)
    follow_layers(config, change, (old, stored), change.path, done)


def _set_dtype(config: dict[str, object], dtype_name: str) -> None:
    """Write the dtype wherever the config has one, and at the top in any case."""
    used = [key for _, inner in configs(config) for key in _DTYPE_KEYS if isinstance(inner.get(key), str)]
    for path, inner in _mutable_configs(config):
        if not path or OTHER_MAPPINGS.isdisjoint(words_of(path[-1])):
            for key in _DTYPE_KEYS:
                if isinstance(inner.get(key), str):
                    inner[key] = dtype_name
    present = [key for key in _DTYPE_KEYS if key in config]
    for key in present or used[:1] or [_dtype_key(config)]:
        config[key] = dtype_name


def _dtype_key(config: Mapping[str, object]) -> str:
    """The key of the library version that wrote the config; ``torch_dtype`` is read by all of them."""
    version = re.match(r"^([0-9]{1,9})\.([0-9]{1,9})", str(config.get("transformers_version")))
    return "dtype" if version and (int(version[1]), int(version[2])) >= _DTYPE_SINCE else "torch_dtype"


def _set_vocabulary(config: dict[str, object], rows: int) -> None:
    """Write the vocabulary's size wherever the text has one; at the top if nowhere."""
    found = False
    for path, inner in _mutable_configs(config):
        if is_count(inner.get("vocab_size")) and part_of(".".join(path)) in ("", "text"):
            inner["vocab_size"], found = rows, True
    if not found:
        config["vocab_size"] = rows


def _set_ties(config: dict[str, object], tied: bool) -> None:
    """Write whether the head is the input embedding, wherever the config says it; at the top if nowhere."""
    found = False
    for _, inner in _mutable_configs(config):
        if "tie_word_embeddings" in inner:
            inner["tie_word_embeddings"], found = tied, True
    if not found:
        config["tie_word_embeddings"] = tied


def _mutable_configs(
    config: dict[str, object], path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], dict[str, object]]]:
    """The config and every mapping in it, to be written to."""
    found = [(path, config)]
    for key, value in config.items():
        if isinstance(value, dict):
            found += _mutable_configs(value, (*path, key))
    return found


def _at(config: dict[str, object], path: tuple[str, ...]) -> dict[str, object]:
    """The nested config at a path."""
    for key in path:
        inner = config[key]
        assert isinstance(inner, dict)
        config = inner
    return config
