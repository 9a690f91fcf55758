"""The model card: what was merged, how, and how to do it again. Front matter as the Hub reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from ..engine.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


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
            "```yaml",
            facts.recipe_text.rstrip("\n"),
            "```",
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
        lines = card.read_text(encoding="utf-8").splitlines()
        end = lines.index("---", 1) if lines[:1] == ["---"] else 0
        front = yaml.safe_load("\n".join(lines[1:end]))
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError):
        return None
    value = front.get("license") if isinstance(front, dict) else None
    return value if isinstance(value, str) else None
