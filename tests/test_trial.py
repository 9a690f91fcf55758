"""What follows from a declaration: an example, which has to work, and what merging by the method costs."""

from __future__ import annotations

import pytest
from merge_support import budgeted
from plait import ops as _registered
from plait.engine.compile import compile_recipe
from plait.engine.methoddef import MethodDef, Param, methods
from plait.engine.recipe_parser import parse_recipe
from plait.engine.trial import Cost, example_recipe, example_values, header_models, try_out
from plait.engine.units import MIB

assert _registered


def _method(name: str, *params: Param, build=None, base="unused", least=1, most=None, excludes_base=False) -> MethodDef:
    return MethodDef(name, name, build, params, base, excludes_base, least, most, "", "")


@pytest.mark.parametrize("name", methods())
def test_an_example_is_read_and_planned(name: str) -> None:
    trial = try_out(methods()[name])
    recipe = parse_recipe(trial.recipe, "example.yml", methods(), strict=True)
    assert recipe.warnings == ()
    models = {model.reference: model for model in header_models()}
    graph = compile_recipe(recipe, methods()[name], {ref: models[str(ref)] for ref in recipe.references()}).graph
    (program,) = graph.programs
    passes = budgeted(graph).programs[program].passes
    assert sum(not (each.sampled or each.optional) for each in passes) == trial.cost.passes
    assert all(each.loads for each in passes)


def test_passes_are_those_of_the_definition() -> None:
    costs = {name: try_out(method).cost for name, method in methods().items()}
    for name in ("linear", "task_arithmetic", "passthrough", "nearswap", "ram", "dare_linear", "dare_ties"):
        assert costs[name] == Cost(1, "element")
    for name in ("slerp", "nuslerp", "multislerp", "karcher", "model_stock", "ramplus_tl"):
        assert costs[name] == Cost(2, "element")


def test_settings_that_change_the_cost_are_named() -> None:
    assert try_out(methods()["dare_ties"]).switches == (((("rescale", "l1"),), Cost(2, "element")),)
    assert try_out(methods()["nuslerp"]).switches == (
        ((("nuslerp_flatten", "false"),), Cost(1, "row")),
        # Alone it changes nothing.
        ((("nuslerp_flatten", "false"), ("nuslerp_row_wise", "true")), Cost(3, "element")),
    )
    assert try_out(methods()["linear"]).switches == ()


def test_memory_beside_the_tiles_is_counted_in_mebibytes() -> None:
    # A bit an element and model.
    assert try_out(methods()["della"]).cost.held_mib == 2 * 4096 * 4096 // 8 // MIB
    assert try_out(methods()["karcher"]).cost.held_mib == 0


def test_values_are_declared_or_a_half_within_bounds() -> None:
    method = _method(
        "shown",
        Param("plain", "float", "model", "", required=True),
        Param("bounded", "float", "model", "", required=True, low=1.0),
        Param("small", "float", "model", "", required=True, high=0.25),
        Param("steps", "int", "model", "", required=True, low=3),
        Param("flag", "bool", "model", "", required=True),
        Param("way", "choice", "model", "", required=True, choices=("up", "down")),
        Param("shown", "float", "model", "", default=1.0, example=0.75),
        Param("left_out", "float", "model", "", default=1.0),
        Param("of_the_tensor", "float", "tensor", "", required=True, example=1e-6),
    )
    assert example_values(method, "model") == {
        "plain": 0.5,
        "bounded": 1.0,
        "small": 0.25,
        "steps": 3,
        "flag": True,
        "way": "up",
        "shown": 0.75,
    }
    recipe = parse_recipe(example_recipe(method), "example.yml", {"shown": method}, strict=True)
    assert recipe.parameters["of_the_tensor"].value("weight", 0.0) == 1e-6


@pytest.mark.parametrize(
    ("base", "excludes_base", "least", "most", "models"),
    [
        ("unused", False, 1, None, 2),
        ("unused", False, 1, 1, 1),
        ("required", True, 1, None, 2),
        ("required", True, 3, None, 3),
        ("required", True, 2, 2, 2),
        ("required", False, 2, 2, 1),
        ("optional", True, 2, 2, 2),
    ],
)
def test_as_many_models_as_the_method_takes(
    base, excludes_base: bool, least: int, most: int | None, models: int
) -> None:
    method = _method("m", base=base, excludes_base=excludes_base, least=least, most=most)
    recipe = parse_recipe(example_recipe(method), "example.yml", {"m": method}, strict=True)
    assert len(recipe.models) == models
    assert (recipe.base_model is not None) == (base == "required")
