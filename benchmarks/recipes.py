"""The recipes that are measured: the same text goes to every tool."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Inputs: TypeAlias = Literal["task vectors", "base and one", "all", "two"]

WEIGHTS = (0.5, 0.4, 0.3, 0.2)
DENSITIES = (0.6, 0.5, 0.55, 0.45)


@dataclass(frozen=True)
class Measured:
    """What a method is measured with: which models of a family, and its parameters besides weight and density."""

    inputs: Inputs = "task vectors"
    weight: bool = True
    density: bool = False
    settings: Mapping[str, float] = field(default_factory=dict)


RECIPES: Mapping[str, Measured] = {
    "arcee_fusion": Measured("base and one", weight=False),
    "breadcrumbs": Measured(density=True, settings={"gamma": 0.01}),
    "dare_ties": Measured(density=True),
    "della": Measured(density=True, settings={"epsilon": 0.15}),
    "karcher": Measured("two", weight=False),
    "linear": Measured("all"),
    "model_stock": Measured(weight=False),
    "multislerp": Measured("all"),
    "nearswap": Measured("base and one", weight=False, settings={"t": 0.001}),
    "nuslerp": Measured("two"),
    "ram": Measured(weight=False),
    "sce": Measured(weight=False, settings={"select_topk": 0.5}),
    "slerp": Measured("base and one", weight=False, settings={"t": 0.4}),
    "task_arithmetic": Measured(),
    "ties": Measured(density=True),
}

METHODS = tuple(RECIPES)

DEFAULT_METHODS = ("dare_ties", "linear", "task_arithmetic")


def recipe_text(method: str, models: list[Path]) -> str:
    """A recipe over a family, its base first."""
    measured = RECIPES[method]
    base, *finetunes = models
    merged = {"task vectors": finetunes, "base and one": models[:2], "all": models, "two": finetunes[:2]}[
        measured.inputs
    ]
    lines = [f"merge_method: {method}"]
    if measured.inputs in ("task vectors", "base and one"):
        lines.append(f"base_model: {base}")
    lines.append("models:")
    for position, model in enumerate(merged):
        lines.append(f"  - model: {model}")
        values = {"weight": WEIGHTS} if measured.weight else {}
        values |= {"density": DENSITIES} if measured.density else {}
        if values:
            lines.append("    parameters:")
            lines += [f"      {name}: {each[position % len(each)]}" for name, each in values.items()]
    if measured.settings:
        lines.append("parameters:")
        lines += [f"  {name}: {value}" for name, value in measured.settings.items()]
    lines.append("dtype: bfloat16")
    return "\n".join(lines) + "\n"
