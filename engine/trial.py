"""A method tried out: a recipe to show it with, and what a merge by it costs.

All of it follows from the declaration. The recipe is generated, then read and compiled like a user's over models of
which only headers exist, and the cost is read off the plan for what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, TypeAlias

import torch

from .compile import compile_recipe
from .errors import PlaitError
from .graph import TensorSpec
from .model import Model, StoredTensor, TensorRole
from .plan import make_plan
from .recipe_parser import parse_recipe
from .schedule import Place
from .units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .methoddef import MethodDef, Param, Scope, Value
    from .plan import Plan

Switch: TypeAlias = "tuple[str, str]"
"""A parameter's name, and one of its values as a recipe spells it."""

_SPEC = TensorSpec((4096, 4096), torch.bfloat16, "weight")
_BASE, _MODELS = "models/base", [f"models/{letter}" for letter in "abcdefghij"]
_HALF = 0.5
_PLENTY_BYTES = 1 << 60


_COARSEST_FIRST = ("whole", "panel", "row")


@dataclass(frozen=True, slots=True)
class Cost:
    """What merging one matrix of `_SPEC` costs.

    ``passes`` is how often its inputs are read in full. ``granularity`` is how it is cut where it is cut the coarsest,
    as in `tiling.Pass`. ``held_mib`` is the memory beside the tiles, in full MiB: results of passes that later ones
    need, or a tensor that is taken whole.
    """

    passes: int
    granularity: str
    held_mib: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """A recipe in YAML, its cost, and the settings beside it with which the cost is another."""

    recipe: str
    cost: Cost
    switches: tuple[tuple[tuple[Switch, ...], Cost], ...]


def try_out(method: MethodDef) -> Trial:
    """Show a method with its example, and with each of its switches (bool and choice parameters) turned."""
    cost = _cost(method, {})
    turned: dict[tuple[Switch, ...], Cost] = {}
    switches = [
        (param.name, value) for param in method.params if param.scope == "tensor" for value in _other_values(param)
    ]
    # Two switches together where that is more than each of them alone, as with one that only counts beside another.
    for chosen in (*combinations(switches, 1), *combinations(switches, 2)):
        names = {name for name, _ in chosen}
        try:
            found = _cost(method, dict(chosen))
        except PlaitError:
            continue  # values that do not go together
        if len(names) == len(chosen) and found not in (cost, *(turned.get((switch,)) for switch in chosen)):
            turned[chosen] = found
    return Trial(example_recipe(method), cost, tuple(turned.items()))


def example_values(method: MethodDef, scope: Scope) -> dict[str, Value]:
    """Values for the parameters of a scope that are required or declare an example."""
    shown = [param for param in method.params if param.scope == scope]
    return {param.name: _example(param) for param in shown if param.required or param.example is not None}


def example_recipe(method: MethodDef, turned: Mapping[str, str] | None = None) -> str:
    """A recipe for a method, in YAML: two models where it takes so many, and the values of `example_values`."""
    lines = [f"merge_method: {method.name}"]
    if method.base == "required":
        lines.append(f"base_model: {_BASE}")
    lines.append("models:")
    of_model = _flow(example_values(method, "model"))
    for model in _MODELS[: model_count(method)]:
        lines.append(f"  - model: {model}")
        lines += [f"    parameters: {{{of_model}}}"] if of_model else []
    of_tensor = _flow({**example_values(method, "tensor"), **(turned or {})})
    lines += [f"parameters: {{{of_tensor}}}"] if of_tensor else []
    return "\n".join([*lines, "dtype: bfloat16", ""])


def model_count(method: MethodDef) -> int:
    """How many models to show a method with, beside a base: two unless it wants more or fewer."""
    own = 0 if method.excludes_base or method.base != "required" else 1
    most = 2 if method.max_inputs is None else method.max_inputs - own
    return max(min(most, 2), method.min_inputs - own)


def header_models() -> Iterator[Model]:
    """The models that example recipes name: one matrix each, of which only the header exists."""
    for reference in (_BASE, *_MODELS):
        stored = {"weight": StoredTensor(reference, "weight", _SPEC, f"{reference}/model.safetensors", 0)}
        yield Model(reference, reference, stored, {"weight": TensorRole()}, {}, None)


def plan_of_example(text: str, method: MethodDef, model_of: Callable[[str], Model]) -> Plan:
    """The plan of a recipe that merges one matrix, ``weight``, by one worker in memory without end.

    ``model_of`` gives the model that a reference names. Raises what parsing and compiling raise.
    """
    recipe = parse_recipe(text, "example.yml", {method.name: method}, strict=True)
    graph = compile_recipe(recipe, method, {ref: model_of(str(ref)) for ref in recipe.references()}).graph
    return make_plan(
        graph,
        {"weight": Place(0, 0)},
        workers=1,
        seed=0,
        budget_bytes=_PLENTY_BYTES,
        free_bytes=_PLENTY_BYTES,
        reserved_bytes=0,
        peak_so_far_bytes=0,
        header_bytes=0,
    )


def _cost(method: MethodDef, turned: Mapping[str, str]) -> Cost:
    models = {model.reference: model for model in header_models()}
    plan = plan_of_example(example_recipe(method, turned), method, models.__getitem__)
    (program,) = plan.programs.values()
    cuts: set[str] = {each.granularity for each in program.passes}
    granularity = next((each for each in _COARSEST_FIRST if each in cuts), "element")
    held_bytes = program.held_bytes + (program.arena_bytes if granularity == "whole" else 0)
    return Cost(program.readings, granularity, held_bytes // MIB)


def _other_values(param: Param) -> Iterator[str]:
    words = ("true", "false") if param.kind == "bool" else param.choices
    yield from (word for word in words if word != spelled(param.default))


def _example(param: Param) -> Value:
    if param.example is not None:
        return param.example
    if param.kind in ("bool", "choice"):
        return param.choices[0] if param.choices else True
    value = _HALF if param.kind == "float" else 1
    value = value if param.low is None else max(value, param.low)
    return value if param.high is None else min(value, param.high)


def spelled(value: Value | None) -> str:
    """A value as a recipe spells it."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _flow(values: Mapping[str, Value]) -> str:
    return ", ".join(f"{name}: {spelled(value)}" for name, value in values.items())
