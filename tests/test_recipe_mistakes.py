"""What is certainly a mistake is an error, at its line and column, with the nearest valid name."""

from __future__ import annotations

import pytest
from plait.engine.errors import RecipeError
from recipe_support import mistakes, places, read, the_mistake, warnings

TIES = """\
merge_method: ties
base_model: base
models:
  - model: a
    parameters:
      weight: 1
      density: 0.5
"""


def test_every_mistake_in_one_go():
    problems = mistakes(
        """\
        merge_method: dare-ties
        base_model: base
        models:
          - model: base
          - model: a
            parameters:
              weight: true
              densty: 0.5
          - model: b
            parametres: {weight: 0.3}
          - model: c
        dype: bfloat16
        out_dtype: bfloat
        dtype: float16
        dtype: float32
        seed: -1
        """
    )
    assert [str(problem) for problem in problems] == [
        "recipe.yml:1:15: unknown merge method 'dare-ties'; did you mean 'dare_ties'?",
        "recipe.yml:7:15: 'weight' must be a number, not the boolean true",
        "recipe.yml:8:7: 'densty' is not a parameter of dare_ties; did you mean 'density'?",
        "recipe.yml:10:5: unknown key 'parametres' in an entry of models; did you mean 'parameters'?",
        "recipe.yml:11:5: the model c has no 'weight', which dare_ties needs; "
        "write 'weight:' under its 'parameters:', or at the top for all models",
        "recipe.yml:12:1: unknown key 'dype' in the recipe; did you mean 'dtype'?",
        "recipe.yml:13:12: unknown dtype 'bfloat'; did you mean 'bfloat16'?",
        "recipe.yml:15:1: 'dtype' is given twice; first on line 14; keep one",
        "recipe.yml:16:7: seed must be a whole number from 0 to 2^63 - 1, not -1",
    ]


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("dype: float16", "dtype"),
        ("DType: float16", "dtype"),
        ("out-dtype: float16", "out_dtype"),
        ("tokenizer_sorce: base", "tokenizer_source"),
        ("parameter: {}", "parameters"),
        ("sede: 1", "seed"),
        ("slice: []", "slices"),
    ],
)
def test_near_misses_at_the_top(slip, meant):
    text = TIES + slip
    message = mistakes(text)[0]
    assert (message.where.line, message.where.column) == (8, 1)
    assert message.hint == f"did you mean {meant!r}?"
    assert warnings(text, lenient=True)[0].endswith(f"it is ignored; did you mean {meant!r}?")


def test_a_slip_in_a_required_key_is_one_mistake():
    assert the_mistake(TIES.replace("merge_method", "merge_methd")) == (
        "recipe.yml:1:1: unknown key 'merge_methd' in the recipe; did you mean 'merge_method'?"
    )
    assert the_mistake(TIES.replace("base_model", "base_modle")) == (
        "recipe.yml:2:1: unknown key 'base_modle' in the recipe; did you mean 'base_model'?"
    )
    assert the_mistake(TIES.replace("models:", "model:")) == (
        "recipe.yml:3:1: unknown key 'model' in the recipe; did you mean 'models'?"
    )
    assert the_mistake(TIES.replace("- model:", "- modl:")) == (
        "recipe.yml:4:5: unknown key 'modl' in an entry of models; did you mean 'model'?"
    )
    assert the_mistake(TIES.replace("weight:", "wieght:")) == (
        "recipe.yml:6:7: 'wieght' is not a parameter of ties; did you mean 'weight'?"
    )


