"""What is only suspicious is a warning; ``strict`` and ``lenient`` move the line."""

from __future__ import annotations

import pytest
from recipe_support import mistakes, places, read, the_mistake, warnings

PASSTHROUGH = "merge_method: passthrough\nmodels:\n  - model: a\n"


def test_an_unknown_key():
    assert warnings(PASSTHROUGH + "out_path: ./merged\n") == [
        "recipe.yml:4:1: unknown key 'out_path' in the recipe; it is ignored"
    ]


def test_an_unknown_key_with_something_similar():
    (warning,) = warnings(PASSTHROUGH + "params: {}\n")
    assert warning.endswith("did you mean 'parameters'?")


def test_a_repeated_unknown_key():
    problems = read(PASSTHROUGH + "author: me\nauthor: you\n").warnings
    assert places(problems) == [(4, 1), (5, 1)]
    assert problems[1].message == "'author' is given twice"


@pytest.mark.parametrize("key", ["normalize: true", "weight: 1", "int8_mask: true"])
def test_a_parameter_outside_parameters(key):
    (warning,) = warnings(PASSTHROUGH + f"{key}\n")
    assert warning.startswith("recipe.yml:4:1: ")
    assert warning.endswith("has no effect in the recipe; a parameter goes under 'parameters:'")


def test_a_key_that_is_known_in_another_place():
    (warning,) = warnings(PASSTHROUGH + "    layer_range: [0, 32]\n")
    assert warning.startswith("recipe.yml:4:5: 'layer_range' has no effect in an entry of models")


def test_keys_of_the_format_that_have_no_effect():
    assert warnings(PASSTHROUGH + "random_seed: 0\n") == [
        "recipe.yml:4:1: 'random_seed' has no effect; write 'seed' to fix the random masks"
    ]


@pytest.mark.parametrize(
    ("density", "says"),
    [
        ("1.6", "1.6 is taken for everything"),
        ("[0.2, 60]", "60 is taken for everything; write 0.6 for 60%"),
        ("-0.2", "-0.2 is taken for nothing"),
        ("400", "400 is taken for everything"),
    ],
)
def test_a_share_that_is_none(density, says):
    text = f"merge_method: ties\nbase_model: a\nmodels: [b]\nparameters: {{weight: 1, density: {density}}}\n"
    (warning,) = warnings(text)
    assert warning.startswith("recipe.yml:4:")
    assert warning.endswith(f"'density' goes from 0 to 1 (share kept); {says}")
    assert the_mistake(text, strict=True).endswith(says)


@pytest.mark.parametrize("density", ["0", "1", "[0, 1]"])
def test_a_share_of_nothing_or_all_is_one(density):
    text = f"merge_method: ties\nbase_model: a\nmodels: [b]\nparameters: {{weight: 1, density: {density}}}\n"
    assert warnings(text) == []


def test_a_parameter_that_no_method_knows():
    assert warnings(PASSTHROUGH + "    parameters: {embed_slerp: true}\n") == [
        "recipe.yml:4:18: no method has a parameter 'embed_slerp'; it is ignored"
    ]


def test_a_key_of_the_recipe_among_the_parameters():
    assert warnings(PASSTHROUGH + "parameters: {dtype: bfloat16}\n") == [
        "recipe.yml:4:14: no method has a parameter 'dtype'; it is ignored; "
        "'dtype' stands at the top of the recipe, beside 'parameters:'"
    ]


def test_a_parameter_that_this_method_ignores():
    text = "merge_method: sce\nbase_model: base\nmodels: [a]\nparameters: {normalize: 7, int8_mask: true}\n"
    assert warnings(text) == ["recipe.yml:4:14: sce does not use the parameter 'normalize'; it is ignored"]


def test_a_parameter_in_a_scope_where_it_has_no_effect():
    text = "merge_method: linear\nmodels:\n  - model: a\n    parameters:\n      weight: 1\n      normalize: false\n"
    recipe = read(text)
    assert places(recipe.warnings) == [(6, 7)]
    assert recipe.warnings[0].message.startswith("'normalize' has no effect here")
    assert list(recipe.models[0].parameters) == ["weight"]
    text = "merge_method: slerp\nbase_model: a\nslices:\n  - sources: [a, {model: b, parameters: {t: 1}}]\n"
    assert places(read(text + "    parameters: {t: 0}\n").warnings) == [(4, 42)]


def test_a_repeated_parameter_that_no_method_knows():
    text = PASSTHROUGH + "parameters:\n  foo: 1\n  foo: 2\n"
    assert places(read(text).warnings) == [(5, 3), (6, 3)]


def test_warnings_come_in_file_order():
    text = "zzz: 1\nparameters: {foo: 1}\n" + PASSTHROUGH + "aaa: 2\n"
    assert places(read(text).warnings) == [(1, 1), (2, 14), (6, 1)]


def test_strict_makes_mistakes_of_warnings():
    text = PASSTHROUGH + "out_path: x\nauthor: me\n"
    assert places(mistakes(text, strict=True)) == [(4, 1), (5, 1)]
    assert read(PASSTHROUGH, strict=True).warnings == ()


def test_lenient_makes_warnings_of_near_misses():
    text = PASSTHROUGH + "    parameters: {scael: 1}\ndype: float16\n"
    assert places(mistakes(text)) == [(4, 18), (5, 1)]
    recipe = read(text, lenient=True)
    assert places(recipe.warnings) == [(4, 18), (5, 1)]
    assert (recipe.dtype, dict(recipe.models[0].parameters)) == (None, {})


def test_strict_and_lenient_together_are_strict():
    assert places(mistakes(PASSTHROUGH + "dype: float16\n", strict=True, lenient=True)) == [(4, 1)]


@pytest.mark.parametrize(
    "slip", ["merge_method: passthru_all", "dtype: flot16", "seed: x", "models: []", "merge_methd: passthrough"]
)
def test_lenient_forgives_nothing_else(slip):
    key = slip.partition(":")[0]
    lines = {"merge_method": "passthrough", "models": "[a]"}
    lines.pop("merge_method" if key == "merge_methd" else key, None)
    text = "".join(f"{name}: {value}\n" for name, value in lines.items())
    assert mistakes(text + slip, lenient=True)


def test_a_holder_inside_the_recipe_is_at_most_a_warning():
    text = """\
        merge_method: linear
        models:
          - model: a
            parameters: {weigh: &w 0.5, weight: *w, common: &c 1}
          - model: b
            parameters: {weight: *c}
        """
    assert warnings(text) == ["recipe.yml:4:18: unknown parameter 'weigh'; did you mean 'weight'?"]


def test_a_mistake_hides_no_warning_for_good():
    text = PASSTHROUGH + "out_path: x\ndtype: float\n"
    assert the_mistake(text).startswith("recipe.yml:5:8")
    assert places(mistakes(text, strict=True)) == [(4, 1), (5, 8)]
