"""`modules:` on vision-language models as transformers builds, saves and loads them."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

import plait
import pytest
import torch
from merge_support import tensors_of, write_recipe

if importlib.util.find_spec("transformers") is None:
    pytest.skip("transformers is not installed", allow_module_level=True)

from catalogue import build, shrink

if TYPE_CHECKING:
    from pathlib import Path

MODELS = {
    # The class; the module with the eyes; prefixes of what it holds; the stack of the text; its layer's prefix.
    "LlavaForConditionalGeneration": ("vision_tower", "vision_tower.", "language_model.model.layers"),
    "Qwen2_5_VLForConditionalGeneration": ("visual", "visual.", "model.layers"),
    "Gemma3ForConditionalGeneration": ("vision_tower", "vision_tower.", "language_model.model.layers"),
}


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pair(name: str, tmp_path: Path) -> tuple[Path, Path]:
    """A model and another one, saved by transformers."""
    folders = tmp_path / "a", tmp_path / "b"
    for seed, folder in enumerate(folders):
        build(name, seed=seed).save_pretrained(folder)
    return folders


def load(name: str, folder: Path) -> Any:
    """The model as transformers loads it, which has to find every weight and no other."""
    import transformers

    model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert {kind: list(found) for kind, found in info.items() if found} == {}
    return model


def merged(tmp_path: Path, recipe: str) -> Path:
    out = tmp_path / "out"
    plait.plan(write_recipe(tmp_path / "recipe.yml", recipe)).run(out)
    return out


def test_one_module_is_merged_and_the_rest_is_copied(name: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    module, held, _ = MODELS[name]
    a, b = pair
    out = merged(
        tmp_path,
        f"""
        merge_method: linear
        modules:
          {module}:
            models:
              - {{model: {a}, parameters: {{weight: 0.25}}}}
              - {{model: {b}, parameters: {{weight: 0.75}}}}
        """,
    )
    first, second, found = map(tensors_of, (a, b, out))
    assert found.keys() == first.keys()
    inside = [tensor for tensor in found if f".{held}" in f".{tensor}"]
    assert inside
    for tensor, value in found.items():
        expected = 0.25 * first[tensor] + 0.75 * second[tensor] if tensor in inside else first[tensor]
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)
    load(name, out)
    assert json.loads((out / "config.json").read_text()) == json.loads((a / "config.json").read_text())


def test_slices_inside_the_text_module(name: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    *_, stack = MODELS[name]
    a, b = pair
    out = merged(
        tmp_path,
        f"""
        merge_method: passthrough
        modules:
          text_decoder:
            slices:
              - sources: [{{model: {a}, layer_range: [0, 1]}}]
              - sources: [{{model: {b}, layer_range: [1, 4]}}]
              - sources: [{{model: {a}, layer_range: [3, 4]}}]
        """,
    )
    first, second, found = map(tensors_of, (a, b, out))
    for layer, (source, number) in enumerate([(first, 0), (second, 1), (second, 2), (second, 3), (first, 3)]):
        layers = [tensor for tensor in found if tensor.startswith(f"{stack}.{layer}.")]
        assert layers
        for tensor in layers:
            assert torch.equal(found[tensor], source[f"{stack}.{number}.{tensor.removeprefix(f'{stack}.{layer}.')}"])
    outside = [tensor for tensor in found if not tensor.startswith(f"{stack}.")]
    assert {tensor for tensor in first if not tensor.startswith(f"{stack}.")} == set(outside)
    model = load(name, out)
    assert model.config.get_text_config().num_hidden_layers == 5
    assert model.config.vision_config.to_dict().get("num_hidden_layers", 4) == 4


def test_slices_inside_the_vision_module(name: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    module, held, stack = MODELS[name]
    a, _ = pair
    out = merged(
        tmp_path,
        f"""
        merge_method: passthrough
        modules:
          {module}:
            slices:
              - sources: [{{model: {a}, layer_range: [0, 1]}}]
              - sources: [{{model: {a}, layer_range: [2, 4]}}]
        """,
    )
    first, found = tensors_of(a), tensors_of(out)
    assert all(torch.equal(found[tensor], first[tensor]) for tensor in first if tensor.startswith(f"{stack}."))
    lost = [tensor for tensor in first if tensor not in found]
    assert lost
    assert all(f".{held}" in f".{tensor}" and ".3." in tensor for tensor in lost)
    model = load(name, out)
    vision = model.config.vision_config.to_dict()
    assert vision.get("depth", vision.get("num_hidden_layers")) == 3
    assert model.config.get_text_config().num_hidden_layers == 4


def test_a_tied_model_meets_one_with_a_head_of_its_own(name: str, tmp_path: Path) -> None:
    import transformers

    kind = getattr(transformers, name)
    for folder, tied in (("a", True), ("b", False)):
        torch.manual_seed(int(tied))
        config = kind.config_class()
        shrink(config)
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = tied
        kind(config).save_pretrained(tmp_path / folder)
    heads = {folder: [key for key in tensors_of(tmp_path / folder) if "lm_head" in key] for folder in "ab"}
    assert heads["a"] == []
    (head,) = heads["b"]
    out = merged(
        tmp_path,
        """
        merge_method: linear
        models: [{model: a, parameters: {weight: 0.25}}, {model: b, parameters: {weight: 0.75}}]
        """,
    )
    first, second = load(name, tmp_path / "a"), load(name, tmp_path / "b")
    model = load(name, out)
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    own = tensors_of(tmp_path / "b")[head]
    expected = 0.25 * first.get_input_embeddings().weight + 0.75 * own
    torch.testing.assert_close(model.get_output_embeddings().weight, expected)
    assert torch.equal(second.get_output_embeddings().weight, own)
