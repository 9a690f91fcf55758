"""YAML text to a tree in which everything knows its line and column.

The tree is built from the parser's events, not recursively, and bounded while it grows: nesting, size and what
aliases expand to. Aliases share nodes; merge keys (``<<``) are resolved here; nothing is ever constructed from a tag.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

from .errors import Location, Problem, RecipeError
from .yaml_nodes import YamlEntry, YamlList, YamlMap, YamlNode, YamlScalar, is_null

MAX_TEXT_BYTES = 2_000_000  # the parser takes a second a megabyte, even for blank lines
MAX_DEPTH = 64
# Aliases counted as often as they are used: the work that follows is proportional to this.
MAX_NODES = 100_000

_TAG = "tag:yaml.org,2002:"
# Longer numerals are text: converting them takes quadratic time, and no recipe means them.
_LONGEST_NUMERAL = 400


@dataclass(frozen=True, slots=True, eq=False)
class YamlDocument:
    """One document. ``used_anchors`` are those that an alias refers to; ``problems`` do not stop the reading."""

    root: YamlNode
    used_anchors: frozenset[str]
    problems: tuple[Problem, ...]


def read_yaml(text: str, file: str) -> tuple[YamlDocument, ...]:
    """The documents of a text that are not empty; after the second the reading stops.

    Raises RecipeError for what is not YAML, nested or large beyond reason, or refers to an unknown anchor.
    """
    start = Location(file, 1, 1)
    if len(text) > MAX_TEXT_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise RecipeError([Problem(start, f"the recipe is larger than {MAX_TEXT_BYTES // 1_000_000} MB")])
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        where = Location(file, before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1)
        message = f"not valid YAML: the character {error.character!r} is not allowed"
        if isinstance(error.character, int):
            message = f"not valid YAML: the character U+{error.character:04X} is not allowed"
        raise RecipeError([Problem(where, message)]) from None
    try:
        return _documents(loader, file)
    except yaml.MarkedYAMLError as error:
        raise RecipeError([_syntax_problem(error, file)]) from None
    except (ValueError, OverflowError):  # an escape or a version number that Python cannot hold
        raise RecipeError([Problem(_at(loader.get_mark(), file), "not valid YAML: a number is out of range")]) from None
    finally:
        loader.dispose()


@dataclass(slots=True, eq=False)
class _Open:
    """A collection whose end has not come yet. ``nodes`` and ``depth`` count what aliases expand to."""

    where: Location
    anchor: str | None
    is_map: bool
    children: list[YamlNode] = field(default_factory=list)  # of a mapping: key, value, key, value …
    merge_keys: set[int] = field(default_factory=set)  # positions in children
    nodes: int = 1
    depth: int = 1


@dataclass(slots=True, eq=False)
class _Building:
    """The state of one document."""

    file: str
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[YamlNode, int, int]] = field(default_factory=dict)  # node, nodes, depth
    used: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    root: YamlNode | None = None

    def declare(self, anchor: str | None, where: Location) -> None:
        """Check a new anchor's name against those before it."""
        if anchor is not None and (anchor in self.anchors or any(level.anchor == anchor for level in self.stack)):
            self.problems.append(Problem(where, f"the anchor '&{anchor}' is defined twice", "give one another name"))

    def add(self, node: YamlNode, nodes: int, depth: int, where: Location) -> None:
        """Put a finished node in its place and keep count."""
        if not self.stack:
            self.root = node
            return
        parent = self.stack[-1]
        parent.children.append(node)
        parent.nodes += nodes
        parent.depth = max(parent.depth, depth + 1)
        if len(self.stack) + depth > MAX_DEPTH:
            raise _refusal(where, f"nested more than {MAX_DEPTH} levels deep")
        if parent.nodes > MAX_NODES:
            raise _refusal(where, f"more than {MAX_NODES} values, counting each alias as what it stands for")

    def close(self) -> None:
        """Finish the innermost collection."""
        level = self.stack.pop()
        node: YamlNode
        if level.is_map:
            node = YamlMap(_entries(level, self.problems), level.where, level.anchor)
        else:
            node = YamlList(tuple(level.children), level.where, level.anchor)
        if level.anchor is not None:
            self.anchors[level.anchor] = (node, level.nodes, level.depth)
        self.add(node, level.nodes, level.depth, level.where)