def test_a_near_miss_in_a_filter():
    text = "merge_method: linear\nmodels: [a]\nparameters:\n  weight:\n    - filtr: mlp\n      value: 1\n"
    assert the_mistake(text) == "recipe.yml:5:7: unknown key 'filtr' in a filter; did you mean 'filter'?"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dare-ties", "did you mean 'dare_ties'?"),
        ("TIES", "did you mean 'ties'?"),
        ("slrp", "did you mean 'slerp'?"),
        ("lineer", "did you mean 'linear'?"),
        ("task_arithmetics", "the methods are dare_linear, dare_ties, "),
    ],
)
def test_unknown_methods(name, hint):
    problem = mistakes(TIES.replace("ties", name) + "parameters: {t: 1}\n")[0]
    assert (problem.where.line, problem.where.column) == (1, 15)
    assert problem.message == f"unknown merge method {name!r}"
    assert problem.hint.startswith(hint)


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("weight: heavy", 11, "'weight' must be a number, not 'heavy'"),
        ("weight: true", 11, "'weight' must be a number, not the boolean true"),
        ("weight:", 10, "'weight' must be a number, not nothing"),
        ("weight: .nan", 11, "'weight' must be a finite number, not .nan"),
        ("weight: -.inf", 11, "'weight' must be a finite number, not -.inf"),
        ("weight: 1e999", 11, "'weight' must be a finite number, not '1e999'"),
        ("weight: []", 11, "the gradient of 'weight' is empty"),
        ("weight: [1, x]", 15, "'weight' must be a number, not 'x'"),
        ("weight: [1, true]", 15, "'weight' must be a number, not the boolean true"),
        ("weight: [1, [2]]", 15, "'weight' must be a number, not a list"),
        ("weight: {filter: mlp}", 11, "a filter of 'weight' has no value"),
        ("weight: {value: {value: 1}}", 19, "the value of 'weight' must not be a mapping"),
        ("weight: [{value: 1}, 2]", 24, "'weight' mixes filters with 2"),
        ("weight: {filter: [mlp], value: 1}", 20, "filter must be text, not a list"),
        ("weight: {filter: 1, value: 1}", 20, "filter must be text, not 1"),
        ("normalize: 2", 14, "'normalize' must be true or false, not 2"),
        ("normalize: 0.5", 14, "'normalize' must be true or false, not 0.5"),
        ("normalize: maybe", 14, "'normalize' must be true or false, not 'maybe'"),
        ("normalize: [0, 1]", 14, "'normalize' takes one value, not a list"),
        ("rescale: l2", 12, "'rescale' must be one of true, false, l1, density, not 'l2'"),
        ("rescale: [l1]", 12, "'rescale' takes one value, not a list"),
    ],
)
def test_values_of_the_wrong_kind(line, column, message):
    weight = "" if line.startswith("weight") else "  weight: 1\n"
    problems = mistakes(f"merge_method: ties\nbase_model: base\nmodels: [a]\nparameters:\n{weight}  {line}\n")
    assert [problem.message for problem in problems] == [message]
    assert places(problems) == [(6 if weight else 5, column)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("max_iter: 0", "'max_iter' must be at least 1, not 0"),
        ("max_iter: 1.5", "'max_iter' must be a whole number, not 1.5"),
        ("max_iter: true", "'max_iter' must be a whole number, not the boolean true"),
        ("tol: -1", "'tol' must be at least 0, not -1"),
        ("tol: [0, -1]", "'tol' must be at least 0, not -1"),
        ("tol: {filter: mlp, value: -1}", "'tol' must be at least 0, not -1"),
    ],
)
def test_bounds(line, message):
    (problem,) = mistakes(f"merge_method: karcher\nmodels: [a, b]\nparameters: {{{line}}}\n")
    assert problem.message == message
    assert problem.where.line == 3


def test_both_bounds():
    text = "merge_method: sce\nbase_model: base\nmodels: [a]\nparameters:\n  select_topk: 1.5\n"
    assert the_mistake(text) == "recipe.yml:5:16: 'select_topk' must be between 0 and 1, not 1.5"


