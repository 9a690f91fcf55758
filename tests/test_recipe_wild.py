"""Recipes as people publish them run as they are."""

from __future__ import annotations

from plait.engine.recipe import Choice, ModelRef, TokenizerBlock
from recipe_support import read, warnings

DARE_TIES = """\
models:
  - model: mistralai/Mistral-7B-v0.1
    # No parameters necessary for base model
  - model: samir-fama/SamirGPT-v1
    parameters:
      density: 0.53
      weight: 0.4
  - model: abacusai/Slerp-CM-mist-dpo
    parameters:
      density: 0.53
      weight: 0.3
  - model: EmbeddedLLM/Mistral-7B-Merge-14-v0.2
    parameters:
      density: 0.53
      weight: 0.3
merge_method: dare_ties
base_model: mistralai/Mistral-7B-v0.1
parameters:
  int8_mask: true
dtype: bfloat16
"""

EXPANSION = """\
slices:
  - sources:
    - model: meta-llama/Meta-Llama-3-8B-Instruct
      layer_range: [0, 24]
  - sources:
    - model: meta-llama/Meta-Llama-3-8B-Instruct
      layer_range: [8, 24]
      parameters:
        scale:
          - filter: o_proj
            value: 0.0
          - filter: down_proj
            value: 0.0
          - value: 1.0
  - sources:
    - model: meta-llama/Meta-Llama-3-8B-Instruct
      layer_range: [24, 32]
merge_method: passthrough
dtype: bfloat16
"""

GRADIENT_SLERP = """\
slices:
  - sources:
      - model: psmathur/orca_mini_v3_13b
        layer_range: [0, 40]
      - model: garage-bAInd/Platypus2-13B
        layer_range: [0, 40]
merge_method: slerp
base_model: psmathur/orca_mini_v3_13b
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5 # fallback for rest of tensors
dtype: float16
"""


def test_dare_ties():
    recipe = read(DARE_TIES)
    assert recipe.merge_method == "dare_ties"
    assert recipe.base_model == ModelRef("mistralai/Mistral-7B-v0.1")
    assert [str(entry.model) for entry in recipe.models] == [
        "mistralai/Mistral-7B-v0.1",
        "samir-fama/SamirGPT-v1",
        "abacusai/Slerp-CM-mist-dpo",
        "EmbeddedLLM/Mistral-7B-Merge-14-v0.2",
    ]
    assert dict(recipe.models[0].parameters) == {}
    assert recipe.models[1].parameters["weight"].choices == (Choice(None, 0.4),)
    assert recipe.models[1].parameters["density"].choices == (Choice(None, 0.53),)
    assert recipe.parameters["int8_mask"].choices == (Choice(None, True),)
    assert (recipe.dtype, recipe.out_dtype, recipe.seed) == ("bfloat16", None, None)
    assert recipe.text == DARE_TIES
    assert recipe.warnings == ()
    assert recipe.where["dtype"].line == 20


def test_passthrough_expansion_with_filters():
    recipe = read(EXPANSION)
    assert [part.sources[0].layer_range for part in recipe.slices] == [(0, 24), (8, 24), (24, 32)]
    scale = recipe.slices[1].sources[0].parameters["scale"]
    assert scale.choices == (Choice("o_proj", 0.0), Choice("down_proj", 0.0), Choice(None, 1.0))
    assert scale.value("model.layers.8.self_attn.o_proj.weight", 0.0) == 0.0
    assert scale.value("model.layers.8.self_attn.q_proj.weight", 0.0) == 1.0
    assert recipe.references() == (ModelRef("meta-llama/Meta-Llama-3-8B-Instruct"),)
    assert recipe.warnings == ()


def test_gradient_slerp():
    recipe = read(GRADIENT_SLERP)
    assert recipe.parameters["t"].choices[0] == Choice("self_attn", (0.0, 0.5, 0.3, 0.7, 1.0))
    assert recipe.warnings == ()


