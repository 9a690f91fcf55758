"""Real families: their names and configs give the stack, the embeddings, the head and the vocabulary."""

from __future__ import annotations

import json
from typing import Any

import pytest
from architecture_support import ATTENTION, HIDDEN, VOCABULARY, expand, infer, layered, leading, llama
from plait.engine.model import TensorRole

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


AS_BUILT = (
    *("llama", "mistral", "qwen2_moe", "deepseek_v3", "gpt2", "gpt_neox", "gemma2", "gemma3", "qwen2_vl", "llava"),
    *("mamba", "falcon", "opt", "phi", "t5", "bart"),
)


@pytest.mark.parametrize("family", AS_BUILT)
def test_families_as_transformers_builds_them(family: str) -> None:
    """Stack, embedding, head and vocabulary are those that the library's own accessors name."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    try:
        config = transformers.AutoConfig.for_model(family)
    except ValueError:
        pytest.skip(f"this transformers has no {family}")
    kinds = [transformers.AutoModelForCausalLM, transformers.AutoModelForSeq2SeqLM]
    kinds.insert(0, getattr(transformers, "AutoModelForImageTextToText", kinds[0]))
    kind = next(kind for kind in kinds if type(config) in kind._model_mapping)
    with torch.device("meta"):
        model = kind.from_config(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = infer(shapes, json.loads(config.to_json_string(use_diff=False)), **shapes)

    def name_of(module: Any) -> str:
        return next(name for name, tensor in model.named_parameters() if tensor is module.weight)

    text = config.get_text_config()
    assert found.primary is not None
    assert found.stacks[found.primary].layers == text.num_hidden_layers
    embedding, head = name_of(model.get_input_embeddings()), name_of(model.get_output_embeddings())
    assert found.roles[embedding].leading
    assert found.vocabulary_rows == shapes[embedding][0]
    assert head == embedding or found.roles[head] == TensorRole()
    shared = dict(model.named_parameters(remove_duplicate=False))
    tied = [name for name, tensor in shared.items() if tensor is shared[embedding] and name != embedding]
    for head in [name for name in tied if "lm_head" in name or name == "embed_out.weight"]:
        kept = {name: shape for name, shape in shapes.items() if name not in tied}
        listed = {**json.loads(config.to_json_string()), "architectures": [type(model).__name__]}
        assert infer(kept, listed, **kept).aliases[head] == embedding
