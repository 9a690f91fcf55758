"""The models of a recipe as a card lists them: what each is there for, and with which parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..engine.recipe import InputModel, ModelRef, Parameters, Recipe, Setting, Source

_HUB_ID = re.compile(r"[A-Za-z0-9_]([\w.-]{0,94}[\w])?/[A-Za-z0-9_]([\w.-]{0,94}[\w])?", re.ASCII)
_NO_OWNERS = frozenset(
    {
        "build",
        "ckpt",
        "ckpts",
        "checkpoint",
        "checkpoints",
        "data",
        "merged",
        "merges",
        "model",
        "models",
        "out",
        "output",
    }
    | {"outputs", "results", "runs", "tmp", "weights"}
)
"""Folders that people keep models in: ``models/a`` has the form of a Hub id, and is none."""

_MOST_RANGES = 4


@dataclass(frozen=True, slots=True)
class CardModel:
    """A model in the card's table.

    ``layers`` are the ranges that slices take, the last layer included; ``values`` are its parameters.
    """

    reference: str
    role: str
    layers: str
    values: Mapping[str, str]


def card_models(recipe: Recipe) -> tuple[CardModel, ...]:
    """Every model that the recipe names, the base first."""
    entries = list(_entries(recipe))
    found = []
    for ref in recipe.references():
        own = [entry for entry in entries if entry.model == ref]
        ranges = dict.fromkeys(
            f"{layers[0]}–{layers[1] - 1}"
            for entry in own
            if (layers := getattr(entry, "layer_range", None)) is not None
        )
        names = dict.fromkeys(name for entry in own for name in entry.parameters)
        values = {name: _joined(entry.parameters.get(name) for entry in own) for name in names}
        role = "base" if ref == recipe.base_model else "merged"
        found.append(CardModel(str(ref), role, _shortened(list(ranges)), values))
    return tuple(found)


def shared_values(parameters: Parameters) -> dict[str, str]:
    """The parameters of a scope, as a card shows them."""
    return {name: _value(setting) for name, setting in parameters.items()}


def hub_ids(references: Iterable[ModelRef]) -> tuple[str, ...]:
    """Models and adapters that are named by a Hub id, without revisions.

    By the text alone: a card does not depend on where the folders are found.
    """
    parts = [part for ref in references for part in (ref, ref.adapter) if part is not None]
    return tuple(dict.fromkeys(part.path for part in parts if _is_hub_id(part.path)))


def _is_hub_id(path: str) -> bool:
    if not _HUB_ID.fullmatch(path) or "--" in path or ".." in path or path.endswith(".git"):
        return False
    return path.partition("/")[0].lower() not in _NO_OWNERS


def _entries(recipe: Recipe) -> Iterator[InputModel | Source]:
    yield from recipe.models
    for part in (*recipe.slices, *(each for module in recipe.modules for each in module.slices)):
        yield from part.sources
    for module in recipe.modules:
        yield from module.models


def _joined(settings: Iterable[Setting | None]) -> str:
    """What a model's entries say of one parameter, and whether some say nothing."""
    found = dict.fromkeys(_value(setting) if setting is not None else "" for setting in settings)
    return _shortened([text for text in found if text]) + (" in part" if "" in found else "")


def _shortened(texts: list[str]) -> str:
    return ", ".join(texts[:_MOST_RANGES]) + (" …" if len(texts) > _MOST_RANGES else "")


def _value(setting: Setting) -> str:
    """A value for all tensors and layers; of anything else, that it varies."""
    if len(setting.choices) != 1 or setting.choices[0].filter not in (None, "*"):
        return "by filter"
    value = setting.choices[0].value
    if isinstance(value, tuple):
        if len(set(value)) > 1:
            return "by layer"
        value = value[0]
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
