"""The model card: what was merged, how, and how to do it again. Front matter as the Hub reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from ..engine.units import clean, format_bytes, format_count, link_papers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .card_inputs import Inherited
    from .card_models import CardModel

_BACKTICKS = re.compile("`+")
_MARKUP = re.compile(r"[\\`*\[\]<>|&#~$]|^[+_=-]")
_CELL_END = re.compile(r"(?<!\\)\|")
_TASKS = {"ForCausalLM": "text-generation", "ForSequenceClassification": "text-classification"}
"""What the Hub calls the task of an architecture, where the name says it for certain."""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the card says.

    ``name`` is the recipe's, None without one. ``hub_ids`` are the models that the Hub knows, ``inherited`` is what the
    inputs' cards say, ``architecture`` the class in the output's config, empty without one. ``parameters`` are those
    for the whole merge. ``tokenizer`` and ``chat_template`` are what the recipe asks for, None where it does not.
    """

    name: str | None
    method: str
    method_summary: str
    paper: str
    models: Sequence[CardModel]
    hub_ids: Sequence[str]
    inherited: Inherited
    architecture: str
    parameters: Mapping[str, str]
    tokenizer: str | None
    chat_template: str | None
    recipe_text: str
    seed: int
    dtype: str
    layers: int
    tensors: int
    elements: int
    size_bytes: int
    version: str


def render_card(facts: CardFacts) -> str:
    """The README.md of a merged model."""
    # Not the folder's name: the same merge gives the same card wherever it goes.
    title = _plain(facts.name) if facts.name else f"A {facts.method} merge"
    paper = f" ({link_papers(facts.paper)})" if facts.paper else ""
    parts = [
        _front(facts),
        f"# {title}",
        f"A merge of language models made with Plait {facts.version}.",
        f"**Method**: {code(facts.method)}. {facts.method_summary}{paper}.",
        "\n".join(_table(facts)),
        "\n".join(_output(facts)),
        "## Recipe",
        _block("yaml", facts.recipe_text),
        "## Make it again",
        f"The same recipe, inputs, seed and version (Plait {facts.version}) give the same bytes. `plait.yml` in this "
        "folder is the recipe; models that lie elsewhere now are given with `--map NAME=FOLDER`.",
        _block("sh", f"plait run plait.yml OUT --seed {facts.seed}"),
    ]
    return "\n\n".join(parts) + "\n"


def _front(facts: CardFacts) -> str:
    """The front matter: what the Hub sorts and finds models by."""
    known = facts.inherited
    front: dict[str, object] = {}
    if facts.hub_ids:  # the Hub takes ids only; local folders are named in the table
        front |= {"base_model": list(facts.hub_ids), "base_model_relation": "merge"}
    front["library_name"] = known.library_name or "transformers"
    task = known.pipeline_tag or next((task for end, task in _TASKS.items() if facts.architecture.endswith(end)), None)
    if task is not None:
        front["pipeline_tag"] = task
    front["tags"] = ["merge", "plait"]
    for key, text in (
        ("license", known.license),
        ("license_name", known.license_name),
        ("license_link", known.license_link),
    ):
        if text is not None:
            front[key] = text
    for key, texts in (("language", known.languages), ("datasets", known.datasets)):
        if texts:
            front[key] = list(texts)
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000).strip()}\n---"


def _table(facts: CardFacts) -> list[str]:
    """A row for each model: what it is there for, its layers, and the parameters that models have of their own."""
    names = list(dict.fromkeys(name for model in facts.models for name in model.values))
    layers = ["layers"] if any(model.layers for model in facts.models) else []
    rows = [["model", "role", *layers, *map(code, names)]]
    rows.append(["---"] * len(rows[0]))
    for model in facts.models:
        shown = [model.layers] if layers else []
        values = [_plain(model.values.get(name, "")) for name in names]
        rows.append([code(model.reference), model.role, *shown, *values])
    return ["| " + " | ".join(_CELL_END.sub(r"\\|", cell) for cell in row) + " |" for row in rows]


def _output(facts: CardFacts) -> list[str]:
    """What came out, and what went in beside the models."""
    layers = f"{facts.layers} layers, " if facts.layers else ""
    lines = [
        f"- Output: {layers}{facts.tensors} tensors, {_parameters(facts.elements)} parameters, "
        f"{format_bytes(facts.size_bytes)} in {facts.dtype}"
    ]
    if facts.parameters:
        values = ", ".join(f"{code(name)} {_plain(value)}" for name, value in facts.parameters.items())
        lines.append(f"- Parameters of the whole merge: {values}")
    for what, text in (("Tokenizer", facts.tokenizer), ("Chat template", facts.chat_template)):
        if text is not None:
            jinja = "\n" in text.strip() or "{" in text
            lines.append(f"- {what}: {'as in the recipe' if jinja else code(text.strip())}")
    lines.append(f"- Seed: {facts.seed}")
    return lines


def code(text: str) -> str:
    """Text as a Markdown code span: nothing in it is markup, and none of it starts another line."""
    text = clean(text) or " "
    quotes = "`" * (max(map(len, _BACKTICKS.findall(text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{quotes}{pad}{text}{pad}{quotes}"


def _block(language: str, text: str) -> str:
    """Text as a fenced block, with a fence longer than any in it, so that nothing in it ends the block."""
    fence = "`" * max([3, *(len(run) + 1 for run in _BACKTICKS.findall(text))])
    return f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}"


def _plain(text: str) -> str:
    """Text as one line of Markdown that means itself."""
    return _MARKUP.sub(r"\\\g<0>", clean(text).strip())


def _parameters(count: int) -> str:
    """A count of weights as the field says it: ``8.03B``."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if count >= size:
            return f"{count / size:.2f}{unit}"
    return format_count(count)
