"""The model card: what was merged, how, and how to do it again. Front matter as the Hub reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from ..engine.errors import InputError
from ..engine.units import format_bytes
from .input_files import read_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_FRONT_LIMIT_BYTES = 100_000
_MOST_LEVELS = 64
_TEXT = "tag:yaml.org,2002:str"
_BACKTICKS = re.compile("`+")


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the card says.

    ``models`` are the references as the recipe names them, the base first; ``hub_models`` those that read as Hub ids,
    ``org/name``. ``license`` is what all inputs agree on, None if they do not or do not say.
    """

    title: str
    method: str
    method_summary: str
    paper: str
    models: Sequence[str]
    hub_models: Sequence[str]
    license: str | None
    base_model: str | None
    recipe_text: str
    seed: int
    dtype: str
    layers: int
    tensors: int
    size_bytes: int
    version: str


def render_card(facts: CardFacts) -> str:
    """The README.md of a merged model."""
    front: dict[str, object] = {"library_name": "transformers", "tags": ["merge", "plait"]}
    if facts.hub_models:  # the Hub takes ids only; local folders are named in the table below
        front = {"base_model": list(facts.hub_models), **front}
    if facts.license is not None:
        front["license"] = facts.license
    rows = [f"| `{model}` | {'base' if model == facts.base_model else 'merged'} |" for model in facts.models]
    # Longer than any in the recipe, so that the recipe cannot end it.
    fence = "`" * max([3, *(len(run) + 1 for run in _BACKTICKS.findall(facts.recipe_text))])
    paper = f" ({facts.paper})" if facts.paper else ""
    return "\n".join(
        [
            "---",
            yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
            "---",
            f"# {facts.title}",
            "",
            f"A merge of language models made with Plait {facts.version}.",
            "",
            f"**Method**: `{facts.method}`. {facts.method_summary}{paper}.",
            "",
            "| model | role |",
            "|---|---|",
            *rows,
            "",
            f"{facts.layers} layers, {facts.tensors} tensors, {format_bytes(facts.size_bytes)}, {facts.dtype}; "
            f"seed {facts.seed}.",
            "",
            "## Recipe",
            "",
            f"{fence}yaml",
            facts.recipe_text.rstrip("\n"),
            fence,
            "",
            "## Make it again",
            "",
            "The same recipe, inputs, seed and version give the same bytes.",
            "",
            "```sh",
            f"plait run plait.yml OUT --seed {facts.seed}",
            "```",
            "",
        ]
    )


def common_license(folders: Iterable[Path]) -> str | None:
    """The licence that the cards of all inputs name; None if they differ or one does not say."""
    found = {_license(folder / "README.md") for folder in folders}
    return found.pop() if len(found) == 1 else None


def _license(card: Path) -> str | None:
    """The ``license`` of a card's front matter. A card that cannot be read says nothing: it is no weight."""
    try:
        lines = read_start(card, _FRONT_LIMIT_BYTES).splitlines()
        end = lines.index(b"---", 1) if lines[:1] == [b"---"] else 0
        return _texts(b"\n".join(lines[1:end]).decode()).get("license")
    except (InputError, ValueError, OverflowError, yaml.YAMLError):
        return None


def _texts(text: str) -> dict[str, str]:
    """The keys of a YAML mapping whose values are text; from the parser's events, so that no alias is ever expanded."""
    loader, level = yaml.SafeLoader(text), 0
    nodes: list[yaml.NodeEvent] = []
    while loader.check_event() and not isinstance(event := loader.get_event(), yaml.DocumentEndEvent):  # type: ignore[no-untyped-call]
        if (level == 0 and isinstance(event, yaml.SequenceStartEvent)) or level > _MOST_LEVELS:
            return {}
        if level == 1 and isinstance(event, yaml.NodeEvent):
            nodes.append(event)
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
    return {
        key.value: value.value
        for key, value in zip(nodes[::2], nodes[1::2], strict=False)
        if isinstance(key, yaml.ScalarEvent) and isinstance(value, yaml.ScalarEvent)
        if (value.tag or loader.resolve(yaml.ScalarNode, value.value, value.implicit)) == _TEXT  # type: ignore[no-untyped-call]
    }
