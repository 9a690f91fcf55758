"""The recipes that are measured: the same text goes to every tool."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

METHODS = ("dare_ties", "linear", "task_arithmetic")
WEIGHTS = (0.5, 0.4, 0.3, 0.2)
DENSITIES = (0.6, 0.5, 0.55, 0.45)


def recipe_text(method: str, models: list[Path]) -> str:
    """A recipe over a family, its base first.

    All inputs are read by every method: ``linear`` averages the base and the fine-tunes, the others merge the
    fine-tunes' task vectors into the base.
    """
    base, *finetunes = models
    averaged = models if method == "linear" else finetunes
    lines = [f"merge_method: {method}"]
    if method != "linear":
        lines.append(f"base_model: {base}")
    lines.append("models:")
    for position, model in enumerate(averaged):
        lines += [f"  - model: {model}", "    parameters:", f"      weight: {WEIGHTS[position % len(WEIGHTS)]}"]
        if method.startswith("dare"):
            lines.append(f"      density: {DENSITIES[position % len(DENSITIES)]}")
    lines.append("dtype: bfloat16")
    return "\n".join(lines) + "\n"
