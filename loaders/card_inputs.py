"""What the inputs' own model cards say, and what of it holds for a merge of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from ..engine.errors import InputError
from .input_files import read_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_FRONT_BYTES = 100_000
_MOST_LEVELS = 64
_MOST_ENTRIES = 300
_TEXT = "tag:yaml.org,2002:str"

_WORD = re.compile(r"[a-z0-9]([a-z0-9.+-]{0,98}[a-z0-9+])?")
"""A licence, a task or a library, as the Hub names them."""

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{1,8}){0,3}|code|multilingual")
_DATASET = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_LINK = re.compile(r"https?://[!-;=?-~]{4,500}")


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a merge takes over from the cards of its inputs.

    Of a licence, with its name and link, a task and a library: what all inputs agree on, else None. For task and
    library it is enough if those that name one agree. Of languages and data sets: all, in the order of the inputs.
    """

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    pipeline_tag: str | None = None
    library_name: str | None = None
    languages: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


def inherited(folders: Iterable[Path]) -> Inherited:
    """Read the cards of all inputs. A card that cannot be read says nothing: it is no weight."""
    cards = [_front(folder / "README.md") for folder in dict.fromkeys(folders)]
    license_id, license_name, license_link = _license(cards)
    return Inherited(
        license=license_id,
        license_name=license_name,
        license_link=license_link,
        pipeline_tag=_agreed(cards, "pipeline_tag"),
        library_name=_agreed(cards, "library_name"),
        languages=_all(cards, "language", _LANGUAGE),
        datasets=_all(cards, "datasets", _DATASET),
    )


def _license(cards: Sequence[Mapping[str, Sequence[str]]]) -> tuple[str | None, str | None, str | None]:
    """The licence that all cards name, with name and link. One that is ``other`` is known by its name alone."""
    identifier, name, link = (_same(cards, key) for key in ("license", "license_name", "license_link"))
    name = name if name and name.isprintable() and len(name) <= 100 else None
    if identifier is None or not _WORD.fullmatch(identifier.lower()):
        return None, None, None
    if identifier.lower() in ("other", "unknown") and name is None:
        return None, None, None
    # A file of the inputs is not in the output: only what is on the web can be linked to.
    return identifier.lower(), name, link if link and _LINK.fullmatch(link) else None


def _same(cards: Sequence[Mapping[str, Sequence[str]]], key: str) -> str | None:
    """What all cards have under a key, empty if none of them has it; None where they differ."""
    found = {" ".join(card.get(key, ())).lower(): " ".join(card.get(key, ())) for card in cards}
    return next(iter(found.values())) if len(found) == 1 else None


def _agreed(cards: Sequence[Mapping[str, Sequence[str]]], key: str) -> str | None:
    """What all cards that name one agree on."""
    found = {text for card in cards for text in card.get(key, ())}
    only = found.pop() if len(found) == 1 else ""
    return only if _WORD.fullmatch(only) else None


def _all(cards: Sequence[Mapping[str, Sequence[str]]], key: str, form: re.Pattern[str]) -> tuple[str, ...]:
    """Everything that is named under a key and has the form that the Hub takes."""
    found = dict.fromkeys(text for card in cards for text in card.get(key, ()) if form.fullmatch(text))
    return tuple(found)[:_MOST_ENTRIES]


def _front(card: Path) -> dict[str, tuple[str, ...]]:
    """The keys of a card's front matter with their texts, one or a list; nothing of a card that cannot be read."""
    try:
        lines = read_start(card, _FRONT_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip().splitlines()
        end = [line.rstrip() for line in lines].index(b"---", 1) if lines and lines[0] == b"---" else 0
        return _texts(b"\n".join(lines[1:end]).decode())
    except (InputError, ValueError, OverflowError, yaml.YAMLError):
        return {}


def _texts(text: str) -> dict[str, tuple[str, ...]]:
    """The keys of a YAML mapping whose values are text, or lists of it.

    From the parser's events, so that no alias is ever expanded and no object made.
    """
    loader, level = yaml.SafeLoader(text), 0
    nodes: list[tuple[yaml.NodeEvent, list[yaml.ScalarEvent]]] = []
    while loader.check_event() and not isinstance(event := loader.get_event(), yaml.DocumentEndEvent):  # type: ignore[no-untyped-call]
        if (level == 0 and isinstance(event, yaml.SequenceStartEvent)) or level > _MOST_LEVELS:
            return {}
        if level == 1 and isinstance(event, yaml.NodeEvent):
            nodes.append((event, [event] if isinstance(event, yaml.ScalarEvent) else []))
        elif level == 2 and isinstance(event, yaml.ScalarEvent) and _takes_lists(nodes):
            nodes[-1][1].append(event)
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
    return {
        key.value: tuple(each.value for each in values if _is_text(loader, key.value, each))
        for (key, _), (_, values) in zip(nodes[::2], nodes[1::2], strict=False)
        if isinstance(key, yaml.ScalarEvent)
    }


def _takes_lists(nodes: Sequence[tuple[yaml.NodeEvent, object]]) -> bool:
    """Whether the last node is a list, under a key that may have one; a model under several licences has none here."""
    if len(nodes) % 2 or not isinstance(nodes[-1][0], yaml.SequenceStartEvent):
        return False
    key = nodes[-2][0]
    return isinstance(key, yaml.ScalarEvent) and key.value in ("language", "datasets", "pipeline_tag")


def _is_text(loader: yaml.SafeLoader, key: str, event: yaml.ScalarEvent) -> bool:
    """Whether a value is text. Norwegian is, too, though YAML takes ``no`` for a boolean."""
    if key == "language" and event.tag is None:
        return True
    return bool((event.tag or loader.resolve(yaml.ScalarNode, event.value, event.implicit)) == _TEXT)  # type: ignore[no-untyped-call]
