"""transformers loads what a merge wrote without a word: no warning raised or logged, for each kind of tokenizer."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import plait
import pytest
import torch
import transformers
from merge_support import write_recipe
from overheard import overheard
from tokenizer_support import byte_level, unigram, with_byte_fallback, word_piece
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

OTHER = ("a wholly different corpus: lorem ipsum dolor sit amet, consectetur", "zażółć gęślą jaźń, λόγος, ∑∫√")
LINE = "the lazy dog sleeps"
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
T5_SIZES = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}

FAMILIES: dict[str, tuple[str, str, Any, dict[str, str], dict[str, Any]]] = {
    # name: model type, auto class, tokenizer, special tokens, config
    "llama": ("llama", "AutoModelForCausalLM", byte_level, {"eos_token": "<|end|>", "bos_token": "<|end|>"}, SIZES),
    "mistral": (
        "mistral",
        "AutoModelForCausalLM",
        with_byte_fallback,
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        SIZES,
    ),
    "qwen2": ("qwen2", "AutoModelForCausalLM", byte_level, {"eos_token": "<|end|>", "pad_token": "<|end|>"}, SIZES),
    "gemma": (
        "gemma2",
        "AutoModelForCausalLM",
        with_byte_fallback,
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"},
        SIZES | {"head_dim": 8},
    ),
    "bert": (
        "bert",
        "AutoModelForMaskedLM",
        word_piece,
        {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"},
        SIZES,
    ),
    "t5": (
        "t5",
        "AutoModelForSeq2SeqLM",
        unigram,
        {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
        T5_SIZES,
    ),
}


def save(folder: Path, family: str, tokenizer: Tokenizer, extra_rows: int, seed: int) -> None:
    model_type, auto, _, special, sizes = FAMILIES[family]
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special)
    wrapped.save_pretrained(folder)
    ids = {f"{name}_id": tokenizer.token_to_id(token) for name, token in special.items() if name != "unk_token"}
    if family == "t5":
        ids["decoder_start_token_id"] = ids["pad_token_id"]
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")) | ids
    rows = tokenizer.get_vocab_size() + extra_rows
    config = AutoConfig.for_model(model_type, vocab_size=rows, **sizes, **ids)
    torch.manual_seed(seed)
    model = getattr(transformers, auto).from_config(config)
    if auto != "AutoModelForMaskedLM":
        model.generation_config = GenerationConfig(**{key: value for key, value in ids.items() if value is not None})
    model.to(torch.bfloat16).save_pretrained(folder)


RECIPES = {
    "linear": """\
        merge_method: linear
        base_model: m0
        models: [{model: m0, parameters: {weight: 0.5}}, {model: m1, parameters: {weight: 0.5}}]
        dtype: bfloat16
        """,
    "union": """\
        merge_method: linear
        base_model: m0
        models: [{model: m0, parameters: {weight: 0.5}}, {model: m1, parameters: {weight: 0.5}}]
        tokenizer: {source: union, pad_to_multiple_of: 8, tokens: {"<|new|>": {source: {kind: zero}}}}
        dtype: bfloat16
        """,
    "other": """\
        merge_method: linear
        base_model: m0
        models: [{model: m0, parameters: {weight: 0.5}}, {model: m1, parameters: {weight: 0.5}}]
        tokenizer: {source: m1}
        dtype: float32
        """,
    "layers": """\
        merge_method: passthrough
        slices:
          - sources: [{model: m0, layer_range: [0, 2]}]
          - sources: [{model: m1, layer_range: [1, 3]}]
        """,
}


@pytest.mark.parametrize("which", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_said(tmp_path: Path, family: str, which: str) -> None:
    same = which in ("linear", "layers")
    with overheard() as before:
        make = FAMILIES[family][2]
        save(tmp_path / "m0", family, make(420), 5, seed=0)
        save(tmp_path / "m1", family, make(420) if same else make(400, corpus=OTHER), 5 if same else 3, seed=1)
        getattr(transformers, FAMILIES[family][1]).from_pretrained(tmp_path / "m0")
    assert before == [], "of the inputs themselves"
    plait.plan(write_recipe(tmp_path / "recipe.yml", RECIPES[which])).run(tmp_path / "out")
    with overheard() as said:
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
        model, info = getattr(transformers, FAMILIES[family][1]).from_pretrained(
            tmp_path / "out", output_loading_info=True, dtype="auto"
        )
        ids = tokenizer(LINE, return_tensors="pt").input_ids
        rows = model.get_input_embeddings().weight.shape[0]
        assert int(ids.max()) < rows
        if FAMILIES[family][1] == "AutoModelForCausalLM":
            model.generate(ids, max_new_tokens=2, do_sample=False, attention_mask=torch.ones_like(ids))
    assert said == [], "\n".join(said)
    assert not any(info.values()), info
    assert rows == json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] >= len(tokenizer)
    first = AutoTokenizer.from_pretrained(tmp_path / ("m1" if which == "other" else "m0"))
    assert tokenizer(LINE).input_ids == first(LINE).input_ids
    assert first.special_tokens_map.items() <= tokenizer.special_tokens_map.items()


def test_what_is_logged_would_be_heard() -> None:
    with overheard() as said:
        logging.getLogger("transformers.modeling_utils").warning("weights of %s", "x")
    assert said == ["weights of x"]
