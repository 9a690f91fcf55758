"""The keys of a recipe's mappings: which are valid where, and what is said about the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .suggest import closest, did_you_mean, near_miss
from .yaml_nodes import YamlEntry, YamlList, YamlMap, YamlNode, YamlScalar, holds_used_anchor, is_null

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .errors import Location
    from .findings import Findings
    from .methoddef import MethodDef


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of mapping: what it is called in messages, and the keys it may have.

    ``ignored`` are keys of mergekit's format that run without having an effect here, and why.
    """

    title: str
    keys: tuple[str, ...]
    ignored: tuple[tuple[str, str], ...] = ()
    is_recipe: bool = False


RECIPE = Shape(
    "the recipe",
    (
        "merge_method",
        "base_model",
        "models",
        "slices",
        "modules",
        "parameters",
        "dtype",
        "out_dtype",
        "tokenizer_source",
        "tokenizer",
        "chat_template",
        "name",
        "seed",
    ),
    ignored=(("random_seed", "write 'seed' to fix the random masks"),),
    is_recipe=True,
)
MODEL = Shape("an entry of models", ("model", "parameters"))
SOURCE = Shape("a source of a slice", ("model", "layer_range", "parameters"))
SLICE = Shape(
    "a slice",
    ("sources", "base_model", "parameters"),
    ignored=(("residual_weight", "no method reads it"),),
)
MODULE = Shape("a module", ("models", "slices", "parameters"))
CHOICE = Shape("a filter", ("filter", "value"))
MODEL_REFERENCE = Shape(
    "a model reference",
    ("model", "lora", "path", "revision"),
    ignored=(("override_architecture", "the architecture is read from the model itself"),),
)
MODEL_PATH = Shape("a model path", ("path", "revision"))
TOKENIZER = Shape("the tokenizer", ("source", "tokens", "pad_to_multiple_of"))
TOKEN = Shape("a token", ("source", "force"))
TOKEN_SOURCE = Shape("the source of a token", ("kind", "model", "token", "token_id", "lora", "path", "revision"))

_EVERY_KEY = frozenset(
    key
    for shape in (RECIPE, MODEL, SOURCE, SLICE, MODULE, CHOICE, MODEL_REFERENCE, TOKENIZER, TOKEN, TOKEN_SOURCE)
    for key in shape.keys
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What every part of the parser needs to know.

    ``method`` is None where the recipe names none that exists.
    """

    findings: Findings
    used_anchors: frozenset[str]
    methods: Mapping[str, MethodDef]
    method: MethodDef | None = None

    def error(self, where: Location, message: str, hint: str = "") -> None:
        """A mistake."""
        self.findings.error(where, message, hint)

    def warn(self, where: Location, message: str, hint: str = "") -> None:
        """Something suspicious."""
        self.findings.warn(where, message, hint)


def fields_of(node: YamlNode, shape: Shape, reading: Reading) -> dict[str, YamlEntry] | None:
    """The entries of a mapping by valid key, those without a value left out; None if it is not a mapping.

    A near miss counts as the key that was meant (unless near misses are let through), so that one slip is one message.
    """
    if not isinstance(node, YamlMap):
        wanted = ", ".join(shape.keys)
        reading.error(node.where, f"{shape.title} must be a mapping, not {describe(node)}", f"its keys: {wanted}")
        return None
    found: dict[str, YamlEntry] = {}
    given = {entry.key for entry in node.entries}
    for entry in unrepeated(node, lambda key: key in shape.keys, reading):
        if entry.key in shape.keys:
            found[entry.key] = entry
        else:
            meant = _report_unknown(entry, shape, given, reading)
            if meant is not None:
                found.setdefault(meant, entry)
    return {key: entry for key, entry in found.items() if not is_null(entry.value)}


def unrepeated(node: YamlMap, is_known: Callable[[str], bool], reading: Reading) -> Iterator[YamlEntry]:
    """The entries of a mapping, of a repeated key the first; a repeated known key is a mistake."""
    first: dict[str, Location] = {}
    for entry in node.entries:
        before = first.setdefault(entry.key, entry.where)
        if before is entry.where:
            yield entry
        elif is_known(entry.key):
            reading.error(entry.where, f"{entry.key!r} is given twice", f"first on line {before.line}; keep one")
        else:
            reading.warn(entry.where, f"{shown(entry.key)} is given twice", f"first on line {before.line}")


def is_holder(entry: YamlEntry, reading: Reading) -> bool:
    """Whether the entry is there to hold an anchor for other places."""
    return holds_used_anchor(entry.value, reading.used_anchors)


def shown(name: str) -> str:
    """A name as messages quote it: never a page of it."""
    return repr(name if len(name) <= 60 else name[:57] + "...")


def describe(node: YamlNode) -> str:
    """What a node is, in the words of a message."""
    if isinstance(node, YamlList):
        return "a list"
    if isinstance(node, YamlMap):
        return "a mapping"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return f"the boolean {node.text}"
    return shown(node.text) if isinstance(node.value, str) else node.text[:60]


def text_of(node: YamlNode, what: str, reading: Reading) -> str | None:
    """A scalar as text; a mistake otherwise."""
    if isinstance(node, YamlScalar) and isinstance(node.value, str):
        return node.value
    hint = "put it in quotes" if isinstance(node, YamlScalar) and node.value is not None else ""
    reading.error(node.where, f"{what} must be text, not {describe(node)}", hint)
    return None


def items_of(node: YamlNode, what: str, reading: Reading) -> tuple[YamlNode, ...]:
    """The items of a list that must not be empty; a mistake otherwise."""
    if not isinstance(node, YamlList):
        hint = "start each entry with '- '" if isinstance(node, YamlMap) else ""
        reading.error(node.where, f"{what} must be a list, not {describe(node)}", hint)
        return ()
    if not node.items:
        reading.error(node.where, f"{what} is empty")
    return node.items


def _report_unknown(entry: YamlEntry, shape: Shape, given: set[str], reading: Reading) -> str | None:
    """Say what there is to say about a key that is not valid here; the key it stands for, if it is a near miss."""
    key, where = entry.key, entry.where
    holder = is_holder(entry, reading)
    if holder and shape.is_recipe:
        return None
    if key in dict(shape.ignored):
        reading.warn(where, f"{key!r} has no effect", dict(shape.ignored)[key])
        return None
    meant = near_miss(key, shape.keys)
    known_elsewhere = key in _EVERY_KEY or any(method.param(key) for method in reading.methods.values())
    if meant is not None and not (known_elsewhere and meant in given):
        if holder:  # inside the recipe such a key is odd, yet it has a use
            reading.warn(where, f"unknown key {shown(key)} in {shape.title}", did_you_mean(meant))
            return None
        reading.findings.near_miss(where, f"unknown key {shown(key)} in {shape.title}", did_you_mean(meant))
        return None if reading.findings.lenient else meant
    if holder:
        return None
    if any(method.param(key) for method in reading.methods.values()) and "parameters" in shape.keys:
        reading.warn(where, f"{key!r} has no effect in {shape.title}", "a parameter goes under 'parameters:'")
    elif known_elsewhere:
        reading.warn(where, f"{key!r} has no effect in {shape.title}", f"its keys: {', '.join(shape.keys)}")
    else:
        message = f"unknown key {shown(key)} in {shape.title}; it is ignored"
        reading.warn(where, message, did_you_mean(closest(key, shape.keys)))
    return None
