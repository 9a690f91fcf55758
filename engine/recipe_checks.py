"""Whether a recipe gives its method what it needs: base, number of inputs, required parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import Problem
from .model_reference import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .errors import Location
    from .methoddef import MethodDef
    from .recipe import InputModel, ModelRef, Parameters, Recipe, Slice, Source
    from .recipe_fields import Reading


@dataclass(frozen=True, slots=True)
class _Group:
    """Inputs that are merged with each other, and the scopes around them from the inside out."""

    what: str
    inputs: tuple[InputModel | Source, ...]
    scopes: tuple[Parameters, ...]
    where: Location
    is_slice: bool


def check_inputs(recipe: Recipe, method: MethodDef, reading: Reading) -> None:
    """Report what the method needs and the recipe does not give."""
    base_missing = method.base == "required" and recipe.base_model is None
    if base_missing:
        hint = "write 'base_model:' and the model that the others were made from"
        reading.error(recipe.where["merge_method"], f"{method.name} needs a base model", hint)
    groups = tuple(_groups(recipe))
    # Which inputs count depends on the base: without it, nothing further is certain.
    if not (base_missing or recipe.base_model == UNREADABLE):
        for group in groups:
            _check_base(group, recipe.base_model, method, reading)
            _check_count(group, recipe.base_model, method, reading)
            _check_parameters_of_models(group, recipe.base_model, method, reading)
    _check_parameters_of_tensors(groups, recipe, method, reading)


def unsupported(recipe: Recipe) -> tuple[Problem, ...]:
    """What the recipe asks for in the right form, and Plait cannot do yet, in file order."""
    found = []
    named = [(entry.model, entry.where) for group in _groups(recipe) for entry in group.inputs]
    if recipe.base_model is not None and "base_model" in recipe.where:
        named.append((recipe.base_model, recipe.where["base_model"]))
    for model, where in named:
        if model.adapter is not None:
            hint = "merge the adapter into its model first, and name the result"
            found.append(Problem(where, f"{model}: adapters are not available yet", hint))
    return tuple(sorted(dict.fromkeys(found), key=lambda problem: problem.where))


def _groups(recipe: Recipe) -> Iterator[_Group]:
    top = recipe.parameters
    if recipe.models:
        yield _Group("the recipe", recipe.models, (top,), recipe.where["models"], is_slice=False)
    yield from _groups_of_slices(recipe.slices, (top,))
    for module in recipe.modules:
        scopes = (module.parameters, top)
        if module.models:
            yield _Group(f"the module {module.name!r}", module.models, scopes, module.where, is_slice=False)
        yield from _groups_of_slices(module.slices, scopes)


def _groups_of_slices(slices: Iterable[Slice], scopes: tuple[Parameters, ...]) -> Iterator[_Group]:
    for part in slices:
        if part.sources:
            yield _Group("this slice", part.sources, (part.parameters, *scopes), part.where, is_slice=True)


def _check_base(group: _Group, base: ModelRef | None, method: MethodDef, reading: Reading) -> None:
    """In a slice the base must be among the sources: nothing else says which of its layers are meant."""
    # A method that leaves the base out works on task vectors as soon as there is a base.
    needed = method.base == "required" or (method.base == "optional" and method.excludes_base and base is not None)
    if not (group.is_slice and needed) or _has_unreadable(group):
        return
    if all(source.model != base for source in group.inputs):
        message = f"the base model {base} is not among the sources of this slice, so its layers are not known"
        reading.error(group.where, message, "add it to the sources with its layer_range")


def _check_count(group: _Group, base: ModelRef | None, method: MethodDef, reading: Reading) -> None:
    count, added = sum(_counts(entry, base, method) for entry in group.inputs), ""
    if method.excludes_base:
        added = ", not counting the base model" if count < len(group.inputs) else ""
    elif method.base == "required" and all(entry.model != base for entry in group.inputs):
        if group.is_slice or _has_unreadable(group):
            return  # the base is missing, and that is reported
        count, added = count + 1, " with the base model"
    least, most = method.min_inputs, method.max_inputs
    if count >= least and (most is None or count <= most):
        return
    wanted = f"exactly {least}" if least == most else f"at least {least}" if count < least else f"at most {most}"
    models = "model" if wanted.endswith(" 1") else "models"
    reading.error(group.where, f"{method.name} merges {wanted} {models}, and {group.what} has {count}{added}")


def _check_parameters_of_models(group: _Group, base: ModelRef | None, method: MethodDef, reading: Reading) -> None:
    for param in method.params:
        if param.scope != "model" or not param.required:
            continue
        for entry in group.inputs:
            scopes = (entry.parameters, *group.scopes)
            if entry.model == UNREADABLE or not _counts(entry, base, method):
                continue
            if not any(param.name in scope for scope in scopes):
                message = f"the model {entry.model} has no {param.name!r}, which {method.name} needs"
                hint = f"write '{param.name}:' under its 'parameters:', or at the top for all models"
                reading.error(entry.where, message, hint)


def _check_parameters_of_tensors(
    groups: tuple[_Group, ...], recipe: Recipe, method: MethodDef, reading: Reading
) -> None:
    for param in method.params:
        if param.scope != "tensor" or not param.required:
            continue
        without = [group for group in groups if not any(param.name in scope for scope in group.scopes)]
        hint = f"write '{param.name}:' under the top-level 'parameters:'"
        if without and len(without) == len(groups):
            reading.error(recipe.where["merge_method"], f"{method.name} needs the parameter {param.name!r}", hint)
        else:
            for group in without:
                reading.error(group.where, f"{group.what} has no {param.name!r}, which {method.name} needs", hint)


def _counts(entry: InputModel | Source, base: ModelRef | None, method: MethodDef) -> bool:
    return not (method.excludes_base and base is not None and entry.model == base)


def _has_unreadable(group: _Group) -> bool:
    return any(entry.model == UNREADABLE for entry in group.inputs)
