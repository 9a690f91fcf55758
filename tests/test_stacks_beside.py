"""Stacks beside the main one: lists of parts of the same layers, encoders, towers; and tables for every layer."""

from __future__ import annotations

from typing import Any

import pytest
from architecture_support import ATTENTION, infer, layered, llama
from merge_support import compiled, decoder_shapes, model
from plait.engine.errors import InputError
from plait.loaders.config import output_config

SIZE = (8, 8)
LAYERS = 4
SWAPPED = """
    merge_method: passthrough
    slices:
      - sources: [{model: a, layer_range: [0, 1]}]
      - sources: [{model: a, layer_range: [2, 4]}]
    """


def shapes(*names: str) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(names, SIZE)


XLM = [
    "transformer.embeddings.weight",
    *layered("transformer.attentions", LAYERS, "q_lin.weight", "out_lin.weight"),
    *layered("transformer.layer_norm1", LAYERS, "weight"),
    *layered("transformer.ffns", LAYERS, "lin1.weight", "lin2.weight"),
    "pred_layer.proj.bias",
]


def test_lists_of_parts_of_the_same_layers_move_together() -> None:
    found = compiled(SWAPPED, model("a", shapes(*XLM), config={"n_layers": LAYERS}))
    made = {output: island.leaves[0].name for island in found.graph.islands for output in island.outputs}
    for prefix, suffix in (("attentions", "q_lin.weight"), ("layer_norm1", "weight"), ("ffns", "lin2.weight")):
        taken = [made[f"transformer.{prefix}.{layer}.{suffix}"] for layer in range(3)]
        assert taken == [f"transformer.{prefix}.{layer}.{suffix}" for layer in (0, 2, 3)]
        assert found.mapping.stacks[f"transformer.{prefix}"].source_layers == (0, 2, 3)
    assert len(made) == len(XLM) - 5
    config = output_config(
        {"n_layers": LAYERS, "kinds": list("abcd"), "dtype": "x"},
        stack_layers={key: (each.donor_layers, each.source_layers) for key, each in found.mapping.stacks.items()},
        dtype_name="x",
    )
    assert config == {"n_layers": 3, "kinds": list("acd"), "dtype": "x"}


@pytest.mark.parametrize(
    ("other", "follows"),
    [
        ("model.norms", "model.layers"),
        ("model.encoder_layers", None),
        ("model.vision_layers", None),
        ("model.blocks", None),
        ("other.layers", None),
    ],
)
def test_what_is_part_of_the_main_stack(other: str, follows: str | None) -> None:
    found = infer([*llama(layers=LAYERS), *layered(other, LAYERS, "a.weight")], {"num_hidden_layers": LAYERS})
    assert found.primary == "model.layers"
    assert found.stacks[other].follows == follows
    assert found.stacks["model.layers"].follows is None
    longer = infer([*llama(layers=LAYERS), *layered(other, LAYERS + 1, "a.weight")], {"num_hidden_layers": LAYERS})
    assert longer.stacks[other].follows is None


@pytest.mark.parametrize(
    ("other", "suffixes"),
    [
        ("encoder.layers", [*ATTENTION, "conv.weight"]),
        ("model.sam_model.blocks", [*ATTENTION, "conv.weight"]),
        ("model.sam_model.neck", ["weight"]),
        ("projector.qformer.encoder.layer", [*ATTENTION, "cross.weight"]),
    ],
)
def test_of_stacks_as_long_as_each_other_the_text_is_the_main_one(other: str, suffixes: list[str]) -> None:
    names = [*layered(other, LAYERS, *suffixes), *llama("language_model.model", layers=LAYERS)]
    config = {"encoder_config": {"num_layers": LAYERS}, "text_config": {"num_hidden_layers": LAYERS}}
    assert infer(names, config).primary == "language_model.model.layers"
    names = [*layered(other, LAYERS, *suffixes), *llama("model.decoder", layers=LAYERS)]
    assert infer(names, config).primary == "model.decoder.layers"


def test_the_config_of_a_decoder_beside_an_encoder_with_a_text_config() -> None:
    counted = {"num_hidden_layers": LAYERS, "layer_types": list("abcd")}
    config: dict[str, Any] = {
        "dtype": "x",
        "decoder": dict(counted),
        "encoder": {"text_config": dict(counted), "vision_config": {"num_hidden_layers": LAYERS}},
    }
    shorter = {"num_hidden_layers": 2, "layer_types": list("da")}
    found = output_config(config, stack_layers={"model.decoder.layers": (LAYERS, (3, 0))}, dtype_name="x")
    assert found == {**config, "decoder": shorter}
    found = output_config(config, stack_layers={"model.encoder.layers": (LAYERS, (3, 0))}, dtype_name="x")
    assert found == {**config, "encoder": {**config["encoder"], "text_config": shorter}}


def test_a_list_that_says_nothing_is_the_encoders_where_the_decoder_is_counted_apart() -> None:
    config = {"encoder_layers": LAYERS, "decoder_layers": LAYERS, "attention_window": [1, 2, 3, 4], "dtype": "x"}
    found = output_config(config, stack_layers={"led.decoder.layers": (LAYERS, (3, 0))}, dtype_name="x")
    assert found == {**config, "decoder_layers": 2}


PER_LAYER = {"model.embed_tokens_per_layer.weight": (16, LAYERS * 3), "model.per_layer_projection_norm.weight": (3,)}


def test_a_table_with_a_part_for_every_layer_is_not_cut() -> None:
    large = model("a", {**PER_LAYER, **decoder_shapes(LAYERS)}, config={"num_hidden_layers": LAYERS})
    with pytest.raises(InputError, match=r"a: model\.embed_tokens_per_layer\.weight \(\[16, 12\]\) holds a part for"):
        compiled(SWAPPED, large)
    whole = "{merge_method: passthrough, slices: [{sources: [{model: a, layer_range: [0, 4]}]}]}"
    assert len(compiled(whole, large).mapping.tensors) == len(PER_LAYER) + len(decoder_shapes(LAYERS))
