"""Whatever the text: a Recipe or a RecipeError, and soon."""

from __future__ import annotations

import time

import yaml
from hostile_support import MOST_CPU_SECONDS
from hypothesis import given, settings
from hypothesis import strategies as st
from plait.engine.errors import RecipeError
from plait.engine.recipe import Recipe
from plait.engine.recipe_checks import unsupported
from plait.engine.recipe_fields import RECIPE
from plait.engine.recipe_parser import parse_recipe
from recipe_support import METHODS
from test_recipe_wild import DARE_TIES, EXPANSION, GRADIENT_SLERP

WORDS = sorted(
    {*RECIPE.keys, "model", "sources", "layer_range", "filter", "value", "path", "lora", "kind", "tokens", "source"}
    | {*METHODS, "weight", "density", "t", "scale", "normalize", "rescale", "max_iter", "union", "a+b", "a@b", "<<"}
)
PIECES = (*WORDS, ": ", "- ", "\n", "\n  ", "&a ", "*a", "[", "}", "0", "-1", "true", ".nan", "~")


def check(text: str) -> None:
    """The whole contract for any text."""
    for strict, lenient in ((False, False), (True, False), (False, True)):
        result = outcome(text, strict=strict, lenient=lenient)
        if isinstance(result, Recipe):
            assert result.merge_method in METHODS
            assert sum(map(bool, (result.models, result.slices, result.modules))) == 1
            assert all(str(model) for model in result.references())
            assert all(setting.choices for setting in result.parameters.values())
            assert not (strict and result.warnings)
            unsupported(result)
        else:
            assert result.problems
            assert all(problem.where.line >= 1 and problem.where.column >= 1 for problem in result.problems)
            assert all(problem.message and "\n" not in str(problem) for problem in result.problems)


def outcome(text: str, *, strict: bool, lenient: bool) -> Recipe | RecipeError:
    """What becomes of a text, within a moment; any other exception is a defect."""
    started = time.thread_time()
    try:
        return parse_recipe(text, "fuzz.yml", METHODS, strict=strict, lenient=lenient)
    except RecipeError as error:
        return error
    finally:
        assert time.thread_time() - started < MOST_CPU_SECONDS


@settings(max_examples=200)
@given(st.text(max_size=200))
def test_any_text(text):
    check(text)


@settings(max_examples=200)
@given(st.text(alphabet="ab:-[]{},&*<!|>?%#'\" \n\t@`~.0e\\", max_size=80))
def test_any_punctuation(text):
    check(text)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(WORDS), st.dates()
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=6), st.integers()), inner, max_size=5),
    ),
    max_leaves=25,
)
recipes = st.fixed_dictionaries(
    {"merge_method": st.sampled_from(sorted(METHODS))},
    optional={key: trees for key in (*RECIPE.keys, "dype", "extra") if key != "merge_method"},
)


@settings(max_examples=300)
@given(st.one_of(trees, recipes))
def test_any_tree(tree):
    check(yaml.safe_dump(tree, allow_unicode=True))


@settings(max_examples=300)
@given(st.data())
def test_damaged_recipes(data):
    text = data.draw(st.sampled_from([DARE_TIES, EXPANSION, GRADIENT_SLERP]))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        piece = data.draw(
            st.one_of(st.text(max_size=6), st.sampled_from([*WORDS, ": ", "- ", "\n", "&a ", "*a", "[", "}"]))
        )
        text = text[:start] + piece + text[end:]
    check(text)
