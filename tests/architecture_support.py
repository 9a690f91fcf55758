"""Makes models out of names, to ask what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from plait.engine.graph import TensorSpec
from plait.engine.model import StoredTensor
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


def expand(modules: str) -> list[str]:
    """Names of weights: one for each module, or one for each of two layers where it has a `*`."""
    found = [[module.replace("*", layer) for layer in "01"] for module in modules.split()]
    return [f"{module}.weight" for each in found for module in dict.fromkeys(each)]
