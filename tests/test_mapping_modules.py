"""Models of several parts: other stacks come along with the main one, or are merged as modules of their own."""

from __future__ import annotations

import time

import pytest
from merge_support import compiled, decoder_shapes, down, factors, model
from plait.engine.errors import RecipeError


def two_stacks(vision_layers: int = 2, **other: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"vision_tower.patch_embed.weight": (8, 3)}
    for layer in range(vision_layers):
        shapes[f"vision_tower.layers.{layer}.mlp.weight"] = (8, 8)
    shapes["projector.weight"] = (8, 8)
    return shapes | {f"language_{name}": shape for name, shape in decoder_shapes(4).items()} | other


CONFIG = {"text_config": {"num_hidden_layers": 4}, "vision_config": {"num_hidden_layers": 2}}


def text_down(layer: int) -> str:
    return "language_" + down(layer)


def test_slices_count_the_main_stack_and_the_other_one_comes_along() -> None:
    text = """
        merge_method: passthrough
        slices: [{sources: [{model: a, layer_range: [0, 3]}]}, {sources: [{model: b, layer_range: [1, 4]}]}]
        """
    models = [model(name, two_stacks(), config=CONFIG) for name in "ab"]
    found = compiled(text, *models)
    names = [tensor.name for tensor in found.mapping.tensors]
    assert text_down(5) in names
    assert [name for name in names if name.startswith("vision_tower.layers")] == [
        "vision_tower.layers.0.mlp.weight",
        "vision_tower.layers.1.mlp.weight",
    ]
    assert found.mapping.stacks["vision_tower.layers"].source_layers == (0, 1)
    assert len(names) == len(set(names))


def test_a_module_is_merged_on_its_own_and_the_rest_is_the_donors() -> None:
    text = """
        merge_method: linear
        modules:
          vision_tower:
            models:
              - {model: a, parameters: {weight: 0.25}}
              - {model: b, parameters: {weight: 0.75}}
        """
    found = compiled(text, *(model(name, two_stacks(), config=CONFIG) for name in "ab"))
    assert factors(found, "vision_tower.layers.1.mlp.weight") == {"a": 0.25, "b": 0.75}
    assert factors(found, "vision_tower.patch_embed.weight") == {"a": 0.25, "b": 0.75}
    assert factors(found, text_down(2)) == {"a": 1.0}
    assert {tensor.name for tensor in found.mapping.tensors} == set(two_stacks())


def test_modules_may_have_slices_of_their_own_stack() -> None:
    text = """
        merge_method: passthrough
        modules:
          vision_tower:
            slices:
              - sources: [{model: a, layer_range: [0, 2]}]
              - sources: [{model: a, layer_range: [1, 2]}]
          text_decoder:
            slices:
              - sources: [{model: a, layer_range: [0, 2]}]
        """
    found = compiled(text, model("a", two_stacks(), config=CONFIG))
    stacks = {prefix: layers.source_layers for prefix, layers in found.mapping.stacks.items()}
    assert stacks == {"vision_tower.layers": (0, 1, 1), "language_model.layers": (0, 1)}
    names = [tensor.name for tensor in found.mapping.tensors]
    assert "vision_tower.layers.2.mlp.weight" in names
    assert text_down(2) not in names


def test_an_unknown_module_is_an_error_with_the_valid_names() -> None:
    text = "{merge_method: passthrough, modules: {ears: {models: [{model: a}]}}}"
    with pytest.raises(RecipeError, match=r"a has no module 'ears'; it has vision_tower, text_decoder"):
        compiled(text, model("a", two_stacks(), config=CONFIG))


def test_modules_of_many_tensors_are_mapped_in_reasonable_time() -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    for part in ("vision_tower", "language_model"):
        for layer in range(10):
            for expert in range(1000):
                shapes[f"{part}.layers.{layer}.mlp.experts.{expert}.weight"] = (8, 8)
    text = """
        merge_method: passthrough
        modules: {vision_tower: {models: [{model: a}]}, text_decoder: {models: [{model: a}]}}
        """
    large = model("a", shapes, config={"text_config": {"num_hidden_layers": 10}})
    started = time.process_time()
    found = compiled(text, large)
    # A second or so; a minute where every tensor is held against every other.
    assert time.process_time() - started < 15
    assert len(found.mapping.tensors) == len(shapes)
