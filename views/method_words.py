"""A method's declaration and cost in words: the same on the screen and in the docs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engine.trial import spelled
from .layout import count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..engine.methoddef import MethodDef, Param
    from ..engine.trial import Cost, Trial

SCOPES = {"model": "per model", "tensor": "per tensor"}
_BASES = {"required": "required", "optional": "optional", "unused": "not used"}


def families(methods: Mapping[str, MethodDef]) -> dict[str, list[MethodDef]]:
    """The methods by family; both in alphabetical order."""
    found: dict[str, list[MethodDef]] = {}
    for method in sorted(methods.values(), key=lambda method: (method.family, method.name)):
        found.setdefault(method.family, []).append(method)
    return found


def models(method: MethodDef) -> str:
    """How many models it merges."""
    if method.max_inputs == method.min_inputs:
        return str(method.min_inputs)
    if method.max_inputs is None:
        return f"{method.min_inputs} or more"
    return f"{method.min_inputs} to {method.max_inputs}"


def models_and_base(method: MethodDef) -> str:
    """How many models it merges, and whether the base is one of them."""
    if method.base == "unused":
        return models(method)
    return models(method) + (", the base not counted" if method.excludes_base else ", the base being one of them")


def base(method: MethodDef) -> str:
    """Whether it has a base model."""
    return _BASES[method.base]


def passes(trial: Trial, quote: str = "") -> str:
    """How often the inputs are read and how a tensor is cut, and what settings, quoted, change that."""
    changed: dict[str, list[str]] = {}
    for settings, cost in trial.switches:
        text = " and ".join(f"{quote}{name}: {value}{quote}" for name, value in settings)
        changed.setdefault(_cost(cost, trial.cost), []).append(text)
    return "; ".join([_cost(trial.cost), *(f"{cost} with {' or '.join(texts)}" for cost, texts in changed.items())])


def passes_in_short(trial: Trial) -> str:
    """The same as numbers alone: ``1 to 2 passes``."""
    numbers = sorted({trial.cost.passes, *(cost.passes for _, cost in trial.switches)})
    return f"{numbers[0]} to {numbers[-1]} passes" if len(numbers) > 1 else count(numbers[0], "pass", "passes")


_CUTS = {"row": "by whole rows", "panel": "by panels of a matrix", "whole": "a tensor at once"}


def _cost(cost: Cost, usual: Cost | None = None) -> str:
    notes = [_CUTS[cost.granularity]] if cost.granularity in _CUTS else []
    notes += [f"{cost.held_mib} MiB beside the tiles"] if cost.held_mib else []
    same = usual is not None and (cost.granularity, cost.held_mib) == (usual.granularity, usual.held_mib)
    return f"{cost.passes} ({', '.join(notes)})" if notes and not same else str(cost.passes)


def default(param: Param) -> str:
    """What a parameter is where the recipe does not say."""
    if param.required:
        return "required"
    return "none" if param.default is None else spelled(param.default)


def accepted(param: Param) -> str:
    """The bounds of a number, or the words to choose from; empty where anything of the kind goes."""
    if param.choices:
        return f"one of {', '.join(param.choices)}"
    bounds = (("at least", param.low), ("at most", param.high))
    return ", ".join(f"{words} {value:g}" for words, value in bounds if value is not None)
