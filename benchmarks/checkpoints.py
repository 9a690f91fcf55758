"""Write families of related checkpoints at real shapes: one base, and fine-tunes that differ from it a little.

Each checkpoint is a folder in the Hugging Face layout: config.json, safetensors shards, an index where there is
more than one shard. Values depend on the tensor's name and the variant alone, so a second run writes the same bytes.
Tensors are written block by block: an 8B family is made in a few hundred megabytes.

    python benchmarks/checkpoints.py build/families/1b --shape 1b --finetunes 2

The shape ``moe671b`` is for planning at scale: sparse files with true headers and no data, in the layout of
DeepSeek-V3. A model has 92 053 tensors and claims 1.4 TB; on disk it takes 20 MB.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

Layout: TypeAlias = Mapping[str, "tuple[tuple[int, ...], torch.dtype]"]
"""Tensor name to shape and dtype, in the order of the files."""

BLOCK_ELEMENTS = 1 << 22
"""Values are drawn in blocks of this size, which bounds the memory; changing it changes the values."""

SAFETENSORS_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True)
class Shape:
    """The measures of a Llama-like decoder. ``tied``: the head is the embedding and is not stored."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = False
    model_type: str = "llama"


SHAPES: Mapping[str, Shape] = {
    "tiny": Shape(64, 176, 4, 4, 2, 512),
    "tiny32": Shape(64, 176, 32, 4, 2, 512),
    "tinymistral32": Shape(64, 176, 32, 4, 2, 512, model_type="mistral"),
    "100m": Shape(768, 2048, 12, 12, 4, 32000, tied=True),
    "1b": Shape(2048, 8192, 16, 32, 8, 128256, tied=True),
    "8b": Shape(4096, 14336, 32, 32, 8, 128256),
    "mistral7b": Shape(4096, 14336, 32, 32, 8, 32002, model_type="mistral"),
}
MOE_SHAPE = "moe671b"


def llama_layout(shape: Shape, dtype: torch.dtype) -> Layout:
    """Names and shapes of every tensor of a Llama or Mistral checkpoint."""
    hidden, intermediate = shape.hidden, shape.intermediate
    kv_width = shape.kv_heads * (hidden // shape.heads)
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "mlp.down_proj": (hidden, intermediate),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "post_attention_layernorm": (hidden,),
        "self_attn.k_proj": (kv_width, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.v_proj": (kv_width, hidden),
    }
    layout: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocabulary, hidden)}
    for index in range(shape.layers):
        layout |= {f"model.layers.{index}.{suffix}.weight": extents for suffix, extents in layer.items()}
    layout["model.norm.weight"] = (hidden,)
    if not shape.tied:
        layout["lm_head.weight"] = (shape.vocabulary, hidden)
    return {name: (extents, dtype) for name, extents in layout.items()}


