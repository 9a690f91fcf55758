"""Compare merged tokenizers and embedding rows with mergekit's, for real tokenizers.

    python benchmarks/tokenizers_against_mergekit.py --mergekit PATH/TO/mergekit-yaml BASE=ROWS OTHER=ROWS...

Each argument is a folder with tokenizer files (tokenizer.json, tokenizer_config.json, …) and the number of rows that
the model's embedding has. A small random model is made for each. Both tools merge the first one (the base) with each
of the others; tokens, ids and every token's row of the merged embedding are compared. Where many tokens are new,
mergekit takes many minutes. Ends with 1 if a token, an id of the base or a row differs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import yaml
from mixed_text import mixed_strings
from plait.api import open_models
from plait.engine.methoddef import methods
from plait.engine.recipe_parser import parse_recipe
from plait.engine.vocabulary import AVERAGE, MEAN, ZEROS, Vocabulary
from plait.loaders.vocabulary import output_tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from plait.engine.recipe import ModelRef
    from plait.loaders.vocabulary import OutputTokenizer

HIDDEN = 16
EMBEDDING = "model.embed_tokens.weight"
STRINGS = 1000
WEIGHTS = (0.625, 0.375)

_OTHERS_THE = {"model": "OTHER", "token": "the"}

BLOCKS: dict[str, object] = {
    "base": "base",
    "other": "OTHER",
    "union": "union",
    "padded": {"source": "union", "pad_to_multiple_of": 64},
    "source": {"source": "base", "tokens": {"<|im_start|>": {"source": "OTHER"}}},
    "force": {"source": "base", "tokens": {"the": {"source": "OTHER", "force": True}}},
    "model_token": {"source": "base", "tokens": {"<|new|>": {"source": {"kind": "model_token"} | _OTHERS_THE}}},
    "forced model_token": {
        "source": "union",
        "tokens": {"of": {"source": {"kind": "model_token"} | _OTHERS_THE, "force": True}},
    },
    "zero": {"source": "base", "tokens": {"<|new|>": {"source": {"kind": "zero"}}}},
    "forced zero": {"source": "base", "tokens": {"the": {"source": {"kind": "zero"}, "force": True}}},
}
COLUMNS = (
    "models",
    "tokenizer",
    "tokens",
    "other ids: of the base",
    "of new tokens",
    "rows",
    "other rows of tokens",
    "strings split otherwise than by the source: Plait",
    "mergekit",
    "seconds: Plait",
    "mergekit",
)


@dataclass(frozen=True)
class Merged:
    """What a tool made: ids of the tokens, rows of the embedding, the tokenizer."""

    ids: Mapping[str, int]
    rows: NDArray[np.float32]
    tokenizer: Tokenizer


def main() -> None:
    """Make the models, merge them with both tools, print a table for each pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", type=Path, required=True, help="mergekit-yaml of mergekit 0.1.5")
    parser.add_argument("models", nargs="+", metavar="FOLDER=ROWS")
    parser.add_argument("--blocks", nargs="+", choices=BLOCKS, default=list(BLOCKS))
    arguments = parser.parse_args()
    wrong = 0
    print("| " + " | ".join(COLUMNS) + " |\n" + "| --- " * len(COLUMNS) + "|")
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        names = [_make_model(root, text, seed) for seed, text in enumerate(arguments.models)]
        for other in names[1:]:
            for block in arguments.blocks:
                cells, faults = _compare(root, names[0], other, BLOCKS[block], arguments.mergekit)
                print("| " + " | ".join([f"{names[0]}, {other}", block, *cells]) + " |", flush=True)
                wrong += faults
    sys.exit(1 if wrong else 0)


def _make_model(root: Path, text: str, seed: int) -> str:
    """A small random model with a folder's tokenizer; its name."""
    source, _, rows = text.rpartition("=")
    folder = root / Path(source).name
    shutil.copytree(source, folder)
    random = torch.Generator().manual_seed(seed)
    shapes = {
        EMBEDDING: (int(rows), HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (int(rows), HIDDEN),
    }
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"):
        shapes[f"model.layers.0.{name}.weight"] = (HIDDEN, HIDDEN)
    for name in ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):
        shapes[f"model.layers.0.{name}.weight"] = (HIDDEN, HIDDEN)
    for name in ("input_layernorm", "post_attention_layernorm"):
        shapes[f"model.layers.0.{name}.weight"] = (HIDDEN,)
    tensors = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": int(rows)}
    config |= {"hidden_size": HIDDEN, "intermediate_size": HIDDEN, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 1, "num_key_value_heads": 1}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder.name


def _compare(root: Path, base: str, other: str, block: object, mergekit: Path) -> tuple[list[str], int]:
    block = _with_other(block, other)
    recipe = {
        "merge_method": "linear",
        "dtype": "float32",
        "base_model": base,
        "models": [
            {"model": name, "parameters": {"weight": weight}}
            for name, weight in zip((base, other), WEIGHTS, strict=True)
        ],
        ("tokenizer_source" if isinstance(block, str) else "tokenizer"): block,
    }
    started = time.perf_counter()
    ours, made = _with_plait(root, recipe)
    middle = time.perf_counter()
    try:
        theirs = _with_mergekit(root, recipe, mergekit)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        return [f"mergekit fails: {lines[-1] if lines else error}"], 0
    return compare(root, base, made, ours, theirs, (middle - started, time.perf_counter() - middle))


