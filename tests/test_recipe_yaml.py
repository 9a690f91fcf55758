"""Text that is not a recipe at all: hostile, broken, enormous."""

from __future__ import annotations

import pytest
from plait.engine.errors import RecipeError
from plait.engine.recipe_parser import parse_recipe
from plait.engine.recipe_yaml import MAX_DEPTH, MAX_NODES, MAX_TEXT_BYTES
from recipe_support import METHODS, mistakes, places, read, the_mistake


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "null\n", "---\n---\n...\n"])
def test_an_empty_recipe(text):
    assert the_mistake(text) == "recipe.yml:1:1: the recipe is empty"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("just words\n", "the recipe must be a mapping, not 'just words'"),
        ("- a\n- b\n", "the recipe must be a mapping, not a list"),
        ("7\n", "the recipe must be a mapping, not 7"),
    ],
)
def test_a_recipe_that_is_no_mapping(text, says):
    assert the_mistake(text).startswith(f"recipe.yml:1:1: {says}")


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("models:\n\t- model: a\n", (2, 1), "indent with spaces, not tabs"),
        ("models: [a\ndtype: b\n", (2, 6), ""),
        ("models: {a: b\n", (2, 1), ""),
        ("models: a: b\n", (1, 10), "check the indentation, and put text with a colon in it in quotes"),
        ('base_model: "C:\\models"\n', (1, 17), "a backslash in double quotes starts an escape"),
        ('base_model: "C:\\Users\\me"\n', (1, 18), "a backslash in double quotes starts an escape"),
        ("filter: *\n", (1, 10), 'a value that is a plain * must be in quotes: "*"'),
        ("base_model: @a\n", (1, 13), "put the value in quotes"),
        ("name: 'a\n", (2, 1), ""),
        ("a: 1\n  b: 2\n", (2, 4), "check the indentation"),
        ("a: \x07\n", (1, 4), ""),
        ("a: 1\nb: \ud800\n", (2, 4), ""),
        ('a: "\\UFFFFFFFF"\n', (1, 7), ""),
        ("%YAML " + "1" * 5000 + ".1\n--- a\n", (1, 7), ""),
    ],
)
def test_text_that_is_not_yaml(text, place, hint):
    problems = mistakes(text)
    assert places(problems) == [place]
    assert problems[0].message.startswith("not valid YAML: ")
    assert problems[0].hint.startswith(hint)
    assert "\x00" not in str(problems[0])
    assert "x00" not in str(problems[0])


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("1: a\n", (1, 1), "a key must be text, not 1"),
        ("on: a\n", (1, 1), "a key must be text, not on"),
        ("~: a\n", (1, 1), "a key must be text, not ~"),
        ("[a]: b\n", (1, 1), "a key must be text, not a list or a mapping"),
        ("? {a: b}\n: c\n", (1, 3), "a key must be text, not a list or a mapping"),
        ("<<: a\n", (1, 5), "a merge key (<<) takes a mapping"),
        ("<<: [{}, a]\n", (1, 10), "a merge key (<<) takes a mapping"),
        ("name: !!python/name:os.system a\n", (1, 7), "the YAML tag '!!python/name:os.system' means nothing"),
        ("name: !mine a\n", (1, 7), "the YAML tag '!mine' means nothing"),
        ("name: !!set {a}\n", (1, 7), "the YAML tag '!!set' means nothing"),
        ("name: &x a\nother: &x b\n", (2, 8), "the anchor '&x' is defined twice"),
    ],
)
def test_yaml_that_a_recipe_has_no_use_for(text, place, says):
    found = [problem for problem in mistakes(text) if problem.message.startswith(says)]
    assert places(tuple(found)) == [place]


def test_such_problems_come_with_the_others():
    problems = mistakes("1: a\nmerge_method: passthrough\nmodels: [b]\ndype: float16\n")
    assert places(problems) == [(1, 1), (4, 1)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("base_model: *nobody\n", "recipe.yml:1:13: the alias '*nobody' refers to no anchor above it"),
        ("models: &m [a, *m]\n", "recipe.yml:1:16: the alias '*m' is inside the value that it stands for"),
        ("a: *b\nb: &b 1\n", "recipe.yml:1:4: the alias '*b' refers to no anchor above it"),
    ],
)
def test_aliases_that_lead_nowhere(text, says):
    assert the_mistake(text).startswith(says)


