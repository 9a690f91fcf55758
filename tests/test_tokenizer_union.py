"""The tokens of the output: whose they are, and their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from plait.engine.errors import InputError
from tokenizer_support import byte_level, from_tokens, save_tokenizer, tokenizer_of, written
from tokenizers import AddedToken, Tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def special(text: str) -> AddedToken:
    return AddedToken(text, special=True, normalized=False)


def test_tokens_of_others_follow_those_of_the_base(tmp_path: Path):
    save_tokenizer(tmp_path / "base", from_tokens("abc", [special("<s>")]))
    save_tokenizer(tmp_path / "one", from_tokens("axb", [special("<s>"), special("<u>")]))
    save_tokenizer(tmp_path / "two", from_tokens("yxb", [special("<u>"), special("<v>")]))
    made = tokenizer_of(tmp_path, {"base": 4, "one": 5, "two": 5}, base="base")
    assert made.token_ids == {"a": 0, "b": 1, "c": 2, "<s>": 3, "x": 4, "y": 5, "<u>": 6, "<v>": 7}
    out = written(made, tmp_path, tmp_path / "out")
    assert Tokenizer.from_file(str(out / "tokenizer.json")).get_vocab() == made.token_ids


def test_no_block_changes_nothing(tmp_path: Path):
    (tmp_path / "base").mkdir()
    made = tokenizer_of(tmp_path, {"base": 4}, None)
    assert (made.vocabulary, made.files, made.left_out) == (None, {}, frozenset())


def test_equal_tokenizers_change_nothing(tmp_path: Path):
    for name in ("base", "one"):
        save_tokenizer(tmp_path / name, byte_level(300), settings={"eos_token": "<|end|>"})
    made = tokenizer_of(tmp_path, {"base": 320, "one": 320}, base="base")
    assert (made.vocabulary, made.files, made.left_out, made.notes) == (None, {}, frozenset(), ())


def test_a_tokenizer_is_needed(tmp_path: Path):
    (tmp_path / "base").mkdir()
    with pytest.raises(InputError, match=r"base: has no tokenizer.json"):
        tokenizer_of(tmp_path, {"base": 4})
