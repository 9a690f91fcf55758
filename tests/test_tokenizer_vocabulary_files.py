"""Older folders: vocab.json with merges.txt, and vocab.txt, against the tokenizers that transformers makes of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from mixed_text import mixed_strings
from plait.engine.errors import InputError
from plait.loaders.tokenizer_file import read_tokenizer
from tokenizer_support import CORPUS, byte_level, from_tokens, save_tokenizer, tokenizer_of, word_piece, written
from tokenizers import Tokenizer
from transformers import BertTokenizer, GPT2Tokenizer

if TYPE_CHECKING:
    from pathlib import Path

STRINGS = (*CORPUS, "", " leading", "Größe [MASK] x <|endoftext|>y", *mixed_strings(200))


def write_gpt2(folder: Path, settings: dict[str, Any] | None = None, *, end: bool = True) -> Path:
    folder.mkdir()
    made = byte_level(400, special=["<|endoftext|>"] if end else [])
    model = json.loads(made.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"] | ({"<|endoftext|>": 400} if end else {})), "utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def write_bert(folder: Path, settings: dict[str, Any]) -> Path:
    folder.mkdir()
    ids = word_piece(300).get_vocab()
    tokens = [*sorted(ids, key=ids.__getitem__), "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": "GPT2Tokenizer"},
        {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True, "pad_token": "<|pad|>"},
        {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|start|>", "eos_token": "the"},
    ],
)
def test_bytes_and_merges_are_a_gpt2_tokenizer(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = write_gpt2(tmp_path / "m", settings)
    expected = GPT2Tokenizer.from_pretrained(folder)
    found = read_tokenizer(folder)
    assert found is not None
    assert found[0].ids == expected.get_vocab()
    made = Tokenizer.from_str(json.dumps(found[1]))
    for text in STRINGS if "pad_token" not in settings else STRINGS[:4]:
        assert made.encode(text).ids == expected(text).input_ids, text


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": "BertTokenizer"},
        {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False, "tokenize_chinese_chars": False},
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": False, "unk_token": "[UNK]"},
    ],
)
def test_a_list_of_words_is_a_bert_tokenizer(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = write_bert(tmp_path / "m", settings)
    expected = BertTokenizer.from_pretrained(folder)
    found = read_tokenizer(folder)
    assert found is not None
    assert found[0].ids == expected.get_vocab()
    made = Tokenizer.from_str(json.dumps(found[1]))
    for text in STRINGS:
        assert made.encode(text).ids == expected(text).input_ids, text
        assert made.encode(text, "pair").ids == expected(text, "pair").input_ids, text


def test_a_union_of_an_older_folder_and_a_newer_one(tmp_path: Path) -> None:
    write_gpt2(tmp_path / "old")
    (tmp_path / "old" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    save_tokenizer(tmp_path / "new", byte_level(300, corpus=("lorem ipsum dolor sit amet",), special=["<|new|>"]))
    rows = {"old": 401, "new": 301}
    made = tokenizer_of(tmp_path, rows, base="old")
    out = written(made, tmp_path, tmp_path / "out")
    assert not (out / "merges.txt").exists() or "<|new|>" in json.loads((out / "added_tokens.json").read_text())
    joined = Tokenizer.from_file(str(out / "tokenizer.json"))
    before = GPT2Tokenizer.from_pretrained(tmp_path / "old")
    assert joined.token_to_id("<|new|>") >= 401
    assert joined.get_vocab().items() >= before.get_vocab().items()
    for text in CORPUS:
        assert joined.encode(text).ids == before(text).input_ids


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tokenizer_class": "RobertaTokenizer"}, "RobertaTokenizer cuts text is not known"),
        ({}, "nothing says which tokenizer it is of"),
    ],
)
def test_other_classes_are_named(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    save_tokenizer(tmp_path / "base", from_tokens("ab"))
    write_gpt2(tmp_path / "other", settings)
    with pytest.raises(InputError, match=r"vocab\.json: .*save_pretrained") as caught:
        tokenizer_of(tmp_path, {"base": 2, "other": 401}, base="base")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("vocab.json", b'{"a": -1}', "is not a number"),
        ("vocab.json", b"[]", "not a JSON object"),
        ("merges.txt", b"\xff", "UTF-8"),
        ("merges.txt", None, "is missing"),
        ("merges.txt", b"a b c\n", "does not make a token of two"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    folder = write_gpt2(tmp_path / "m", {"tokenizer_class": "GPT2Tokenizer"})
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        tokenizer_of(
            tmp_path, {"m": 401}, {"source": "base", "tokens": {"<|x|>": {"source": {"kind": "zero"}}}}, base="m"
        )