def _with_other(block: object, other: str) -> object:
    """A block with the other model's name in it."""
    if isinstance(block, dict):
        return {key: _with_other(each, other) for key, each in block.items()}
    return other if block == "OTHER" else block


def compare(
    root: Path, base: str, made: OutputTokenizer, ours: Merged, theirs: Merged, seconds: tuple[float, float]
) -> tuple[list[str], int]:
    """The cells of the table, and how much is wrong."""
    shared = [token for token in ours.ids if token in theirs.ids]
    base_ids = Tokenizer.from_file(str(root / base / "tokenizer.json")).get_vocab()
    mine = np.array([ours.ids[token] for token in shared])
    their = np.array([theirs.ids[token] for token in shared])
    new = np.array([token not in base_ids for token in shared])
    other_ids = mine != their
    other_rows = int((np.abs(ours.rows[mine] - theirs.rows[their]).max(1) > 1e-6).sum())
    alone = len(set(ours.ids) ^ set(theirs.ids))
    cells = [
        f"{len(ours.ids)}, {len(theirs.ids)}" if alone else str(len(shared)),
        str(int(other_ids[~new].sum())),
        f"{int(other_ids[new].sum())} of {int(new.sum())}",
        str(len(ours.rows)) if len(ours.rows) == len(theirs.rows) else f"{len(ours.rows)}, {len(theirs.rows)}",
        str(other_rows),
        *(str(_split_otherwise(root / str(made.source), merged.tokenizer)) for merged in (ours, theirs)),
        *(f"{taken:.1f}" for taken in seconds),
    ]
    return cells, alone + other_rows + int(other_ids[~new].sum())


def _with_mergekit(root: Path, recipe: Mapping[str, object], mergekit: Path) -> Merged:
    out = root / "mergekit"
    shutil.rmtree(out, ignore_errors=True)
    # Only absolute paths lead it to a folder.
    text = yaml.safe_dump(_absolute(recipe, root))
    (root / "recipe.yml").write_text(text, encoding="utf-8")
    subprocess.run([str(mergekit), str(root / "recipe.yml"), str(out)], check=True, capture_output=True)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    return Merged(tokenizer.get_vocab(), _embedding(out), tokenizer)


def _absolute(value: object, root: Path) -> object:
    if isinstance(value, dict):
        return {key: _absolute(each, root) for key, each in value.items()}
    if isinstance(value, list):
        return [_absolute(each, root) for each in value]
    return str(root / value) if isinstance(value, str) and (root / value / "config.json").exists() else value


def _with_plait(root: Path, recipe: Mapping[str, object]) -> tuple[Merged, OutputTokenizer]:
    parsed = parse_recipe(yaml.safe_dump(recipe), "recipe.yml", methods())
    models = open_models(parsed, root, {})
    made = output_tokenizer(parsed, models)
    out = root / "plait"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(root / str(made.source), out, ignore=lambda _, names: made.left_out.intersection(names))
    for name, text in made.files.items():
        (out / name).write_text(text, encoding="utf-8")
    stored = {ref: _embedding(root / str(ref)) for ref in models}
    arranged = arrange(made.vocabulary, stored) if made.vocabulary is not None else stored
    rows = sum(np.float32(weight) * arranged[entry.model] for entry, weight in zip(parsed.models, WEIGHTS, strict=True))
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    return Merged(tokenizer.get_vocab(), np.asarray(rows), tokenizer), made


def arrange(
    vocabulary: Vocabulary, stored: Mapping[ModelRef, NDArray[np.float32]]
) -> dict[ModelRef, NDArray[np.float32]]:
    """Each model's rows in the output's order, plainly."""
    found = {}
    held = [(vocabulary.own[ref] >= 0, stored[ref][np.maximum(vocabulary.own[ref], 0)]) for ref in vocabulary.models]
    total = sum(np.where(has[:, None], rows, np.float32(0)) for has, rows in held)
    count = sum(has.astype(np.float32) for has, _ in held)
    mean = total / np.maximum(count, 1)[:, None]
    for ref in vocabulary.models:
        sources = vocabulary.sources[ref]
        rows = np.zeros((vocabulary.rows, HIDDEN), np.float32)
        for number, lender in enumerate(vocabulary.models):
            taken = sources.model == number
            rows[taken] = stored[lender][sources.row[taken]]
        rows[sources.model == MEAN] = mean[sources.model == MEAN]
        rows[sources.model == ZEROS] = 0
        rows[sources.model == AVERAGE] = rows[: vocabulary.tokens].mean(0)
        found[ref] = rows
    return found


def _embedding(folder: Path) -> NDArray[np.float32]:
    found: NDArray[np.float32] = load_file(next(folder.glob("*.safetensors")))[EMBEDDING].numpy()
    return found


def _split_otherwise(base: Path, tokenizer: Tokenizer) -> int:
    """Strings that a tokenizer splits into other ids than its source's, or puts together otherwise."""
    own = Tokenizer.from_file(str(base / "tokenizer.json"))
    special = [token.content for token in own.get_added_tokens_decoder().values() if token.special]
    strings = mixed_strings(STRINGS, special[:20])
    pairs = zip(own.encode_batch(strings), tokenizer.encode_batch(strings), strict=True)
    return sum(
        a.ids != b.ids or own.decode(a.ids, False) != tokenizer.decode(b.ids, False)  # special tokens kept
        for a, b in pairs
    )


if __name__ == "__main__":
    main()
