"""A Llama forward pass short enough to read: plain torch over tensors with their Hugging Face names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class LlamaConfig:
    """The entries of a Llama `config.json` that decide the arithmetic."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rms_norm_eps: float
    rope_theta: float

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class Llama:
    """A configuration and the weights that go with it, all in one floating-point type."""

    config: LlamaConfig
    weights: Mapping[str, Tensor]


@dataclass
class KeyValueCache:
    """Keys and values of the tokens seen so far, one tensor a layer: (batch, kv_heads, time, head_dim)."""

    keys: list[Tensor]
    values: list[Tensor]


def read_llama(folder: Path) -> Llama:
    """Read `config.json` and every safetensors file of `folder`; the weights come as float32.

    Raises FileNotFoundError where either is missing.
    """
    entries = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # transformers 5 moved the rotary base into a mapping of its own; both spellings are in use.
    rope_theta = entries.get("rope_theta") or (entries.get("rope_parameters") or {}).get("rope_theta", 10000.0)
    config = LlamaConfig(
        vocab_size=entries["vocab_size"],
        hidden_size=entries["hidden_size"],
        intermediate_size=entries["intermediate_size"],
        num_hidden_layers=entries["num_hidden_layers"],
        num_attention_heads=entries["num_attention_heads"],
        num_key_value_heads=entries["num_key_value_heads"],
        rms_norm_eps=entries["rms_norm_eps"],
        rope_theta=rope_theta,
    )
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder}: no *.safetensors file")
    weights: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as reader:
            for name in reader.keys():  # noqa: SIM118 - the reader is no mapping and cannot be iterated
                weights[name] = reader.get_tensor(name).float()
    return Llama(config, weights)


def empty_cache(llama: Llama) -> KeyValueCache:
    """Return a cache that holds no token yet."""
    layers = llama.config.num_hidden_layers
    none_yet = torch.empty(0)
    return KeyValueCache([none_yet] * layers, [none_yet] * layers)


def forward(llama: Llama, tokens: Tensor, cache: KeyValueCache | None = None) -> Tensor:
    """Logits of the next token at every position.

    `tokens` is (batch, time) of int64, the result (batch, time, vocab_size). With a cache, `tokens` follow what the
    cache holds already, and are added to it.
    """
    config, weights = llama.config, llama.weights
    past = cache.keys[0].shape[2] if cache is not None and cache.keys[0].ndim == 4 else 0
    cosines, sines = _rotary_angles(config, past, tokens.shape[1])
    hidden = weights["model.embed_tokens.weight"][tokens]  # (batch, time, hidden)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        normed = _rms_norm(hidden, weights[prefix + "input_layernorm.weight"], config.rms_norm_eps)
        hidden = hidden + _attend(llama, layer, normed, (cosines, sines), cache)
        normed = _rms_norm(hidden, weights[prefix + "post_attention_layernorm.weight"], config.rms_norm_eps)
        gate = functional.silu(normed @ weights[prefix + "mlp.gate_proj.weight"].T)  # (batch, time, intermediate)
        up = normed @ weights[prefix + "mlp.up_proj.weight"].T
        hidden = hidden + (gate * up) @ weights[prefix + "mlp.down_proj.weight"].T
    hidden = _rms_norm(hidden, weights["model.norm.weight"], config.rms_norm_eps)
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])  # tied where there is no head
    return hidden @ head.T


def decode_greedily(llama: Llama, prompts: Tensor, new_tokens: int) -> Tensor:
    """Continue `prompts`, (batch, time), by the likeliest token `new_tokens` times; returns (batch, new_tokens)."""
    with torch.inference_mode():
        cache = empty_cache(llama)
        tokens, written = prompts, []
        for _ in range(new_tokens):
            tokens = forward(llama, tokens, cache)[:, -1].argmax(dim=-1, keepdim=True)  # (batch, 1)
            written.append(tokens)
    return torch.cat(written, dim=1)


def _rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    return hidden * torch.rsqrt(hidden.square().mean(dim=-1, keepdim=True) + eps) * weight


def _rotary_angles(config: LlamaConfig, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines for positions first..first+count-1, each (time, head_dim)."""
    exponents = torch.arange(0, config.head_dim, 2).float() / config.head_dim
    positions = torch.arange(first, first + count).float()
    angles = torch.outer(positions, 1.0 / config.rope_theta**exponents)  # (time, head_dim / 2)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def _rotate(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary embedding with the two halves of a head as the two coordinates, as Hugging Face stores the weights."""
    low, high = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat([-high, low], dim=-1) * sines


def _attend(
    llama: Llama, layer: int, normed: Tensor, rotary: tuple[Tensor, Tensor], cache: KeyValueCache | None
) -> Tensor:
    """Causal grouped-query attention of one layer: (batch, time, hidden) to the same shape."""
    config, weights = llama.config, llama.weights
    batch, time, _ = normed.shape
    prefix = f"model.layers.{layer}.self_attn."

    def project(name: str) -> Tensor:
        projected = normed @ weights[f"{prefix}{name}.weight"].T
        return projected.view(batch, time, -1, config.head_dim).transpose(1, 2)  # (batch, heads, time, head_dim)

    query = _rotate(project("q_proj"), *rotary)
    key, value = _rotate(project("k_proj"), *rotary), project("v_proj")
    if cache is not None:
        if cache.keys[layer].ndim == 4:
            key = torch.cat([cache.keys[layer], key], dim=2)
            value = torch.cat([cache.values[layer], value], dim=2)
        cache.keys[layer], cache.values[layer] = key, value
    group = config.num_attention_heads // config.num_key_value_heads
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    seen = torch.ones(time, key.shape[2], dtype=torch.bool).tril(key.shape[2] - time)  # (time, past + time)
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    return mixed.transpose(1, 2).reshape(batch, time, -1) @ weights[prefix + "o_proj.weight"].T
