"""Small random models of every architecture that the installed transformers can build.

A default config is made small by its keys alone: no architecture is named here. What cannot be built that way says
why. The models are too small to be of use and as varied as the classes: layers of several kinds, experts, ties,
vision and audio towers.
"""

from __future__ import annotations

import importlib
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYERS = 4
HIDDEN = 64
HEADS = 4
HEAD = HIDDEN // HEADS
VOCABULARY = 160

KINDS = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "vision-language": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "sequence-to-sequence": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LAYER_KEYS = _words(
    """
    num_hidden_layers num_layers n_layer n_layers encoder_layers decoder_layers depth num_decoder_layers
    num_encoder_layers num_hidden_blocks attention_layers encoder_num_layers num_transformer_layers
    encoder_num_hidden_layers decoder_num_hidden_layers num_block_layers
    """
)
_WIDTH_KEYS = _words(
    """
    hidden_size d_model n_embd dim embed_dim embedding_size width emb_dim projection_dim encoder_hidden_size
    decoder_hidden_size out_hidden_size lm_hidden_size text_hidden_size vision_hidden_size hidden_dim model_dim
    input_dim output_dim cross_attention_hidden_size mm_hidden_size proj_dim encoder_embed_dim decoder_embed_dim
    projector_hidden_size multimodal_hidden_size conv_dim out_channels output_hidden_size block_dim
    attention_hidden_size lru_width word_embed_proj_dim vision_output_dim vision_output_size encoder_hidden_dim
    decoder_hidden_dim text_embed_dim encoder_dim text_dim gate_hidden_dim projection_hidden_size embedding_dim
    cross_hidden_size backbone_hidden_size compression_size mlp_hidden_size d_embed init_hidden_size
    visual_hidden_size tokenizer_hidden_size
    """
)
_HEAD_KEYS = _words(
    """
    num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads attention_heads
    num_query_heads encoder_num_attention_heads decoder_num_attention_heads num_global_attention_heads
    swa_num_attention_heads encoder_heads decoder_heads
    """
)
_VALUES = {
    "vocab_size": VOCABULARY,
    "text_vocab_size": VOCABULARY,
    "decoder_vocab_size": VOCABULARY,
    "encoder_vocab_size": VOCABULARY,
    "head_dim": HEAD,
    "d_kv": HEAD,
    "attention_head_dim": HEAD,
    "kv_channels": HEAD,
    "global_head_dim": HEAD,
    "swa_head_dim": HEAD,
    "v_head_dim": HEAD,
    "qk_nope_head_dim": HEAD,
    "qk_rope_head_dim": HEAD // 2,
    "q_lora_rank": 24,
    "kv_lora_rank": 24,
    "index_head_dim": HEAD,
    "index_n_heads": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "moe_layer_start_index": 1,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCABULARY,
    "image_size": 32,
    "patch_size": 8,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "n_ctx": 64,
    "max_source_positions": 64,
    "max_target_positions": 64,
    "num_position_embeddings": 64,
    "relative_attention_num_buckets": 8,
    "type_vocab_size": 2,
    "codebook_size": 32,
    "num_latents": 8,
    "d_latents": HIDDEN,
    "num_queries": 4,
    "num_query_tokens": 4,
    "mamba_d_state": 8,
    "mamba_dt_rank": 4,
    "mamba_n_heads": 8,
    "n_mamba_heads": 2,
    "mamba_d_head": HIDDEN * 2 // 8,
    "mamba_num_heads": 8,
    "mamba_headdim": HIDDEN * 2 // 8,
    "mamba_ngroups": 1,
    "mamba_n_groups": 1,
    "mamba_head_dim": HIDDEN * 2 // 8,
    "ssm_state_size": 8,
    "time_step_rank": 4,
    "linear_key_head_dim": HEAD,
    "linear_value_head_dim": HEAD,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "num_hash_buckets": 32,
    "num_codebooks": 2,
}
_FOUR_TYPES = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
_OWN: dict[str, dict[str, Any]] = {
    # What a config leaves open or binds together, so that its small form has to be spelled out.
    "Dots1Config": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "DiffusionGemmaTextConfig": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32},
    "DeepseekOcr2TextConfig": {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
    "EsmConfig": {"vocab_size": VOCABULARY},
    "Gemma3nTextConfig": {"layer_types": _FOUR_TYPES, "num_kv_shared_layers": 2},
    "HunYuanDenseV1Config": {"head_dim": HEAD},
    "HunYuanMoEV1Config": {"head_dim": HEAD},
    "HunYuanVLTextConfig": {"head_dim": HEAD},
    "Lfm2MoeConfig": {"layer_types": ["conv", "full_attention", "conv", "full_attention"], "num_dense_layers": 1},
    "Mamba2Config": {"num_heads": 8, "n_groups": 1},
    "MinistralConfig": {"head_dim": HEAD},
    "NemotronConfig": {"num_key_value_heads": 2},
    "ReformerConfig": {"is_decoder": True, "axial_pos_embds_dim": [16, 48], "axial_pos_shape": [8, 8]},
    "XLNetConfig": {"d_head": HEAD},
    "LukeConfig": {"entity_vocab_size": 64},
    "RoCBertConfig": {"shape_vocab_size": 64, "pronunciation_vocab_size": 64},
    "BltConfig": {"encoder_hash_byte_group_vocab": 64},
    "FalconH1Config": {"mamba_d_ssm": HIDDEN * 2, "mamba_n_heads": 8, "mamba_d_head": HIDDEN // 4},
    "Dots3NoteTextConfig": {"swa_head_dim": HEAD + HEAD // 2},
    "Dots3NoteConfig": {"swa_head_dim": HEAD + HEAD // 2},
}
_NUMBERS = ("_layers", "_indexes", "_indices", "_idx", "_ids", "vision_feature_layer")
_LIMITS = {"moe_top_k": 2, "top_k": 2}


@dataclass(frozen=True, slots=True)
class Entry:
    """A model class of transformers; ``kinds`` are the tasks under which it is listed."""

    name: str
    kinds: tuple[str, ...]


def entries() -> list[Entry]:
    """Every class that transformers lists for causal, masked, vision-language and sequence-to-sequence models."""
    listed = importlib.import_module("transformers.models.auto.modeling_auto")
    found: dict[str, dict[str, None]] = {}
    for kind, mapping in KINDS.items():
        for names in getattr(listed, mapping).values():
            for name in (names,) if isinstance(names, str) else names:
                found.setdefault(name, {})[kind] = None
    return [Entry(name, tuple(kinds)) for name, kinds in found.items()]


def build(name: str, *, seed: int = 0) -> Any:
    """A small random model of a class. Raises whatever transformers raises if it cannot be built."""
    torch.manual_seed(seed)
    model = _instance(name)
    with torch.no_grad():
        for parameter in model.parameters():
            # Weights that start as zeros or ones would hide a mix-up; fixed ones are made anew when loading.
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.normal_(0.0, 0.02)
    return model.eval()


def elements(name: str) -> int:
    """Elements of the weights that `build` would make; nothing is allocated."""
    with torch.device("meta"):
        return sum(math.prod(tensor.shape) for tensor in _instance(name).state_dict().values())


def _instance(name: str) -> Any:
    kind = getattr(importlib.import_module("transformers"), name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = kind.config_class()
        shrink(config)
        return kind(config)


def shrink(config: Any) -> None:
    """Make a config of transformers small, in place, and the configs nested in it."""
    values = {key: value for key, value in vars(config).items() if not key.startswith("_")}
    layers = {value for key, value in values.items() if key in _LAYER_KEYS and _is_size(value)}
    heads = {value for key, value in values.items() if key in _HEAD_KEYS and _is_size(value)}
    by_layer = config._heterogeneity_spec.per_layer_overrides if getattr(config, "is_heterogeneous", False) else {}
    if by_layer:
        config.per_layer_config = None
    kept = next((_varied(value) for value in values.values() if _is_layered(value, layers)), list(range(LAYERS)))
    for key, value in values.items():
        if hasattr(value, "model_type") and hasattr(value, "to_dict"):
            shrink(value)
        else:
            small = _small(key, value, layers, heads, kept)
            if small is not value:
                setattr(config, key, small)
    if by_layer:
        config.per_layer_config = {
            kept.index(layer): {key: _small(key, value, layers, heads, kept) for key, value in inner.items()}
            for layer, inner in by_layer.items()
            if layer in kept
        }
    for key, value in _OWN.get(type(config).__name__, {}).items():
        setattr(config, key, value)


def _small(key: str, value: Any, layers: set[int], heads: set[int], kept: Sequence[int]) -> Any:
    if _is_layered(value, layers):
        return type(value)(value[layer] for layer in kept)
    if (
        isinstance(value, dict)
        and value
        and all(type(number) is int and number < max(layers, default=0) for number in value)
    ):
        return {kept.index(number): inner for number, inner in value.items() if number in kept}
    if isinstance(value, list) and value and key.endswith(_NUMBERS) and "token" not in key:
        if all(type(number) is int for number in value):
            return [place for place, layer in enumerate(kept) if layer in value] or [1]
        return value
    if not _is_size(value):
        return value
    if key in _LAYER_KEYS:
        return min(value, LAYERS)
    if key in _VALUES:
        return min(value, _VALUES[key])
    if key in _WIDTH_KEYS:
        return min(value, HIDDEN)
    if key in _HEAD_KEYS:
        return min(value, HEADS)
    if "key_value_heads" in key or key in ("num_kv_heads", "n_head_kv", "multi_query_group_num", "kv_heads"):
        return min(value, HEADS if value in heads else 2)
    if key.endswith(("intermediate_size", "ffn_dim", "ffn_hidden_size", "d_ff", "inner_dim", "mlp_dim", "n_inner")):
        return min(value, HIDDEN * 2)
    if "experts" in key:
        return min(value, 2 if "tok" in key or "top" in key else 1 if "shared" in key else 4)
    if key.endswith(("token_id", "token_index")):
        return value % VOCABULARY
    if "_rank" in key:
        return min(value, 8)
    return min(value, _LIMITS.get(key, value))


def _is_layered(value: Any, layers: set[int]) -> bool:
    """Whether a value lists something for every layer."""
    return isinstance(value, (list, tuple)) and len(value) in layers and len(value) > LAYERS


def _varied(values: Sequence[Any]) -> list[int]:
    """Which places of a per-layer list to keep: one of every kind, in their order, then the first ones."""
    kinds: dict[str, int] = {}
    for place, value in enumerate(values):
        kinds.setdefault(repr(value), place)
    places = list(kinds.values())[:LAYERS]
    places += [place for place in range(len(values)) if place not in places][: LAYERS - len(places)]
    return sorted(places)


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0