def test_density_above_one_is_no_mistake():
    assert read(TIES.replace("0.5", "1.5")).models[0].parameters["density"].value("w", 0.0) == 1.5


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("a+b+c", "model 'a+b+c' has more than one '+'"),
        ("a@b@c", "model 'a@b@c' has more than one '@'"),
        ("a@", "model 'a@' has an empty part"),
        ("+a", "model '+a' has an empty part"),
        ("''", "model '' has an empty part"),
        ("7", "model must be text, not 7"),
        ("{revision: v1}", "the model reference names no model"),
        ("{model: a, path: b}", "a model reference has either 'model' or 'path', not both"),
        ("{model: a+b}", "a model in a mapping takes its adapter from 'lora'"),
        ("{model: {path: [a]}}", "path must be text, not a list"),
        ("{path: a, revison: v1}", "unknown key 'revison' in a model reference"),
    ],
)
def test_model_references(written, says):
    problems = mistakes(f"merge_method: passthrough\nmodels:\n  - model: {written}\n")
    assert [problem.where.line for problem in problems] == [3]
    assert problems[0].message.startswith(says)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("tokenizer: union", "the tokenizer must be a mapping, not 'union'"),
        ("tokenizer: {sorce: union}", "unknown key 'sorce' in the tokenizer"),
        ("tokenizer: {tokens: [a]}", "tokens must be a mapping, not a list"),
        ("tokenizer: {tokens: {a: {force: 2}}}", "force must be true or false, not 2"),
        ("tokenizer: {tokens: {a: {source: {kind: nought}}}}", "kind must be zero or model_token, not 'nought'"),
        ("tokenizer: {tokens: {a: {source: {kind: model_token, model: b}}}}", "a model_token needs either"),
        ("tokenizer: {pad_to_multiple_of: 0}", "pad_to_multiple_of must be a whole number above 0"),
        ("tokenizer_source: [a]", "tokenizer_source must be text, not a list"),
        ("chat_template: {a: b}", "chat_template must be text, not a mapping"),
        ("name: [a]", "name must be text, not a list"),
        ("merge_method: [a]", "merge_method must be text, not a list"),
        ("dtype: 16", "dtype must be text, not 16"),
        ("dtype: float8", "unknown dtype 'float8'"),
        ("dtype: int64", "unknown dtype 'int64'"),
        ("seed: soon", "seed must be a whole number from 0"),
        ("seed: 1e400", "seed must be a whole number from 0"),
    ],
)
def test_the_rest_of_the_top_level(block, says):
    method = "" if block.startswith("merge_method") else "merge_method: passthrough\n"
    (problem,) = mistakes(f"models: [a]\n{method}{block}\n")
    assert problem.where.line == (3 if method else 2)
    assert problem.message.startswith(says)


def test_a_tokenizer_and_its_source():
    text = "merge_method: passthrough\nmodels: [a]\ntokenizer: {source: base}\ntokenizer_source: base\n"
    assert the_mistake(text).startswith("recipe.yml:4:1: 'tokenizer' and 'tokenizer_source' exclude each other")


def test_no_method():
    assert the_mistake("models: [a]\n").startswith("recipe.yml:1:1: 'merge_method' is missing; the methods are dare")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (TIES + "base_model: other\n", (8, 1)),
        (TIES + "      density: 0.7\n", (8, 7)),
        (TIES + "    model: b\n", (8, 5)),
        (TIES + "parameters: {weight: {filter: a, filter: b, value: 1}}\n", (8, 34)),
    ],
)
def test_repeated_keys(text, place):
    problems = mistakes(text)
    assert places(problems) == [place]
    assert "is given twice" in problems[0].message


def test_an_alias_reports_its_mistake_once():
    text = "merge_method: linear\nmodels:\n  - {model: a, parameters: &p {weight: x}}\n  - {model: b, parameters: *p}\n"
    assert the_mistake(text) == "recipe.yml:3:40: 'weight' must be a number, not 'x'"


def test_the_error_is_one_line_a_mistake():
    with pytest.raises(RecipeError) as caught:
        read("merge_method: nothing_like_it\ndtype: x\n")
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems) == 3
    assert all(line.startswith("recipe.yml:") for line in lines)
    assert caught.value.exit_code == 2