def _documents(loader: yaml.SafeLoader, file: str) -> tuple[YamlDocument, ...]:
    documents = []
    building, events = _Building(file), 0
    while loader.check_event():
        event = loader.get_event()  # type: ignore[no-untyped-call]
        where = _at(event.start_mark, file)
        events += 1
        if events > 3 * MAX_NODES:  # of empty documents: a value has two at most
            raise _refusal(where, f"more than {MAX_NODES} documents")
        if isinstance(event, yaml.DocumentStartEvent):
            building = _Building(file)
        elif isinstance(event, yaml.DocumentEndEvent):
            if building.root is not None and not is_null(building.root):
                documents.append(YamlDocument(building.root, frozenset(building.used), tuple(building.problems)))
            if len(documents) > 1:
                break
        elif isinstance(event, yaml.AliasEvent):
            _add_alias(building, event.anchor, where)
        elif isinstance(event, yaml.ScalarEvent):
            _add_scalar(building, loader, event, where)
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            is_map = isinstance(event, yaml.MappingStartEvent)
            if event.tag not in (None, "!", _TAG + ("map" if is_map else "seq")):
                building.problems.append(_tag_problem(event.tag, where))
            building.declare(event.anchor, where)
            building.stack.append(_Open(where, event.anchor, is_map))
            if len(building.stack) > MAX_DEPTH:
                raise _refusal(where, f"nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            building.close()
    return tuple(documents)


def _add_alias(building: _Building, anchor: str | None, where: Location) -> None:
    assert anchor is not None, "an alias has a name"
    if any(level.anchor == anchor for level in building.stack):
        raise _refusal(where, f"the alias '*{anchor}' is inside the value that it stands for")
    if anchor not in building.anchors:
        raise _refusal(where, f"the alias '*{anchor}' refers to no anchor above it", 'a plain "*" must be in quotes')
    building.used.add(anchor)
    building.add(*building.anchors[anchor], where)


def _add_scalar(building: _Building, loader: yaml.SafeLoader, event: yaml.ScalarEvent, where: Location) -> None:
    tag = event.tag
    if tag is None or tag == "!":
        tag = loader.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
    parent = building.stack[-1] if building.stack else None
    if tag == _TAG + "merge" and parent is not None and parent.is_map and len(parent.children) % 2 == 0:
        parent.merge_keys.add(len(parent.children))
    if not tag.startswith(_TAG) or tag[len(_TAG) :] not in _SCALAR_KINDS:
        building.problems.append(_tag_problem(tag, where))
    building.declare(event.anchor, where)
    node = YamlScalar(_scalar_value(tag, event.value), event.value, where, event.anchor)
    if event.anchor is not None:
        building.anchors[event.anchor] = (node, 1, 1)
    building.add(node, 1, 1, where)


# "timestamp", "value" (=) and "merge" (<< outside a mapping) come from plain words; to a recipe they are text.
_SCALAR_KINDS = ("str", "int", "float", "bool", "null", "timestamp", "value", "merge")
_CONSTRUCTOR = yaml.constructor.SafeConstructor()


def _scalar_value(tag: str, text: str) -> str | int | float | bool | None:
    kind = tag.removeprefix(_TAG)
    node = yaml.ScalarNode(tag, text)
    if kind == "null":
        return None
    try:
        if kind == "bool":
            return bool(_CONSTRUCTOR.construct_yaml_bool(node))
        if kind == "int" and len(text) <= _LONGEST_NUMERAL:
            return int(_CONSTRUCTOR.construct_yaml_int(node))
        if kind == "float" and len(text) <= _LONGEST_NUMERAL:
            return float(_CONSTRUCTOR.construct_yaml_float(node))
    except (ValueError, OverflowError, KeyError, IndexError):
        return text  # an explicit tag that does not fit, or a numeral like 0b_: whoever wants a number says so
    return text


def _entries(level: _Open, problems: list[Problem]) -> tuple[YamlEntry, ...]:
    """The entries of a mapping: its own in file order, then those that its merge keys add."""
    own: list[YamlEntry] = []
    merged: dict[str, YamlEntry] = {}
    for position in range(0, len(level.children), 2):
        key, value = level.children[position : position + 2]
        if position in level.merge_keys:
            merged.update(_merged(value, problems))  # of several merge keys the last wins, as in PyYAML
        elif isinstance(key, YamlScalar) and isinstance(key.value, str):
            own.append(YamlEntry(key.value, value, key.where))
        elif isinstance(key, YamlScalar):
            hint = f"put it in quotes: '{key.text}'" if key.text and len(key.text) < 40 else "give it a name"
            problems.append(Problem(key.where, f"a key must be text, not {key.text or 'nothing'}"[:100], hint))
        else:
            problems.append(Problem(key.where, "a key must be text, not a list or a mapping"))
    written = {entry.key for entry in own}
    own += [entry for entry in merged.values() if entry.key not in written]
    return tuple(own)


def _merged(node: YamlNode, problems: list[Problem]) -> dict[str, YamlEntry]:
    """What a merge key brings in: a mapping, or a list of mappings of which the first has precedence."""
    found: dict[str, YamlEntry] = {}
    for part in node.items if isinstance(node, YamlList) else (node,):
        if not isinstance(part, YamlMap):
            problems.append(Problem(part.where, "a merge key (<<) takes a mapping or a list of mappings"))
            continue
        for entry in part.entries:
            found.setdefault(entry.key, entry)
    return found


def _at(mark: yaml.Mark, file: str) -> Location:
    return Location(file, mark.line + 1, mark.column + 1)


def _refusal(where: Location, message: str, hint: str = "") -> RecipeError:
    return RecipeError([Problem(where, message, hint)])


def _tag_problem(tag: str, where: Location) -> Problem:
    shown = "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag
    return Problem(where, f"the YAML tag {shown[:60]!r} means nothing in a recipe", "leave it out")


_ESCAPES = "a backslash in double quotes starts an escape: use single quotes or none"

# What PyYAML says, in part, and what usually helps.
_SYNTAX_HINTS = (
    ("'\\t'", "indent with spaces, not tabs"),
    ("while scanning an alias", 'a value that is a plain * must be in quotes: "*"'),
    ("unknown escape character", _ESCAPES),
    ("expected escape sequence", _ESCAPES),
    ("mapping values are not allowed", "check the indentation, and put text with a colon in it in quotes"),
    ("cannot start any token", "put the value in quotes"),
)


def _syntax_problem(error: yaml.MarkedYAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    where = _at(mark, file) if mark else Location(file, 1, 1)
    said = ", ".join(part for part in (error.context, error.problem) if part)
    hint = next((hint for part, hint in _SYNTAX_HINTS if part in said), "")
    # The parser sees the end of the text as a NUL.
    message = (error.problem or said).replace(repr("\0"), "the end of the recipe")
    return Problem(where, f"not valid YAML: {message}", hint)