def test_anchors_and_merge_keys():
    recipe = read(
        """\
        const_tag: &M org/model
        dtyp: &D bfloat16
        anchors:
          - &low 0.25
        shared: &shared
          parameters: &given {weight: 0.5, density: *low}
        merge_method: ties
        base_model: org/base
        models:
          - {model: *M, <<: *shared}
          - model: org/second
            parameters: {<<: *given, weight: 2}
          - model: org/third
            parameters: {<<: [{weight: 3}, *given]}
        dtype: *D
        """
    )
    assert recipe.warnings == ()
    assert recipe.dtype == "bfloat16"
    assert recipe.models[0].model == ModelRef("org/model")
    values = [[entry.parameters[name].value("w", 0.0) for name in ("weight", "density")] for entry in recipe.models]
    assert values == [[0.5, 0.25], [2.0, 0.25], [3.0, 0.25]]


def test_an_anchor_that_nothing_uses_excuses_no_key():
    text = "const_tag: &M org/m\nmerge_method: passthrough\nmodels: [org/m]\n"
    assert len(warnings(text)) == 1
    assert warnings(text.replace("[org/m]", "[*M]")) == []


def test_a_slice_of_a_whole_stack():
    recipe = read("merge_method: passthrough\nslices:\n  - sources:\n      - model: a\n  - sources: [b]\n")
    assert [part.sources[0].layer_range for part in recipe.slices] == [None, None]
    assert [str(part.sources[0].model) for part in recipe.slices] == ["a", "b"]


def test_modules():
    recipe = read(
        """\
        merge_method: linear
        modules:
          text_decoder:
            slices:
              - sources:
                  - {model: a, layer_range: [0, 2], parameters: {weight: 1}}
                  - {model: b, layer_range: [2, 4]}
                parameters: {weight: 2}
          vision_tower:
            models: [a, b]
            parameters: {weight: 3}
        """
    )
    decoder, tower = recipe.modules
    assert (decoder.name, len(decoder.slices), decoder.models) == ("text_decoder", 1, ())
    assert (tower.name, [str(entry.model) for entry in tower.models]) == ("vision_tower", ["a", "b"])
    assert [str(model) for model in recipe.references()] == ["a", "b"]


def test_the_rest_of_the_top_level():
    recipe = read(
        """\
        ---
        name: 7
        merge_method: passthrough
        models: [a]
        base_model:
        parameters:
        seed: '12'
        tokenizer_source: model:org/name
        chat_template: chatml
        ---
        """
    )
    assert (recipe.name, recipe.seed, recipe.base_model) == ("7", 12, None)
    assert (recipe.tokenizer, recipe.chat_template) == (TokenizerBlock(ModelRef("org/name")), "chatml")
    assert recipe.warnings == ()


def test_the_same_model_twice_is_two_inputs():
    recipe = read("merge_method: linear\nmodels: [a, a]\nparameters: {weight: 1}\n")
    assert len(recipe.models) == 2


def test_a_base_model_that_the_slices_name():
    recipe = read(
        """\
        merge_method: slerp
        slices:
          - sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]
            base_model: a
        parameters: {t: 0.5}
        """
    )
    assert recipe.base_model == ModelRef("a")


def test_a_slice_that_merges_the_base_with_itself():
    recipe = read(
        """\
        merge_method: slerp
        base_model: a
        slices:
          - sources: [{model: a, layer_range: [0, 2]}, {model: a, layer_range: [2, 4]}]
        parameters: {t: 0.5}
        """
    )
    assert recipe.warnings == ()


def test_a_base_without_a_layer_range_beside_sources_that_have_one():
    recipe = read(
        """\
        base_model: base
        merge_method: ties
        modules:
          default:
            slices:
            - sources:
              - {layer_range: [0, 40], model: a, parameters: {weight: [0.9, 0.2, 0.2]}}
              - {model: base}
        parameters: {normalize: 1.0}
        tokenizer: {}
        """
    )
    assert [source.layer_range for source in recipe.modules[0].slices[0].sources] == [(0, 40), None]
    assert recipe.warnings == ()
