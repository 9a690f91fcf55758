"""Methods to read recipes with, declared like the real ones, and short ways to read."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from plait.engine.errors import RecipeError
from plait.engine.methoddef import MethodDef, Param
from plait.engine.recipe_parser import parse_recipe

if TYPE_CHECKING:
    from plait.engine.errors import Problem
    from plait.engine.graph import Node
    from plait.engine.methoddef import BaseRule, MergeInputs
    from plait.engine.recipe import Recipe

WEIGHT = Param("weight", "float", "model", "factor", required=True)
DENSITY = Param("density", "float", "model", "share kept", default=1.0, is_share=True)
NORMALIZE = Param("normalize", "bool", "tensor", "divide", default=False)
LAMBDA = Param("lambda", "float", "tensor", "factor of the sum", default=1.0)
INT8_MASK = Param("int8_mask", "bool", "tensor", "accepted, no effect", default=False)
RESCALE = Param("rescale", "choice", "tensor", "how", default="true", choices=("true", "false", "l1", "density"))


def _never_built(inputs: MergeInputs) -> Node:
    raise AssertionError("reading a recipe builds no graph")


def _method(
    name: str,
    *params: Param,
    base: BaseRule,
    excludes_base: bool = False,
    least: int = 1,
    most: int | None = None,
) -> MethodDef:
    return MethodDef(name, name, _never_built, params, base, excludes_base, least, most, "", "")


_TASK_VECTORS = (WEIGHT, DENSITY, LAMBDA, NORMALIZE, RESCALE, INT8_MASK)
METHODS = {
    method.name: method
    for method in (
        _method("dare_linear", *_TASK_VECTORS, base="required", excludes_base=True),
        _method("dare_ties", *_TASK_VECTORS, base="required", excludes_base=True),
        _method(
            "karcher",
            Param("max_iter", "int", "tensor", "steps", default=10, low=1),
            Param("tol", "float", "tensor", "when to stop", default=1e-5, low=0.0),
            base="optional",
            least=2,
        ),
        _method("linear", WEIGHT, Param("normalize", "bool", "tensor", "divide", default=True), base="unused"),
        _method("model_stock", base="required", excludes_base=True, least=2),
        _method(
            "nuslerp",
            WEIGHT,
            Param("nuslerp_flatten", "bool", "tensor", "one vector", default=True),
            base="optional",
            excludes_base=True,
            least=2,
            most=2,
        ),
        _method("passthrough", Param("scale", "float", "model", "factor"), base="unused", most=1),
        _method(
            "sce",
            Param("select_topk", "float", "tensor", "share kept", default=1.0, low=0.0, high=1.0),
            INT8_MASK,
            base="required",
            excludes_base=True,
        ),
        _method("slerp", Param("t", "float", "tensor", "position", required=True), base="required", least=2, most=2),
        _method("ties", *_TASK_VECTORS, base="required", excludes_base=True),
    )
}


def read(text: str, *, strict: bool = False, lenient: bool = False) -> Recipe:
    """Read an indented recipe."""
    return parse_recipe(dedent(text), "recipe.yml", METHODS, strict=strict, lenient=lenient)


def mistakes(text: str, *, strict: bool = False, lenient: bool = False) -> tuple[Problem, ...]:
    """The mistakes of an indented recipe, of which there must be some."""
    with pytest.raises(RecipeError) as caught:
        read(text, strict=strict, lenient=lenient)
    return caught.value.problems


def places(problems: tuple[Problem, ...]) -> list[tuple[int, int]]:
    """Line and column of each."""
    return [(problem.where.line, problem.where.column) for problem in problems]


def the_mistake(text: str, *, strict: bool = False, lenient: bool = False) -> str:
    """The only mistake of an indented recipe, as it is printed."""
    (problem,) = mistakes(text, strict=strict, lenient=lenient)
    return str(problem)


def warnings(text: str, *, lenient: bool = False) -> list[str]:
    """The warnings of an indented recipe that is read, as they are printed."""
    return [str(problem) for problem in read(text, lenient=lenient).warnings]
