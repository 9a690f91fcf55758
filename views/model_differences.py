"""What differs between the models of a merge, by their headers and configs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..engine.units import format_count, format_names
from .layout import clean, count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..engine.model import Model, StoredTensor

_TELLS_NOTHING = frozenset(
    {
        "architectures",  # model_type says it
        "auto_map",
        "dtype",
        "num_hidden_layers",
        "tie_word_embeddings",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "vocab_size",
    }
)
"""Keys of a config that the headers tell better, or that change nothing about what a model computes."""

_TELLS_ALONE = frozenset({"quantization_config", "rope_scaling", "rope_theta", "sliding_window"})
"""Keys that matter where only one of two configs has them; other missing ones have the default that is written."""

_NESTED = ("rope_parameters", "text_config")
_MOST_TEXT = 40


def differences(model: Model, other: Model) -> list[str]:
    """What is otherwise in a model than in another, the weightiest first; nothing where headers and configs agree."""
    return [*_measures(model, other), *_tensors(model, other), *_config(model.config, other.config)]


def _measures(model: Model, other: Model) -> Iterator[str]:
    mine, theirs = (" ".join(dtypes(each)) for each in (model, other))
    if mine != theirs:
        yield f"{mine}, not {theirs}"
    if model.layers != other.layers:
        yield f"{count(model.layers, 'layer')}, not {other.layers}"
    if model.vocabulary_rows != other.vocabulary_rows:
        rows, others = model.vocabulary_rows, other.vocabulary_rows
        yield f"{format_count(rows or 0)} vocabulary rows, not {format_count(others or 0)}"
    for name in sorted({*model.aliases, *other.aliases}):
        if name in model.aliases and name in other.tensors:
            yield f"{clean(name)} tied to {clean(model.aliases[name])}"
        elif name in other.aliases and name in model.tensors:
            yield f"{clean(name)} of its own, not tied"


def _tensors(model: Model, other: Model) -> Iterator[str]:
    """Tensors that only one has, but for layers that only one has, and tensors of another shape."""
    tied = {*model.aliases, *other.aliases}
    layers = min(model.layers, other.layers)

    def only(some: Model, others: Model) -> list[str]:
        found = []
        for name in some.tensors.keys() - others.tensors.keys() - tied:
            role = some.roles.get(name)
            if role is None or role.stack != some.primary or role.layer is None or role.layer < layers:
                found.append(name)
        return [clean(name) for name in sorted(found)]

    lacking, more = only(other, model), only(model, other)
    if lacking:
        yield f"without {format_names(lacking)}"
    if more:
        yield f"with {format_names(more)}"
    both = (name for name in model.tensors if name in other.tensors)
    shapes = [name for name in both if _shape(model.tensors[name], model) != _shape(other.tensors[name], other)]
    if shapes:
        mine, theirs = (list(each.tensors[shapes[0]].spec.shape) for each in (model, other))
        alike = f" and {count(len(shapes) - 1, 'other shape')}" if len(shapes) > 1 else ""
        yield f"{clean(shapes[0])} {mine}, not {theirs}{alike}"


def _shape(stored: StoredTensor, model: Model) -> tuple[int, ...]:
    """A shape without the rows of a vocabulary, which are told for themselves."""
    role = model.roles.get(stored.name)
    outside = role is None or role.stack is None
    return tuple(0 if outside and extent == model.vocabulary_rows else extent for extent in stored.spec.shape)


def _config(config: Mapping[str, object], other: Mapping[str, object]) -> Iterator[str]:
    if bool(config) != bool(other):
        yield f"{'with' if config else 'without'} config.json"
        return
    mine, theirs = _flat(config), _flat(other)
    for key in dict.fromkeys((*mine, *theirs)):
        if key in _TELLS_NOTHING or key.startswith("_"):
            continue
        if (key not in mine or key not in theirs) and key not in _TELLS_ALONE:
            continue
        here, there = mine.get(key), theirs.get(key)
        if here != there:
            yield f"{clean(key)} {_value(here)}, not {_value(there)}"


def _flat(config: Mapping[str, object]) -> dict[str, object]:
    """A config with what newer versions nest in the place where older ones have it."""
    found: dict[str, object] = {}
    for key, value in config.items():
        if key in _NESTED and isinstance(value, dict):
            found.update(_flat(value))
        elif key not in found:
            found[key] = value
    return found


def _value(value: object) -> str:
    if value is None:
        return "none"
    text = clean(value if isinstance(value, str) else json.dumps(value, default=str))
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"


def dtypes(model: Model) -> list[str]:
    """The dtypes a model's tensors have."""
    return sorted({str(tensor.spec.dtype).removeprefix("torch.") for tensor in model.tensors.values()})
