"""How a parameter gets its value: gradients, filters, scopes; and what is not available yet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plait.engine.recipe import interpolate, look_up
from plait.engine.recipe_checks import unsupported
from plait.engine.suggest import closest, edit_distance, near_miss
from recipe_support import places, read


@pytest.mark.parametrize(
    ("gradient", "t", "value"),
    [
        ((5.0,), 0.0, 5.0),
        ((5.0,), 1.0, 5.0),
        ((0.0, 1.0), 0.0, 0.0),
        ((0.0, 1.0), 0.25, 0.25),
        ((0.0, 1.0), 1.0, 1.0),
        ((0.0, 1.0, 0.0), 0.5, 1.0),
        ((0.0, 1.0, 0.0), 0.75, 0.5),
        ((1.0, 2.0, 4.0, 8.0), 1 / 3, 2.0),
    ],
)
def test_gradients(gradient, t, value):
    assert interpolate(gradient, t) == pytest.approx(value, abs=1e-12)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8).map(tuple), st.floats(0, 1))
def test_a_gradient_stays_between_its_numbers_and_meets_its_ends(gradient, t):
    slack = 1e-9 * max(map(abs, gradient)) + 1e-300
    assert min(gradient) - slack <= interpolate(gradient, t) <= max(gradient) + slack
    assert interpolate(gradient, 0.0) == gradient[0]
    assert interpolate(gradient, 1.0) == gradient[-1]


def test_the_innermost_scope_that_has_a_value_wins():
    recipe = read(
        """\
        merge_method: linear
        modules:
          text:
            slices:
              - sources:
                  - model: a
                    parameters: {weight: [{filter: mlp, value: 1}]}
                parameters: {weight: [{filter: attn, value: [2, 4]}, {filter: q_proj, value: 9}]}
            parameters: {weight: {filter: norm, value: 3}}
        parameters: {weight: 4}
        """
    )
    (module,) = recipe.modules
    (part,) = module.slices
    scopes = (part.sources[0].parameters, part.parameters, module.parameters, recipe.parameters)
    values = {
        name: look_up("weight", scopes, f"model.layers.0.{name}.weight", 0.5)
        for name in ("mlp.up", "self_attn.q_proj", "q_proj", "norm", "other")
    }
    assert values == {"mlp.up": 1.0, "self_attn.q_proj": 3.0, "q_proj": 9.0, "norm": 3.0, "other": 4.0}
    assert look_up("normalize", scopes, "x", 0.0) is None


def test_zero_and_false_are_values():
    recipe = read(
        """\
        merge_method: ties
        base_model: base
        models: [{model: a, parameters: {weight: 0}}]
        parameters: {weight: 1, normalize: false}
        """
    )
    scopes = (recipe.models[0].parameters, recipe.parameters)
    assert look_up("weight", scopes, "w", 0.0) == 0.0
    assert look_up("normalize", scopes, "w", 0.0) is False


def test_the_first_filter_that_matches_counts():
    recipe = read(
        """\
        merge_method: linear
        models: [a]
        parameters:
          weight:
            - {filter: mlp, value: 0}
            - {filter: "*", value: 2}
            - {filter: attn, value: 3}
        """
    )
    weight = recipe.parameters["weight"]
    assert weight.value("layers.0.mlp.up", 0.0) == 0.0  # a value of 0 is a value
    assert weight.value("layers.0.attn.q", 0.0) == 2.0


def test_where_things_are():
    recipe = read(
        """\
        # a comment
        merge_method: linear
        models:
          - model: a
            parameters:
              weight: 1
          - b
        parameters:
          weight: 2
        """
    )
    assert {key: (place.line, place.column) for key, place in recipe.where.items()} == {
        "recipe": (2, 1),
        "merge_method": (2, 1),
        "models": (3, 1),
        "parameters": (8, 1),
    }
    assert [(entry.where.line, entry.where.column) for entry in recipe.models] == [(4, 5), (7, 5)]
    setting = recipe.models[0].parameters["weight"]
    assert (setting.where.file, setting.where.line, setting.where.column) == ("recipe.yml", 6, 7)


def test_what_is_not_available_yet():
    recipe = read(
        """\
        merge_method: linear
        base_model: base+lora
        models:
          - model: a
          - model: b+c
        parameters: {weight: 1}
        tokenizer_source: union
        chat_template: auto
        """
    )
    problems = unsupported(recipe)
    assert places(problems) == [(2, 1), (5, 5)]
    assert all("not available yet" in problem.message for problem in problems)


@pytest.mark.parametrize(
    ("name", "valid", "nearest"),
    [
        ("dype", ("dtype", "name"), "dtype"),
        ("dtpye", ("dtype",), "dtype"),
        ("merge_methd", ("merge_method",), "merge_method"),
        ("Merge-Method", ("merge_method",), "merge_method"),
        ("densty", ("density", "weight"), "density"),
        ("wieght", ("density", "weight"), "weight"),
        ("r", ("t",), None),
        ("T", ("t",), "t"),
        ("note", ("dtype",), None),
        ("gamma", ("lambda",), None),
        ("gate_mode", ("base_model", "merge_method"), None),
        ("description", ("dtype", "seed", "name"), None),
    ],
)
def test_near_misses(name, valid, nearest):
    assert near_miss(name, valid) == nearest


def test_the_closest_name_is_looser_than_a_near_miss():
    assert near_miss("params", ("parameters", "models")) is None
    assert closest("params", ("parameters", "models")) == "parameters"
    assert closest("xyzzy", ("parameters", "models")) is None


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_edit_distance(left, right):
    exact = edit_distance(left, right, 20)
    assert exact == edit_distance(right, left, 20)
    assert (exact == 0) == (left == right)
    assert abs(len(left) - len(right)) <= exact <= max(len(left), len(right))
    for limit in range(4):
        assert edit_distance(left, right, limit) == min(exact, limit + 1)


@given(st.text("abcd", min_size=2, max_size=8), st.data())
def test_one_slip_is_one_edit(word, data):
    at = data.draw(st.integers(0, len(word) - 2))
    letter = data.draw(st.sampled_from("xy"))
    assert edit_distance(word, word[:at] + word[at + 1 :], 3) == 1
    assert edit_distance(word, word[:at] + letter + word[at:], 3) == 1
    assert edit_distance(word, word[:at] + letter + word[at + 1 :], 3) == 1
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    assert edit_distance(word, swapped, 3) == (swapped != word)
