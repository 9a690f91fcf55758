"""What a method needs of its inputs: how many, the base, the layers, the parameters without a default."""

from __future__ import annotations

import pytest
from recipe_support import mistakes, places, read, the_mistake


def test_required_parameters_of_models():
    text = """\
        merge_method: ties
        base_model: base
        models:
          - model: base
          - model: a
          - model: b
            parameters: {weight: {filter: mlp, value: 1}}
        %s
        """
    problem = the_mistake(text % "")
    assert problem.startswith("recipe.yml:5:5: the model a has no 'weight', which ties needs")
    assert read(text % "parameters: {weight: 1}").warnings == ()


def test_the_base_needs_a_weight_where_it_is_averaged():
    text = "merge_method: linear\nbase_model: base\nmodels:\n  - model: base\n"
    assert the_mistake(text).startswith("recipe.yml:4:5: the model base has no 'weight', which linear needs")


def test_required_parameters_of_slices():
    text = """\
        merge_method: linear
        slices:
          - sources: [{model: a, layer_range: [0, 1]}]
            parameters: {weight: 1}
          - sources:
              - model: b
                layer_range: [0, 1]
        """
    assert the_mistake(text).startswith("recipe.yml:6:9: the model b has no 'weight', which linear needs")


def test_required_parameters_of_tensors():
    text = "merge_method: slerp\nbase_model: a\nmodels: [a, b]\n"
    assert the_mistake(text).startswith("recipe.yml:1:1: slerp needs the parameter 't'")
    text = """\
        merge_method: slerp
        base_model: a
        slices:
          - sources: [a, b]
            parameters: {t: 0.5}
          - sources: [a, b]
        """
    assert the_mistake(text).startswith("recipe.yml:6:5: this slice has no 't', which slerp needs")


def test_a_base_model_that_is_needed():
    assert the_mistake("merge_method: ties\nmodels: [a]\n").startswith(
        "recipe.yml:1:1: ties needs a base model; write 'base_model:'"
    )


@pytest.mark.parametrize("method", ["ties", "slerp"])
def test_in_slices_the_base_is_among_the_sources(method):
    text = f"""\
        merge_method: {method}
        base_model: base
        slices:
          - sources: [base, a]
          - sources: [a]
        parameters: {{weight: 1, t: 0.5}}
        """
    assert the_mistake(text).startswith(
        "recipe.yml:5:5: the base model base is not among the sources of this slice, so its layers are not known"
    )


def test_an_optional_base_is_among_the_sources_where_it_is_used():
    text = "merge_method: nuslerp\nslices:\n  - sources: [a, b]\nparameters: {weight: 1}\n"
    assert read(text).base_model is None
    assert "not among the sources" in the_mistake(text + "base_model: base\n")


def test_a_base_that_is_not_used_may_be_anywhere():
    text = "merge_method: passthrough\nbase_model: base\nslices:\n  - sources: [a]\n"
    assert read(text).warnings == ()


@pytest.mark.parametrize(
    ("method", "models", "says"),
    [
        ("passthrough", "[a, b]", "passthrough merges exactly 1 model, and the recipe has 2"),
        ("slerp", "[a, b, c]", "slerp merges exactly 2 models, and the recipe has 3"),
        ("slerp", "[b, c]", "slerp merges exactly 2 models, and the recipe has 3 with the base model"),
        ("slerp", "[a]", "slerp merges exactly 2 models, and the recipe has 1"),
        ("model_stock", "[a, b]", "model_stock merges at least 2 models, and the recipe has 1, not counting the base"),
        ("ties", "[a]", "ties merges at least 1 model, and the recipe has 0, not counting the base model"),
    ],
)
def test_how_many_models(method, models, says):
    problems = mistakes(f"merge_method: {method}\nbase_model: a\nmodels: {models}\nparameters: {{weight: 1, t: 0}}\n")
    assert places(problems) == [(3, 1)]
    assert problems[0].message.startswith(says)


def test_a_base_that_is_not_listed_counts_where_the_method_takes_it_as_an_input():
    assert read("merge_method: slerp\nbase_model: a\nmodels: [b]\nparameters: {t: 0}\n").warnings == ()


