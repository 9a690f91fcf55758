"""What the keys of a config.json mean, read from their words: layer counts, and which part of a model they describe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Part: TypeAlias = Literal["text", "vision", "audio", "talker", ""]
"""Which part of a multimodal model; "" is the whole model, or a part whose name says nothing."""

_PARTS: tuple[tuple[Part, frozenset[str]], ...] = (
    # A talker has a text part of its own, a vision-language part is named after its eyes: text is asked last.
    ("talker", frozenset({"talker", "wav", "vocoder", "codec", "predictor"})),
    (
        "vision",
        frozenset({"vision", "visual", "vit", "image", "img", "video", "clip", "siglip", "pixel", "qformer", "sam"}),
    ),
    ("audio", frozenset({"audio", "speech", "sound", "mel"})),
    ("text", frozenset({"text", "llm", "language", "thinker"})),
)
_LAYER_WORDS = frozenset({"layer", "layers", "block", "blocks"})
_COUNT_WORDS = frozenset({"n", "num", "number", "of", "encoder", "decoder"})
_PLAIN_WORDS = frozenset(
    # Other words make it a count of something else: num_dense_layers, num_kv_shared_layers, max_window_layers.
    {"hidden", "transformer", "text", "vision", "audio", "language", "model", "single", "double", "self"}
    | {"attends", "per"}
)
_ONE_WORD_KEYS = frozenset({"depth", "layers", "nlayers", "nlayer"})
_EXTRA_WORDS = frozenset({"nextn", "mtp"})
_STACK_WORDS = ("encoder", "decoder", "single", "double")
"""Words that tell two stacks of one config apart: ``num_decoder_layers``, ``num_single_layers``."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@dataclass(frozen=True, slots=True)
class LayerCount:
    """A layer count in a config: ``path`` leads to the (nested) config that holds ``key``.

    ``extra`` counts layers that are stored in the stack behind those of ``count``: the next-token-prediction layers
    of the same config.
    """

    path: tuple[str, ...]
    key: str
    count: int
    extra: int = 0

    @property
    def part(self) -> Part:
        """The part of the model that the count is about."""
        return part_of(".".join(self.path))


def words_of(name: str) -> tuple[str, ...]:
    """The words of a key or a tensor name, in lower case, without numbers: ``numHidden_layers2`` has three."""
    return tuple(word.lower() for word in _WORD.findall(name))


def part_of(name: str) -> Part:
    """Which part of a multimodal model a tensor name, a stack's prefix or a config's path belongs to."""
    words = frozenset(words_of(name))
    for part, markers in _PARTS:
        if words & markers:
            return part
    return ""


def stack_word(name: str) -> str | None:
    """The word of a key or prefix that says which of two stacks it is about; None if it says nothing."""
    return next((word for word in words_of(name) if word in _STACK_WORDS), None)


def is_layer_count(key: str) -> bool:
    """Whether a key counts the layers of a stack: ``num_hidden_layers``, ``n_layer``, ``encoder_layers``, ``depth``."""
    words = words_of(key)
    if len(words) == 1:
        return words[0] in _ONE_WORD_KEYS
    if not words or words[-1] not in _LAYER_WORDS or words[0] not in _COUNT_WORDS:
        return False
    return set(words[1:-1]) <= _PLAIN_WORDS | _COUNT_WORDS


def is_extra_count(key: str) -> bool:
    """Whether a key counts layers stored behind the others, such as ``num_nextn_predict_layers``."""
    words = frozenset(words_of(key))
    return bool(words & _EXTRA_WORDS and words & _LAYER_WORDS)


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value is a count: an integer above zero and not a boolean."""
    return type(value) is int and value > 0


def configs(
    config: Mapping[str, object], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, object]]]:
    """The config and every mapping nested in it, each with the keys that lead to it."""
    yield path, config
    for key, value in config.items():
        if isinstance(value, dict):
            yield from configs(value, (*path, key))


def layer_counts(config: Mapping[str, object]) -> tuple[LayerCount, ...]:
    """Every layer count of a config and of the configs nested in it."""
    found = []
    for path, inner in configs(config):
        extra = sum(value for key, value in inner.items() if is_extra_count(key) and is_count(value))
        found += [
            LayerCount(path, key, value, extra)
            for key, value in inner.items()
            if is_layer_count(key) and is_count(value)
        ]
    return tuple(found)