def llama_config(shape: Shape, dtype: torch.dtype) -> dict[str, Any]:
    """The config.json that transformers needs to load the checkpoint."""
    architecture = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}[shape.model_type]
    config = {
        "architectures": [architecture],
        "model_type": shape.model_type,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden // shape.heads,
        "hidden_act": "silu",
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0 if shape.model_type == "llama" else 10000.0,
        "max_position_embeddings": 8192,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    # transformers would read a missing window as 4096 and a null one as none.
    return config | ({"sliding_window": None} if shape.model_type == "mistral" else {})


def moe_layout() -> Layout:
    """Names and shapes of a 671B mixture of experts as DeepSeek-V3 publishes it.

    61 layers, the first 3 dense, then 256 routed experts and a shared one; latent attention; the layer that predicts
    the token after next; float32 scales beside every matrix. The weights are bfloat16 here, so that they can be
    merged without knowing about the scales.
    """
    hidden, vocabulary, heads, layers = 7168, 129280, 128, 61
    layout: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}

    def add(name: str, *extents: int, dtype: torch.dtype = torch.bfloat16) -> None:
        layout[name] = (extents, dtype)

    def add_matrix(name: str, rows: int, columns: int) -> None:
        add(f"{name}.weight", rows, columns)
        add(f"{name}.weight_scale_inv", -(-rows // 128), -(-columns // 128), dtype=torch.float32)

    def add_mlp(name: str, intermediate: int) -> None:
        add_matrix(f"{name}.down_proj", hidden, intermediate)
        add_matrix(f"{name}.gate_proj", intermediate, hidden)
        add_matrix(f"{name}.up_proj", intermediate, hidden)

    add("model.embed_tokens.weight", vocabulary, hidden)
    for index in range(layers + 1):
        layer = f"model.layers.{index}"
        attention = f"{layer}.self_attn"
        add_matrix(f"{attention}.q_a_proj", 1536, hidden)
        add(f"{attention}.q_a_layernorm.weight", 1536)
        add_matrix(f"{attention}.q_b_proj", heads * (128 + 64), 1536)
        add_matrix(f"{attention}.kv_a_proj_with_mqa", 512 + 64, hidden)
        add(f"{attention}.kv_a_layernorm.weight", 512)
        add_matrix(f"{attention}.kv_b_proj", heads * (128 + 128), 512)
        add_matrix(f"{attention}.o_proj", hidden, heads * 128)
        add(f"{attention}.rotary_emb.inv_freq", 32, dtype=torch.float32)
        add(f"{layer}.input_layernorm.weight", hidden)
        add(f"{layer}.post_attention_layernorm.weight", hidden)
        if index < 3:
            add_mlp(f"{layer}.mlp", 18432)
            continue
        add(f"{layer}.mlp.gate.weight", 256, hidden)
        add(f"{layer}.mlp.gate.e_score_correction_bias", 256, dtype=torch.float32)
        for expert in range(256):
            add_mlp(f"{layer}.mlp.experts.{expert}", 2048)
        add_mlp(f"{layer}.mlp.shared_experts", 2048)
    last = f"model.layers.{layers}"
    add(f"{last}.embed_tokens.weight", vocabulary, hidden)
    add(f"{last}.enorm.weight", hidden)
    add(f"{last}.hnorm.weight", hidden)
    add(f"{last}.eh_proj.weight", hidden, 2 * hidden)
    add(f"{last}.shared_head.norm.weight", hidden)
    add(f"{last}.shared_head.head.weight", vocabulary, hidden)
    add("model.norm.weight", hidden)
    add("lm_head.weight", vocabulary, hidden)
    return layout


def moe_config() -> dict[str, Any]:
    """The config.json that goes with `moe_layout`."""
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "num_nextn_predict_layers": 1,
        "first_k_dense_replace": 3,
        "moe_layer_freq": 1,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "hidden_act": "silu",
        "vocab_size": 129280,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 163840,
        "torch_dtype": "bfloat16",
    }


def tensor_blocks(name: str, extents: tuple[int, ...], dtype: torch.dtype, variant: int) -> Iterator[torch.Tensor]:
    """The values of one tensor, flat, in blocks. Variant 0 is the base; others add a small task vector to it."""
    elements = _size(extents)
    base = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    task = torch.Generator().manual_seed(zlib.crc32(f"{name}#{variant}".encode()))
    for start in range(0, elements, BLOCK_ELEMENTS):
        count = min(BLOCK_ELEMENTS, elements - start)
        values = torch.randn(count, generator=base)
        # A vector is a norm's gain: around one. A matrix has the spread of a trained weight.
        values = values.mul_(0.02) if len(extents) > 1 else values.mul_(0.05).add_(1.0)
        values = values.to(dtype)
        if variant:
            # Added to the rounded base, as training from the published weights would.
            values = torch.randn(count, generator=task).mul_(0.002).add_(values).to(dtype)
        yield values


def split_into_shards(layout: Layout, shard_bytes: int) -> list[Layout]:
    """Cut a layout, in order, into shards of at most ``shard_bytes`` of data (or one tensor, if that is larger)."""
    shards: list[dict[str, tuple[tuple[int, ...], torch.dtype]]] = [{}]
    filled_bytes = 0
    for name, (extents, dtype) in layout.items():
        size_bytes = _size(extents) * dtype.itemsize
        if shards[-1] and filled_bytes + size_bytes > shard_bytes:
            shards.append({})
            filled_bytes = 0
        shards[-1][name] = (extents, dtype)
        filled_bytes += size_bytes
    return list(shards)


def encode_header(layout: Layout) -> tuple[bytes, int]:
    """A safetensors header (with its length prefix) and the bytes of data that follow it."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (extents, dtype) in layout.items():
        begin, end = end, end + _size(extents) * dtype.itemsize
        entries[name] = {"dtype": SAFETENSORS_DTYPES[dtype], "shape": list(extents), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, end


def write_model(
    folder: Path,
    layout: Layout,
    config: Mapping[str, Any],
    *,
    variant: int = 0,
    shard_bytes: int = 5 * 10**9,
    sparse: bool = False,
) -> int:
    """Write one checkpoint and return the bytes of its tensors. ``sparse``: headers only, holes for the data."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n")
    shards = split_into_shards(layout, shard_bytes)
    weight_map: dict[str, str] = {}
    total_bytes = 0
    for number, shard in enumerate(shards, 1):
        single = len(shards) == 1
        file_name = "model.safetensors" if single else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header, data_bytes = encode_header(shard)
        with (folder / file_name).open("wb") as file:
            file.write(header)
            if sparse:
                file.truncate(len(header) + data_bytes)
            else:
                for name, (extents, dtype) in shard.items():
                    for block in tensor_blocks(name, extents, dtype, variant):
                        file.write(block.view(torch.uint8).numpy().data)
        weight_map |= dict.fromkeys(shard, file_name)
        total_bytes += data_bytes
    if len(shards) > 1:
        index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return total_bytes


