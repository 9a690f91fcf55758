"""The ways to write a value: references, numbers, booleans, filters, dtypes."""

from __future__ import annotations

import pytest
from plait.engine.recipe import Choice, ModelRef, TokenizerBlock, TokenRow
from recipe_support import read


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("org/name", ModelRef("org/name")),
        ("org/name@main", ModelRef("org/name", "main")),
        ("org/name+org/lora", ModelRef("org/name", None, ModelRef("org/lora"))),
        ("org/name@v1+org/lora@v2", ModelRef("org/name", "v1", ModelRef("org/lora", "v2"))),
        (r"C:\models\seven b", ModelRef(r"C:\models\seven b")),
        (r".\models\a", ModelRef(r".\models\a")),
        ("'../with: colon'", ModelRef("../with: colon")),
        ("{model: org/name@v1}", ModelRef("org/name", "v1")),
        ("{model: {path: org/name, revision: v1}}", ModelRef("org/name", "v1")),
        ("{model: {path: a+b@c}, lora: null}", ModelRef("a+b@c")),
        ("{model: {path: org/name}, lora: org/lora@v2}", ModelRef("org/name", None, ModelRef("org/lora", "v2"))),
        ("{model: org/name, lora: {path: org/lora}}", ModelRef("org/name", None, ModelRef("org/lora"))),
        ("{path: org/name, revision: v1}", ModelRef("org/name", "v1")),
        ("{path: org/name}", ModelRef("org/name")),
    ],
)
def test_model_references(written, meant):
    recipe = read(f"merge_method: passthrough\nbase_model: {written}\nmodels:\n  - model: {written}\n")
    assert recipe.models[0].model == meant
    assert recipe.base_model == meant
    assert recipe.warnings == ()


@pytest.mark.parametrize("written", ["1e-9", "'1e-9'", "1.0e-9", "0.000000001"])
def test_numbers_that_yaml_reads_as_text(written):
    recipe = read(f"merge_method: linear\nmodels: [a, b]\nparameters: {{weight: [{written}, 1]}}\n")
    assert recipe.parameters["weight"].choices == (Choice(None, (1e-9, 1.0)),)


@pytest.mark.parametrize("written", ["1", "1.0", "true", "True", "'true'", "yes", "on", "'1'"])
def test_ways_to_write_true(written):
    recipe = read(
        f"""\
        merge_method: ties
        base_model: base
        models: [a]
        parameters: {{weight: 1, normalize: {written}, rescale: {written}, int8_mask: {written}}}
        """
    )
    assert [recipe.parameters[name].value("w", 0.0) for name in ("normalize", "int8_mask")] == [True, True]
    assert recipe.parameters["rescale"].value("w", 0.0) == "true"
    assert recipe.warnings == ()


@pytest.mark.parametrize(
    ("written", "word"),
    [("true", "true"), ("0.0", "false"), ("false", "false"), ("l1", "l1"), ("density", "density")],
)
def test_rescale(written, word):
    recipe = read(f"merge_method: ties\nbase_model: base\nmodels: [a]\nparameters: {{weight: 1, rescale: {written}}}\n")
    assert recipe.parameters["rescale"].choices == (Choice(None, word),)


def test_a_bare_filter_counts_as_a_list_of_one():
    text = "merge_method: linear\nmodels: [a]\nparameters: {weight: %s}\n"
    bare = read(text % "{filter: mlp, value: [0, 1]}").parameters["weight"]
    listed = read(text % "[{filter: mlp, value: [0, 1]}]").parameters["weight"]
    assert bare.choices == listed.choices == (Choice("mlp", (0.0, 1.0)),)


def test_a_gradient_of_one_element():
    recipe = read("merge_method: linear\nmodels: [a]\nparameters: {weight: [0.5]}\n")
    assert recipe.parameters["weight"].value("w", 0.7) == 0.5


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("bfloat16", "bfloat16"),
        ("torch.bfloat16", "bfloat16"),
        ("bf16", "bfloat16"),
        ("fp16", "float16"),
        ("fp32", "float32"),
        ("float64", "float64"),
    ],
)
def test_dtypes(written, name):
    recipe = read(f"merge_method: passthrough\nmodels: [a]\ndtype: {written}\nout_dtype: {written}\n")
    assert (recipe.dtype, recipe.out_dtype) == (name, name)


def test_layer_ranges_as_text():
    recipe = read(
        """\
        merge_method: passthrough
        slices:
          - sources: [{model: a, layer_range: ["0", "8"]}]
          - sources: [{model: a, layer_range: [8.0, 16]}]
        """
    )
    assert [part.sources[0].layer_range for part in recipe.slices] == [(0, 8), (8, 16)]


def test_a_tokenizer_block():
    recipe = read(
        """\
        merge_method: passthrough
        models: [a]
        tokenizer:
          source: union
          pad_to_multiple_of: 32
          tokens:
            <|im_start|>: {source: org/name, force: true}
            <|im_end|>: {source: {kind: model_token, model: org/name, token_id: 7}}
            <|eot|>: {source: {kind: zero}}
        """
    )
    name = ModelRef("org/name")
    assert recipe.tokenizer == TokenizerBlock(
        "union",
        {
            "<|im_start|>": TokenRow(name, force=True),
            "<|im_end|>": TokenRow(name, token_id=7),
            "<|eot|>": TokenRow(zero=True),
        },
        pad_to_multiple_of=32,
    )
    assert recipe.tokenizer_references() == (name,)
    assert recipe.warnings == ()
