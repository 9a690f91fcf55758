"""Filters of a recipe that match no tensor: most likely a slip, certainly without effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .recipe import Module, Parameters, Recipe


def unmatched_filters(recipe: Recipe, tensor_names: Iterable[str]) -> tuple[Problem, ...]:
    """A located problem for each filter that is part of none of the names, of inputs and of outputs."""
    names = tuple(tensor_names)
    matched: dict[str, bool] = {}
    problems: dict[Problem, None] = {}
    for scope in _scopes(recipe):
        for parameter, setting in scope.items():
            for choice in setting.choices:
                text = choice.filter
                if text is None or text == "*":
                    continue
                if text not in matched:
                    matched[text] = any(text in name for name in names)
                if not matched[text]:
                    problems[Problem(setting.where, f"{parameter}: the filter {text!r} matches no tensor")] = None
    return tuple(problems)


def _scopes(recipe: Recipe) -> Iterator[Parameters]:
    yield recipe.parameters
    owners: tuple[Recipe | Module, ...] = (recipe, *recipe.modules)
    for owner in owners:
        if owner is not recipe:
            yield owner.parameters
        yield from (entry.parameters for entry in owner.models)
        for part in owner.slices:
            yield part.parameters
            yield from (source.parameters for source in part.sources)
