"""The parts of a YAML tree, each with its place in the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .errors import Location


@dataclass(frozen=True, slots=True, eq=False)
class YamlScalar:
    """A word, number, boolean or null. ``text`` is how it is written, without its quotes."""

    value: str | int | float | bool | None
    text: str
    where: Location
    anchor: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class YamlList:
    """A sequence."""

    items: tuple[YamlNode, ...]
    where: Location
    anchor: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class YamlEntry:
    """A key of a mapping and its value; ``where`` is the key's place."""

    key: str
    value: YamlNode
    where: Location


@dataclass(frozen=True, slots=True, eq=False)
class YamlMap:
    """A mapping, merge keys resolved. A key that is written twice is there twice, in file order."""

    entries: tuple[YamlEntry, ...]
    where: Location
    anchor: str | None = None


YamlNode: TypeAlias = "YamlScalar | YamlList | YamlMap"


def is_null(node: YamlNode) -> bool:
    """Whether nothing is written here (or ``null`` or ``~``)."""
    return isinstance(node, YamlScalar) and node.value is None


def holds_used_anchor(node: YamlNode, used_anchors: frozenset[str]) -> bool:
    """Whether an alias elsewhere takes its value from this node or from inside it."""
    if not used_anchors:
        return False
    todo, seen = [node], set[int]()
    while todo:
        current = todo.pop()
        if current.anchor in used_anchors:
            return True
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, YamlList):
            todo.extend(current.items)
        elif isinstance(current, YamlMap):
            todo.extend(entry.value for entry in current.entries)
    return False
