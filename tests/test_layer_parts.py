"""Tensors with a part for every layer, outside of the stacks: where layers go, their parts go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import plait
import pytest
import torch
from merge_support import compiled, decoder_shapes, model, save_model, tensors_of, write_recipe
from plait.engine.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = 4
WIDTH = 3
PER_LAYER = {
    "model.embed_tokens_per_layer.weight": (16, LAYERS * WIDTH),
    "model.per_layer_model_projection.weight": (LAYERS * WIDTH, 10),
    "model.per_layer_projection_norm.weight": (WIDTH,),
}


@pytest.mark.parametrize(
    ("recipe", "weights"),
    [
        (
            """
            merge_method: passthrough
            slices:
              - sources: [{model: a, layer_range: [3, 4]}]
              - sources: [{model: b, layer_range: [0, 3]}]
              - sources: [{model: a, layer_range: [1, 2]}]
            """,
            [({"a": 1.0}, 3), ({"b": 1.0}, 0), ({"b": 1.0}, 1), ({"b": 1.0}, 2), ({"a": 1.0}, 1)],
        ),
        (
            """
            merge_method: linear
            slices:
              - sources:
                  - {model: a, layer_range: [2, 4], parameters: {weight: 0.75}}
                  - {model: b, layer_range: [2, 4], parameters: {weight: 0.25}}
            """,
            [({"a": 0.75, "b": 0.25}, 2), ({"a": 0.75, "b": 0.25}, 3)],
        ),
    ],
)
def test_parts_of_a_table_go_where_their_layers_go(
    tmp_path: Path, recipe: str, weights: list[tuple[dict[str, float], int]]
) -> None:
    config = {"model_type": "x", "num_hidden_layers": LAYERS, "hidden_size_per_layer_input": WIDTH}
    stored = {}
    for number, name in enumerate("ab"):
        random = torch.Generator().manual_seed(number)
        shapes = PER_LAYER | {f"model.layers.{layer}.mlp.up_proj.weight": (8, 8) for layer in range(LAYERS)}
        stored[name] = {key: torch.randn(shape, generator=random) for key, shape in shapes.items()}
        save_model(tmp_path / name, stored[name], config)
    plait.plan(write_recipe(tmp_path / "recipe.yml", recipe)).run(tmp_path / "out")
    found = tensors_of(tmp_path / "out")
    for key, axis in (("model.embed_tokens_per_layer.weight", 1), ("model.per_layer_model_projection.weight", 0)):
        parts = [
            sum(share * stored[name][key].narrow(axis, layer * WIDTH, WIDTH) for name, share in shares.items())
            for shares, layer in weights
        ]
        assert torch.allclose(found[key], torch.cat(parts, axis), atol=1e-6), key
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == len(weights)


def test_parts_of_other_sizes_are_refused() -> None:
    narrow = {
        name: tuple(size // WIDTH * 2 if size % WIDTH == 0 else size for size in shape)
        for name, shape in PER_LAYER.items()
    }
    config = {"num_hidden_layers": LAYERS}
    wide = model("a", {**PER_LAYER, **decoder_shapes(LAYERS)}, config=config | {"size_per_layer": WIDTH})
    other = model("b", {**narrow, **decoder_shapes(LAYERS)}, config=config | {"size_per_layer": 2})
    recipe = """{merge_method: passthrough, slices: [
        {sources: [{model: a, layer_range: [0, 2]}]}, {sources: [{model: b, layer_range: [2, 4]}]}]}"""
    with pytest.raises(InputError, match="parts of another size"):
        compiled(recipe, wide, other)
