"""The model card: what was merged, how, and how to do it again. Front matter as the Hub reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from ..engine.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the card says. ``models`` are the references as the recipe names them, the base first."""

    title: str
    method: str
    method_summary: str
    paper: str
    models: Sequence[str]
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
    front = {
        "base_model": [model for model in facts.models if not _is_path(model)],
        "library_name": "transformers",
        "tags": ["merge", "plait"],
    }
    if not front["base_model"]:
        del front["base_model"]  # the Hub takes ids only; local folders are named in the table below
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


def _is_path(reference: str) -> bool:
    """Whether a reference is surely a local folder and not a Hub id of the form ``org/name``."""
    return reference.startswith((".", "/", "~")) or "\\" in reference or reference.count("/") != 1