def test_how_many_sources():
    text = "merge_method: passthrough\nslices:\n  - sources: [a]\n  - sources: [a, b]\n"
    assert the_mistake(text) == "recipe.yml:4:5: passthrough merges exactly 1 model, and this slice has 2"


@pytest.mark.parametrize(
    ("written", "column", "says"),
    [
        ("[4, 2]", 18, "layer_range [4, 2] has no layers"),
        ("[2, 2]", 18, "layer_range [2, 2] has no layers"),
        ("[-1, 2]", 19, "a layer must be a whole number from 0 up, not -1"),
        ("[0, x]", 22, "a layer must be a whole number from 0 up, not 'x'"),
        ("[0, 1.5]", 22, "a layer must be a whole number from 0 up, not 1.5"),
        ("[0, true]", 22, "a layer must be a whole number from 0 up, not the boolean true"),
        ("[0, .inf]", 22, "a layer must be a whole number from 0 up, not .inf"),
        ("[0]", 18, "layer_range must be [start, end], not a list of 1"),
        ("0-8", 18, "layer_range must be [start, end], not '0-8'"),
    ],
)
def test_layer_ranges(written, column, says):
    problems = mistakes(
        f"merge_method: passthrough\nslices:\n  - sources:\n    - model: a\n      layer_range: {written}\n"
    )
    assert places(problems) == [(5, column + 2)]
    assert problems[0].message == says


def test_sources_of_a_slice_have_equally_many_layers():
    text = """\
        merge_method: linear
        slices:
          - sources:
              - {model: a, layer_range: [0, 8]}
              - {model: b, layer_range: [8, 15]}
        parameters: {weight: 1}
        """
    assert the_mistake(text).startswith("recipe.yml:5:33: this source has 7 layers, the first of the slice 8")


@pytest.mark.parametrize(
    ("inputs", "place", "says"),
    [
        ("", (1, 1), "the recipe has no inputs"),
        ("models:\n", (1, 1), "the recipe has no inputs"),
        ("models: []\n", (2, 9), "models is empty"),
        ("models: [a]\nslices:\n  - sources: [a]\n", (3, 1), "'slices' beside 'models'"),
        ("models: {model: a}\n", (2, 9), "models must be a list, not a mapping"),
        ("models: [[a]]\n", (2, 10), "an entry of models must be a mapping, not a list"),
        ("models:\n  -\n", (3, 4), "an entry of models must be a mapping, not nothing"),
        ("models: [{parameters: {scale: 1}}]\n", (2, 10), "an entry of models has no 'model'"),
        ("slices: [a]\n", (2, 10), "a slice must be a mapping, not 'a'"),
        ("slices: [{parameters: {scale: 1}}]\n", (2, 10), "a slice has no 'sources'"),
        ("slices: [{sources: []}]\n", (2, 20), "sources is empty"),
        ("slices: [{sources: [{layer_range: [0, 1]}]}]\n", (2, 21), "a source of a slice has no 'model'"),
        ("modules: {}\n", (2, 10), "modules is empty"),
        ("modules: [a]\n", (2, 10), "modules must be a mapping, not a list"),
        ("modules: {x: a}\n", (2, 14), "a module must be a mapping, not 'a'"),
        ("modules: {x: {}}\n", (2, 11), "the module 'x' has no inputs"),
        ("models: [{model: a, parameters: [scale]}]\n", (2, 33), "parameters must be a mapping, not a list"),
    ],
)
def test_inputs_of_the_wrong_shape(inputs, place, says):
    problems = mistakes(f"merge_method: passthrough\n{inputs}")
    assert places(problems) == [place]
    assert problems[0].message.startswith(says)


def test_slices_that_name_different_bases():
    text = """\
        merge_method: slerp
        base_model: a
        slices:
          - sources: [a, b]
            base_model: b
        parameters: {t: 0.5}
        """
    assert the_mistake(text).startswith("recipe.yml:5:5: this slice has another base model than a")
