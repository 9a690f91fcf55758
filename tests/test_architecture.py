"""Layer stacks, embeddings, heads and ties of real families, found from names and config alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from plait.engine.graph import TensorSpec
from plait.engine.model import StoredTensor, TensorRole
from plait.loaders.architecture import Architecture, infer_architecture

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VOCABULARY, HIDDEN = 96, 8


def tensors(names: Iterable[str], shapes: Mapping[str, tuple[int, ...]] | None = None) -> list[StoredTensor]:
    found, offset_bytes = [], 0
    for name in names:
        shape = (shapes or {}).get(name, (HIDDEN, HIDDEN))
        found.append(StoredTensor("model", name, TensorSpec(shape, torch.float32), "model.safetensors", offset_bytes))
        offset_bytes += found[-1].size_bytes
    return found


def infer(names: Iterable[str], config: dict[str, Any] | None = None, **shapes: tuple[int, ...]) -> Architecture:
    return infer_architecture(tensors(names, shapes), config or {})


def layered(prefix: str, layers: int, *suffixes: str) -> list[str]:
    return [f"{prefix}.{layer}.{suffix}" for layer in range(layers) for suffix in suffixes]


ATTENTION = ("input_layernorm.weight", "self_attn.q_proj.weight", "mlp.up_proj.weight")


def llama(prefix: str = "model", layers: int = 3, head: str | None = "lm_head.weight") -> list[str]:
    names = [f"{prefix}.embed_tokens.weight", *layered(f"{prefix}.layers", layers, *ATTENTION), f"{prefix}.norm.weight"]
    return [*names, head] if head else names


def leading(found: Architecture) -> set[str]:
    return {name for name, role in found.roles.items() if role.leading}


def trailing(found: Architecture) -> set[str]:
    return {name for name, role in found.roles.items() if role.stack is None and not role.leading}


def summary(found: Architecture) -> dict[str, int]:
    return {prefix: stack.layers for prefix, stack in found.stacks.items()}


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


GPT2 = ["wte.weight", "wpe.weight", *layered("h", 3, "ln_1.weight", "attn.c_attn.weight"), "ln_f.weight", "ln_f.bias"]


@pytest.mark.parametrize("wrapper", ["", "transformer."])
def test_gpt2_bare_and_wrapped(wrapper: str) -> None:
    # In a small model there are more positions than words.
    shapes = {f"{wrapper}wpe.weight": (1024, HIDDEN), f"{wrapper}wte.weight": (VOCABULARY, HIDDEN)}
    config = {"n_layer": 3, "architectures": ["GPT2LMHeadModel"]}
    found = infer([wrapper + name for name in GPT2], config, **shapes)
    assert found.primary == f"{wrapper}h"
    assert leading(found) == {f"{wrapper}wte.weight", f"{wrapper}wpe.weight"}
    assert found.vocabulary_rows == VOCABULARY
    assert found.aliases == {"lm_head.weight": f"{wrapper}wte.weight"}


FAMILIES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    # Names, `*` standing for the layers 0 and 1; config; primary stack; what belongs to the input embeddings.
    "gpt-neox": (
        "gpt_neox.embed_in gpt_neox.layers.*.attention.dense gpt_neox.final_layer_norm embed_out",
        {"num_hidden_layers": 2},
        "gpt_neox.layers",
        "gpt_neox.embed_in",
    ),
    "bert": (
        "bert.embeddings.word_embeddings bert.embeddings.position_embeddings bert.embeddings.token_type_embeddings "
        "bert.embeddings.LayerNorm bert.encoder.layer.*.attention.self.query bert.pooler.dense "
        "cls.predictions.transform.LayerNorm cls.predictions.decoder",
        {"num_hidden_layers": 2},
        "bert.encoder.layer",
        "bert.embeddings.word_embeddings bert.embeddings.position_embeddings bert.embeddings.token_type_embeddings "
        "bert.embeddings.LayerNorm",
    ),
    "bloom": (
        "word_embeddings word_embeddings_layernorm h.*.mlp.dense ln_f",
        {"n_layer": 2},
        "h",
        "word_embeddings word_embeddings_layernorm",
    ),
    "falcon": (
        "transformer.word_embeddings transformer.h.*.mlp.dense transformer.ln_f lm_head",
        {"num_hidden_layers": 2},
        "transformer.h",
        "transformer.word_embeddings",
    ),
    "opt": (
        "model.decoder.embed_tokens model.decoder.embed_positions model.decoder.project_in model.decoder.project_out "
        "model.decoder.layers.*.fc1 model.decoder.layers.*.self_attn.k_proj",
        {"num_hidden_layers": 2},
        "model.decoder.layers",
        "model.decoder.embed_tokens model.decoder.embed_positions model.decoder.project_in",
    ),
    "mamba": (
        "backbone.embeddings backbone.layers.*.mixer.in_proj backbone.layers.*.norm backbone.norm_f",
        {"num_hidden_layers": 2},
        "backbone.layers",
        "backbone.embeddings",
    ),
    "chatglm": (
        "transformer.embedding.word_embeddings transformer.rotary_pos_emb transformer.encoder.layers.*.mlp.up "
        "transformer.encoder.final_layernorm transformer.output_layer",
        {"num_layers": 2, "num_hidden_layers": 2},
        "transformer.encoder.layers",
        "transformer.embedding.word_embeddings transformer.rotary_pos_emb",
    ),
    "rwkv": (
        "rwkv.embeddings rwkv.blocks.*.attention.key rwkv.ln_out head",
        {"num_hidden_layers": 2},
        "rwkv.blocks",
        "rwkv.embeddings",
    ),
    "phi": (
        "model.embed_tokens model.layers.*.self_attn.dense model.layers.*.mlp.fc1 model.final_layernorm lm_head",
        {"num_hidden_layers": 2},
        "model.layers",
        "model.embed_tokens",
    ),
    "llama as first published": (
        "tok_embeddings layers.*.attention.wq norm output",
        {"n_layers": 2},
        "layers",
        "tok_embeddings",
    ),
    "t5": (
        "shared encoder.block.*.layer.0.SelfAttention.q encoder.final_layer_norm "
        "decoder.block.*.layer.0.SelfAttention.q decoder.block.*.layer.1.EncDecAttention.q "
        "decoder.final_layer_norm lm_head",
        {"num_layers": 2, "num_decoder_layers": 2},
        "decoder.block",
        "shared",
    ),
    "albert, one layer used many times": (
        "albert.embeddings.word_embeddings albert.encoder.embedding_hidden_mapping_in "
        "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query albert.pooler",
        {"num_hidden_layers": 12},
        "albert.encoder.albert_layer_groups",
        "albert.embeddings.word_embeddings albert.encoder.embedding_hidden_mapping_in",
    ),
}


def expand(modules: str) -> list[str]:
    """Names of weights: one for each module, or one for each of two layers where it has a `*`."""
    found = [[module.replace("*", layer) for layer in "01"] for module in modules.split()]
    return [f"{module}.weight" for each in found for module in dict.fromkeys(each)]


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str) -> None:
    modules, config, primary, first = FAMILIES[family]
    names = expand(modules)
    found = infer(names, config)
    assert found.primary == primary
    assert leading(found) == set(expand(first))
    assert {role.stack for role in found.roles.values()} - {None} == set(found.stacks)
    assert len(found.order) == len(found.roles) == len(set(names))
    # Without a config the names alone give the same picture.
    assert leading(infer(names)) == leading(found)
    assert infer(names).primary == primary


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


TIED = {"num_hidden_layers": 3, "tie_word_embeddings": True}
GEMMA = {"text_config": {"num_hidden_layers": 3}, "architectures": ["Gemma3ForConditionalGeneration"]}


@pytest.mark.parametrize(
    ("names", "config", "aliases"),
    [
        (llama(head=None), TIED, {"lm_head.weight": "model.embed_tokens.weight"}),
        (llama(), TIED, {}),
        (llama(head=None), {**TIED, "tie_word_embeddings": False}, {}),
        (llama(head=None), {"num_hidden_layers": 3}, {}),
        (llama(head=None), {"architectures": ["Gemma2ForCausalLM"]}, {"lm_head.weight": "model.embed_tokens.weight"}),
        (llama(head=None), {"architectures": ["LlamaModel"]}, {}),
        (
            llama("language_model.model", head=None),
            {"text_config": TIED},
            {"language_model.lm_head.weight": "language_model.model.embed_tokens.weight"},
        ),
        (
            llama("model.language_model", head=None),
            GEMMA,
            {"lm_head.weight": "model.language_model.embed_tokens.weight"},
        ),
        (
            expand("shared encoder.block.*.layer.0.q decoder.block.*.layer.0.q"),
            TIED,
            dict.fromkeys(expand("encoder.embed_tokens decoder.embed_tokens lm_head"), "shared.weight"),
        ),
        (
            [*expand("bert.embeddings.word_embeddings bert.encoder.layer.*.q.w"), "cls.predictions.decoder.bias"],
            {**TIED, "architectures": ["BertForMaskedLM"]},
            {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"},
        ),
        (llama(head=None), {**TIED, "architectures": ["LlamaForSequenceClassification"]}, {}),
        (
            ["gpt_neox.embed_in.weight", *layered("gpt_neox.layers", 2, "q.weight")],
            TIED,
            {"embed_out.weight": "gpt_neox.embed_in.weight"},
        ),
        (expand(FAMILIES["bert"][0]), TIED, {}),
        (layered("model.layers", 2, *ATTENTION), TIED, {}),
    ],
)
def test_ties(names: list[str], config: dict[str, Any], aliases: dict[str, str]) -> None:
    heads = {name: (VOCABULARY, HIDDEN) for name in names if "embed_tokens" in name or "lm_head" in name}
    heads |= dict.fromkeys(expand("bert.embeddings.word_embeddings cls.predictions.decoder"), (VOCABULARY, HIDDEN))
    heads["cls.predictions.decoder.bias"] = (VOCABULARY,)
    found = infer(names, config, **heads)
    assert dict(found.aliases) == aliases
    assert all(target in found.roles and name not in found.roles for name, target in found.aliases.items())


def test_the_vocabulary_is_the_texts() -> None:
    shapes = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.embed_positions.weight": (4096, HIDDEN),
        "model.embed_tokens_per_layer.weight": (4096, HIDDEN),
        "model.audio_tower.embed.weight": (4096, HIDDEN),
        "model.embed_scale": (1,),
    }
    names = [*dict.fromkeys([*shapes, *llama()])]
    assert infer(names, None, **shapes).vocabulary_rows == VOCABULARY
    assert infer(layered("model.layers", 2, *ATTENTION)).vocabulary_rows is None