def write_family(
    folder: Path,
    shape: str | Shape = "tiny",
    *,
    finetunes: int = 2,
    dtype: str = "bfloat16",
    shard_bytes: int = 5 * 10**9,
) -> list[Path]:
    """Write ``base``, ``ft1``, ``ft2``, … under ``folder`` and return their paths, the base first.

    ``shape`` is a name in SHAPES, ``moe671b``, or a Shape of your own.
    """
    if shape == MOE_SHAPE:
        layout, config = moe_layout(), moe_config()
    else:
        measures = shape if isinstance(shape, Shape) else SHAPES[shape]
        stored_dtype: torch.dtype = getattr(torch, dtype)
        layout, config = llama_layout(measures, stored_dtype), llama_config(measures, stored_dtype)
    folders = [folder / ("base" if variant == 0 else f"ft{variant}") for variant in range(finetunes + 1)]
    for variant, model in enumerate(folders):
        sparse = shape == MOE_SHAPE
        # About 160 shards, as published.
        limit = 8_300_000_000 if sparse else shard_bytes
        write_model(model, layout, config, variant=variant, shard_bytes=limit, sparse=sparse)
    return folders


def _size(extents: tuple[int, ...]) -> int:
    count = 1
    for extent in extents:
        count *= extent
    return count


def main() -> None:
    """Write a family from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", default="tiny", choices=[*SHAPES, MOE_SHAPE])
    parser.add_argument("--finetunes", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--shard-bytes", type=int, default=5 * 10**9)
    options = parser.parse_args()
    for model in write_family(
        options.folder,
        options.shape,
        finetunes=options.finetunes,
        dtype=options.dtype,
        shard_bytes=options.shard_bytes,
    ):
        stored_bytes = sum(file.stat().st_size for file in model.glob("*.safetensors"))
        print(f"{model}  {stored_bytes / 1e9:.3f} GB")


if __name__ == "__main__":
    main()
