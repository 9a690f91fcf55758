"""Train the base and its two specialists from nothing, on a CPU, in minutes.

Run ``python -m plait.examples.specialists.train OUT``; OUT then holds a model folder for each. The same machine gives
the same bytes again; another processor rounds differently and gives models that are as good but not the same.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from . import MODELS
from .model import Llama, LlamaConfig, forward
from .tasks import CORPORA, PAD_ID, STOP_ID, VOCABULARY, draw_corpus_line, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .tasks import Portion, Problem

CONFIG = LlamaConfig(
    vocab_size=len(VOCABULARY),
    hidden_size=96,
    intermediate_size=256,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
)
_IGNORED = -100  # a target that cross_entropy leaves out


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; the learning rate rises over `warmup_steps`, then falls linearly."""

    steps: int
    learning_rate: float
    warmup_steps: int
    batch_size: int = 128


PRETRAINING = Schedule(steps=2000, learning_rate=3e-3, warmup_steps=50)
FINE_TUNING = Schedule(steps=150, learning_rate=3e-4, warmup_steps=10)


def initial_weights(config: LlamaConfig, generator: torch.Generator) -> dict[str, Tensor]:
    """Random float32 weights under their Hugging Face names, scaled so that activations keep their size."""
    hidden, intermediate = config.hidden_size, config.intermediate_size
    key_value = config.num_key_value_heads * config.head_dim

    def normal(rows: int, columns: int, scale: float) -> Tensor:
        return torch.randn(rows, columns, generator=generator) * scale

    weights = {"model.embed_tokens.weight": normal(config.vocab_size, hidden, 0.3)}
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        weights |= {
            prefix + "input_layernorm.weight": torch.ones(hidden),
            prefix + "self_attn.q_proj.weight": normal(hidden, hidden, hidden**-0.5),
            prefix + "self_attn.k_proj.weight": normal(key_value, hidden, hidden**-0.5),
            prefix + "self_attn.v_proj.weight": normal(key_value, hidden, hidden**-0.5),
            prefix + "self_attn.o_proj.weight": normal(hidden, hidden, 0.5 * hidden**-0.5),
            prefix + "post_attention_layernorm.weight": torch.ones(hidden),
            prefix + "mlp.gate_proj.weight": normal(intermediate, hidden, hidden**-0.5),
            prefix + "mlp.up_proj.weight": normal(intermediate, hidden, hidden**-0.5),
            prefix + "mlp.down_proj.weight": normal(hidden, intermediate, 0.5 * intermediate**-0.5),
        }
    weights["model.norm.weight"] = torch.ones(hidden)
    weights["lm_head.weight"] = normal(config.vocab_size, hidden, hidden**-0.5)
    return weights


def collate(lines: Sequence[Problem]) -> tuple[Tensor, Tensor]:
    """Pad lines into token ids and next-token targets, both (batch, time); only answers are targets."""
    longest = max(len(line.prompt) + len(line.answer) for line in lines)
    tokens = torch.full((len(lines), longest), PAD_ID)
    targets = torch.full((len(lines), longest), _IGNORED)
    for row, line in enumerate(lines):
        ids = torch.tensor(encode(line.prompt + line.answer))
        tokens[row, : len(ids)] = ids
        targets[row, len(line.prompt) - 1 : len(ids) - 1] = ids[len(line.prompt) :]
    return tokens, targets


def train(
    name: str, start: dict[str, Tensor], corpus: Sequence[Portion], schedule: Schedule, seed: int
) -> dict[str, Tensor]:
    """Train from the weights `start` on lines of `corpus`; returns bfloat16 weights."""
    weights = {key: tensor.float().clone().requires_grad_() for key, tensor in start.items()}
    llama = Llama(CONFIG, weights)
    rng = random.Random(f"train {name} {seed}")
    parameters = list(weights.values())
    optimizer = torch.optim.AdamW(parameters, lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    began = time.monotonic()
    for step in range(schedule.steps):
        rise = min(1.0, (step + 1) / schedule.warmup_steps)
        fall = max(0.05, 1 - step / schedule.steps)
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * rise * fall
        tokens, targets = collate([draw_corpus_line(corpus, rng) for _ in range(schedule.batch_size)])
        logits = forward(llama, tokens)  # (batch, time, vocab)
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0 or step + 1 == schedule.steps:
            print(f"{name}: step {step + 1}, loss {loss.item():.3f}, {time.monotonic() - began:.0f} s", flush=True)
    return {key: tensor.detach().to(torch.bfloat16) for key, tensor in weights.items()}


def write_folder(folder: Path, weights: dict[str, Tensor]) -> None:
    """Write a model folder as transformers reads it; files of the same names are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": None,
        "eos_token_id": STOP_ID,
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "mlp_bias": False,
        "model_type": "llama",
        "pad_token_id": PAD_ID,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **asdict(CONFIG),
    }
    generation = {"do_sample": False, "eos_token_id": STOP_ID, "pad_token_id": PAD_ID}
    for name, content in (("config.json", entries), ("generation_config.json", generation)):
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def train_family(out: Path, seed: int) -> None:
    """Train the base, then each specialist from the base as it was written, rounded to bfloat16."""
    base_name, *specialists = MODELS
    start = initial_weights(CONFIG, torch.Generator().manual_seed(seed))
    base = train(base_name, start, CORPORA[base_name], PRETRAINING, seed)
    write_folder(out / base_name, base)
    for name in specialists:
        write_folder(out / name, train(name, base, CORPORA[name], FINE_TUNING, seed))


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m plait.examples.specialists.train", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that the three model folders go into")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args(arguments)
    # More threads split sums in other places, so the number of cores would show in the weights.
    torch.set_num_threads(1)
    train_family(options.out, options.seed)


if __name__ == "__main__":
    main()