@pytest.mark.parametrize("text", ["[" * 10_000, "{a: " * 10_000, "- " * 10_000, "? " * 10_000])
def test_deep_nesting(text):
    assert the_mistake(text).endswith(f"nested more than {MAX_DEPTH} levels deep")
    assert the_mistake(text + "]" * 10_000).endswith(f"nested more than {MAX_DEPTH} levels deep")


def test_deep_nesting_by_indentation():
    text = "".join(" " * level + "a:\n" for level in range(200))
    assert places(mistakes(text)) == [(MAX_DEPTH, MAX_DEPTH)]


def test_deep_nesting_through_aliases():
    text = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{x: *a{n - 1}}}\n" for n in range(1, 100))
    assert the_mistake(text).endswith(f"nested more than {MAX_DEPTH} levels deep")


def test_an_alias_bomb():
    text = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    text += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20))
    assert f"more than {MAX_NODES} values" in the_mistake(text)


def test_a_merge_key_bomb():
    text = "a0: &a0 {x: 1}\n"
    text += "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))
    assert f"more than {MAX_NODES} values" in the_mistake(text)


def test_an_enormous_text():
    assert the_mistake("x" * (MAX_TEXT_BYTES + 1)) == "recipe.yml:1:1: the recipe is larger than 2 MB"
    assert the_mistake("é" * (MAX_TEXT_BYTES // 2 + 1)) == "recipe.yml:1:1: the recipe is larger than 2 MB"


@pytest.mark.parametrize("numeral", ["9" * 10_000, "1" + ":59" * 100_000, "0x" + "f" * 10_000, "1" * 400 + ".0"])
def test_an_enormous_numeral(numeral):
    problems = mistakes(f"merge_method: linear\nmodels: [a]\nparameters: {{weight: {numeral}}}\n")
    assert places(problems) == [(3, 22)]
    assert len(problems[0].message) < 200


def test_a_long_name_is_not_repeated_in_full():
    problems = mistakes(f"merge_method: {'m' * 5000}\nmodels: [a]\n{'k' * 500}: 1\n", strict=True)
    assert len(problems) == 2
    assert all(len(problem.message) < 120 for problem in problems)


def test_several_documents_are_a_chain():
    text = (
        "name: one\nmerge_method: passthrough\nmodels: [a]\n---\nname: two\nmerge_method: passthrough\nmodels: [one]\n"
    )
    assert the_mistake(text).startswith(
        "recipe.yml:5:1: a second YAML document: chains of merges are not available yet"
    )


def test_explicit_keys_override_merged_ones_wherever_they_stand():
    for own in ("weight: 2, <<: *p", "<<: *p, weight: 2"):
        text = f"x: &p {{weight: 1}}\nmerge_method: linear\nmodels: [a]\nparameters: {{{own}}}\n"
        recipe = read(text)
        assert recipe.parameters["weight"].value("w", 0.0) == 2.0
        assert recipe.warnings == ()


def test_merge_keys_are_not_repeats_of_each_other():
    text = "x: &p {weight: 1}\ny: &q {weight: 2, scale: 1}\nmerge_method: linear\nmodels: [a]\n"
    recipe = read(text + "parameters: {<<: [*p, *q]}\n")
    assert recipe.parameters["weight"].value("w", 0.0) == 1.0


def test_a_byte_order_mark_and_windows_lines():
    recipe = parse_recipe("\ufeffmerge_method: passthrough\r\nmodels: [a]\r\n", "r.yml", METHODS)
    assert recipe.where["models"].line == 2
    assert recipe.where["merge_method"].column == 1
    with pytest.raises(RecipeError, match=r"^r\.yml:2:9: "):
        parse_recipe("\ufeffmerge_method: passthrough\r\nmodels: []\r\n", "r.yml", METHODS)
