"""Small real tokenizers, made with the tokenizers library, and models that have them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import yaml
from merge_support import decoder_shapes, model
from plait.engine.methoddef import methods
from plait.engine.recipe import ModelRef
from plait.engine.recipe_parser import parse_recipe
from plait.loaders.vocabulary import output_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from plait.engine.model import Model
    from plait.engine.recipe import Recipe
    from plait.loaders.vocabulary import OutputTokenizer

CORPUS = (
    "the quick brown fox jumps over the lazy dog and the dog sleeps",
    "def merge(models, weights): return sum(w * m for w, m in zip(weights, models))",
    "größer Straße naïve façade 你好世界 今日は 안녕하세요 привет мир שלום عالم 🦙🔥👩‍👩‍👧",
    "    indented\n\n\ttabs and  double   spaces 1234567890 0.5e-3",
)


def byte_level(size: int, *, corpus: Sequence[str] = CORPUS, special: Sequence[str] = ("<|end|>",)) -> Tokenizer:
    """BPE over bytes, as in Llama 3 and Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def with_byte_fallback(size: int, *, corpus: Sequence[str] = CORPUS) -> Tokenizer:
    """BPE over characters with bytes for the rest, as in Llama 2 and Mistral."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    alphabet = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, limit_alphabet=110, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    saved = json.loads(tokenizer.to_str())
    saved["added_tokens"] = saved["added_tokens"][:3]  # bytes are no added tokens
    tokenizer = Tokenizer.from_str(json.dumps(saved))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def unigram(size: int, *, corpus: Sequence[str] = CORPUS) -> Tokenizer:
    """Unigram, as in T5."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def word_piece(size: int, *, corpus: Sequence[str] = CORPUS) -> Tokenizer:
    """WordPiece, as in BERT."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    ids = tokenizer.get_vocab()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return tokenizer


def from_tokens(tokens: Sequence[str], added: Iterable[AddedToken] = ()) -> Tokenizer:
    """A tokenizer with just these tokens, numbered in their order, and added ones after them."""
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    tokenizer.add_tokens(list(added))
    return tokenizer


def save_tokenizer(
    folder: Path, tokenizer: Tokenizer, *, settings: Mapping[str, Any] | None = None, special: Any = None
) -> None:
    """Write a tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    if settings is not None:
        listed = {
            str(index): {key: getattr(token, key) for key in ("content", *_FLAGS)}
            for index, token in tokenizer.get_added_tokens_decoder().items()
        }
        settings = {"added_tokens_decoder": listed} | dict(settings)
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if special is not None:
        (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")


_FLAGS = ("lstrip", "normalized", "rstrip", "single_word", "special")


def headers(folder: Path, rows: int | None) -> Model:
    """A model with a tokenizer's folder and an embedding of so many rows, headers only."""
    made = model(folder.name, decoder_shapes(1))
    return replace(made, folder=str(folder), vocabulary_rows=rows, config={})


def recipe_of(names: Sequence[str], tokenizer: Mapping[str, Any] | str | None, *, base: str | None = None) -> Recipe:
    """A linear merge of these models, with a tokenizer block or a tokenizer_source."""
    recipe: dict[str, Any] = {
        "merge_method": "linear",
        "models": [{"model": name, "parameters": {"weight": 1.0}} for name in names],
    }
    if base is not None:
        recipe["base_model"] = base
    if tokenizer is not None:
        recipe["tokenizer_source" if isinstance(tokenizer, str) else "tokenizer"] = tokenizer
    return parse_recipe(yaml.safe_dump(recipe), "recipe.yml", methods())


def tokenizer_of(
    root: Path,
    rows: Mapping[str, int | None],
    tokenizer: Mapping[str, Any] | str | None = "union",
    *,
    base: str | None = None,
    merged: Sequence[str] | None = None,
) -> OutputTokenizer:
    """The output's tokenizer for the models in the folders of ``root`` that ``rows`` names."""
    found = {ModelRef(name): headers(root / name, number) for name, number in rows.items()}
    return output_tokenizer(recipe_of(merged or list(rows), tokenizer, base=base), found)


def written(made: OutputTokenizer, root: Path, out: Path) -> Path:
    """The folder with the files as an output has them."""
    out.mkdir()
    for file in (root / str(made.source)).iterdir():
        if file.name not in made.left_out:
            (out / file.name).write_bytes(file.read_bytes())
    for name, text in made.files.items():
        (out / name).write_text(text, encoding="utf-8")
    return out
