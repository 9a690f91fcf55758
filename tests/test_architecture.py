"""Layer stacks, embeddings, heads and ties of real families, found from names and config alone."""

from __future__ import annotations

from typing import Any

import pytest
from architecture_support import ATTENTION, infer, layered, leading, llama, summary, trailing
from plait.engine.model import TensorRole


def test_llama() -> None:
    found = infer(llama(), {"num_hidden_layers": 3})
    assert found.primary == "model.layers"
    assert found.stacks["model.layers"].layers == 3
    assert found.stacks["model.layers"].suffixes == ATTENTION
    assert leading(found) == {"model.embed_tokens.weight"}
    assert trailing(found) == {"model.norm.weight", "lm_head.weight"}
    assert found.roles["model.layers.2.mlp.up_proj.weight"] == TensorRole("model.layers", 2, "mlp.up_proj.weight")
    for name, role in found.roles.items():
        if role.stack is not None:
            assert role.layer is not None
            assert role.suffix is not None
            assert found.stacks[role.stack].tensor_name(role.layer, role.suffix) == name


def test_the_order_is_the_models_and_not_the_files() -> None:
    # Files sorted by name: layer 10 stands before layer 2, the head before everything.
    names = sorted(llama(layers=12))
    assert names[0] == "lm_head.weight"
    order = [tensor.name for tensor in infer(names).order]
    assert order[0] == "model.embed_tokens.weight"
    assert order[1:-2] == sorted(order[1:-2], key=lambda name: int(name.split(".")[2]))
    assert order[1:4] == sorted(f"model.layers.0.{suffix}" for suffix in ATTENTION)
    assert order[-2:] == ["lm_head.weight", "model.norm.weight"]
    assert list(infer(names).roles) == order


def test_experts_are_no_layers_and_layers_may_differ() -> None:
    names = ["model.embed_tokens.weight"]
    for layer in range(5):
        names.append(f"model.layers.{layer}.self_attn.o_proj.weight")
        if layer < 2:
            names.append(f"model.layers.{layer}.mlp.up_proj.weight")
        else:
            names += layered(f"model.layers.{layer}.mlp.experts", 4, "up_proj.weight", "down_proj.weight")
            names.append(f"model.layers.{layer}.mlp.gate.weight")
    extra = ["embed_tokens.weight", "enorm.weight", "eh_proj.weight", "shared_head.head.weight"]
    names += [f"model.layers.4.{suffix}" for suffix in extra]
    found = infer(
        [*names, "model.norm.weight", "lm_head.weight"], {"num_hidden_layers": 4, "num_nextn_predict_layers": 1}
    )
    assert summary(found) == {"model.layers": 5}
    assert found.primary == "model.layers"
    suffixes = found.stacks["model.layers"].suffixes
    assert suffixes[:3] == ("self_attn.o_proj.weight", "mlp.up_proj.weight", "mlp.experts.0.up_proj.weight")
    assert suffixes[-4:] == tuple(extra)
    assert len(suffixes) == 2 + 8 + 1 + 4
    assert leading(found) == {"model.embed_tokens.weight"}


LLAVA = [
    *("language_model." + name for name in llama(layers=2)),
    *layered(
        "vision_tower.vision_model.encoder.layers", 6, "self_attn.k_proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"
    ),
    "vision_tower.vision_model.embeddings.patch_embedding.weight",
    "vision_tower.vision_model.pre_layrnorm.weight",
    "vision_tower.vision_model.post_layernorm.weight",
    "multi_modal_projector.0.weight",
    "multi_modal_projector.2.weight",
    "model.image_newline",
]


@pytest.mark.parametrize("text_layers", [2, None], ids=["layers named", "layers left at the default"])
def test_the_text_stack_of_a_vision_model_is_primary_though_smaller(text_layers: int | None) -> None:
    text = {"num_hidden_layers": text_layers} if text_layers else {"model_type": "llama"}
    found = infer(LLAVA, {"text_config": text, "vision_config": {"num_hidden_layers": 6}})
    assert found.primary == "language_model.model.layers"
    assert summary(found) == {"language_model.model.layers": 2, "vision_tower.vision_model.encoder.layers": 6}
    assert leading(found) == {
        "language_model.model.embed_tokens.weight",
        "vision_tower.vision_model.embeddings.patch_embedding.weight",
        "vision_tower.vision_model.pre_layrnorm.weight",
    }


@pytest.mark.parametrize("prefix", ["model", "model.language_model"])
@pytest.mark.parametrize("nested", [True, False])
def test_stacks_of_equal_height_are_told_apart(prefix: str, nested: bool) -> None:
    names = [
        *layered("visual.blocks", 3, "attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"),
        *("visual.patch_embed.proj.weight", "visual.merger.mlp.0.weight", "visual.merger.mlp.2.weight"),
        *llama(prefix, layers=3),
    ]
    text = {"num_hidden_layers": 3}
    config: dict[str, Any] = {"vision_config": {"depth": 3}}
    config |= {"text_config": text} if nested else text
    found = infer(names, config)
    assert found.primary == f"{prefix}.layers"
    assert summary(found) == {"visual.blocks": 3, f"{prefix}.layers": 3}


def test_a_stack_is_known_by_its_name_where_its_config_is_out_of_date() -> None:
    found = infer(LLAVA, {"text_config": {"num_hidden_layers": 99}, "vision_config": {"num_hidden_layers": 6}})
    assert found.primary == "language_model.model.layers"


def test_one_layer_is_a_stack_where_the_config_says_so_or_nothing_else_is_one() -> None:
    assert infer(llama(layers=1), {"num_hidden_layers": 1}).primary == "model.layers"
    assert infer(llama(layers=1)).primary == "model.layers"
    names = [*llama(layers=2), "mtp.fc.weight", *layered("mtp.layers", 1, *ATTENTION)]
    assert summary(infer(names, {"num_hidden_layers": 2})) == {"model.layers": 2}
    config = {"num_hidden_layers": 2, "mtp_num_hidden_layers": 1}
    assert summary(infer(names, config)) == {"model.layers": 2, "mtp.layers": 1}
    assert infer(names, config).primary == "model.layers"


@pytest.mark.parametrize(
    "outside",
    [
        ["classifier.0.weight", "classifier.3.weight"],
        ["score.0.weight", "score.1.weight"],
        ["lm_heads.0.weight", "lm_heads.1.weight"],
        ["projector.1.proj.weight", "projector.2.proj.weight"],
        ["codes.00.proj.weight", "codes.01.proj.weight"],
        ["scales.0", "scales.1"],
        ["0.proj.weight", "1.proj.weight"],
    ],
)
def test_numbered_things_that_are_no_stack(outside: list[str]) -> None:
    found = infer([*llama(), *outside], {"num_hidden_layers": 3})
    assert summary(found) == {"model.layers": 3}
    assert set(outside) <= trailing(found)


def test_codebook_embeddings_are_leading() -> None:
    names = [*layered("model.embed_tokens", 4, "weight"), *layered("model.layers", 4, *ATTENTION)]
    found = infer([*names, *layered("lm_heads", 4, "weight")], {"num_hidden_layers": 4})
    assert summary(found) == {"model.layers": 4}
    assert leading(found) == {f"model.embed_tokens.{codebook}.weight" for codebook in range(4)}


def test_pruned_layers_without_tensors_count_where_the_config_says_so() -> None:
    names = [name for name in llama(layers=8) if ".layers.5." not in name]
    assert summary(infer(names, {"num_hidden_layers": 8})) == {"model.layers": 8}
    assert summary(infer(names, {"num_hidden_layers": 7})) == {}


def test_layers_of_a_single_tensor() -> None:
    found = infer(["embed.weight", *layered("model.layers", 3, "weight"), "head.weight"])
    assert summary(found) == {"model.layers": 3}
    assert trailing(found) == {"head.weight"}


def test_a_model_without_layers() -> None:
    found = infer(["embed.weight", "head.weight"], {"num_hidden_layers": 2})
    assert (found.primary, dict(found.stacks)) == (None, {})
    assert infer([]).order == ()


def test_the_deepest_of_several_unnamed_stacks_by_bytes() -> None:
    names = [*layered("a.layers", 5, "x.weight"), *layered("b.layers", 2, *(f"{i}.weight" for i in range(9)))]
    assert infer(names).primary == "b.layers"


def test_the_texts_own_count_comes_before_the_whole_models() -> None:
    names = [*layered("a.layers", 6, *ATTENTION), *layered("b.layers", 2, *ATTENTION)]
    config = {"num_hidden_layers": 6, "text_config": {"num_hidden_layers": 2}}
    assert infer(names, config).primary == "b.layers"


def test_what_is_called_layers_comes_before_what_stands_beside_it() -> None:
    names = [
        *layered("model.gated_cross_attn_layers", 4, *ATTENTION, "mlp.a.weight", "mlp.b.weight"),
        *layered("model.layers", 4, *ATTENTION),
    ]
    found = infer(names, {"num_hidden_layers": 4})
    assert found.primary == "model.layers"


def test_a_talker_is_not_the_thinker() -> None:
    names = [*layered("thinker.model.layers", 2, *ATTENTION), *layered("talker.model.layers", 2, *ATTENTION, "more.w")]
    config = {f"{part}_config": {"text_config": {"num_hidden_layers": 2}} for part in ("thinker", "talker")}
    assert infer(names, config).primary == "thinker.model.layers"
