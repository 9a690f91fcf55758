"""SentencePiece models without a tokenizer.json, made here byte by byte."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed_text import mixed_strings
from plait.engine.errors import InputError
from plait.loaders.sentencepiece_file import sentencepiece_document
from tokenizer_support import from_tokens, save_tokenizer, tokenizer_of, unigram, with_byte_fallback, written
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
UNIGRAM, BPE = 1, 2


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def sentencepiece(pieces: Sequence[tuple[str, float, int]], kind: int, *, has_bytes: bool = True) -> bytes:
    """A model file as the library writes it: pieces, trainer and normalizer, each with more fields than are needed."""
    listed = b"".join(
        message(1, message(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + number(3, piece))
        for text, score, piece in pieces
    )
    trainer = message(1, b"corpus.txt") + number(3, kind) + number(4, len(pieces)) + number(35, int(has_bytes))
    normalizer = message(1, b"identity") + number(3, 1) + number(4, 0) + number(5, 1)
    return listed + message(2, trainer) + message(3, normalizer)


def kind_of(token: str) -> int:
    if token in ("<unk>", "<s>", "</s>"):
        return UNKNOWN if token == "<unk>" else CONTROL
    return BYTE if token.startswith("<0x") else NORMAL


def as_bpe(tokenizer: Tokenizer) -> bytes:
    """The SentencePiece form of a tokenizer: a merge's place among the merges is its piece's score."""
    model = json.loads(tokenizer.to_str())["model"]
    scores = {"".join(merge): -float(place) for place, merge in reversed([*enumerate(model["merges"])])}
    by_id = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return sentencepiece([(token, scores.get(token, -1e6), kind_of(token)) for token in by_id], BPE)


def save(folder: Path, data: bytes, config: dict[str, Any] | None = None) -> None:
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(data)
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_bpe_model_splits_as_the_one_it_was(tmp_path: Path):
    tokenizer = with_byte_fallback(450)
    save(tmp_path / "base", as_bpe(tokenizer))
    made = Tokenizer.from_str(json.dumps(sentencepiece_document(tmp_path / "base" / "tokenizer.model", {})))
    assert made.get_vocab() == tokenizer.get_vocab()
    for text in mixed_strings(300, ["<s>", "</s>"]):
        assert made.encode(text).ids == tokenizer.encode(text).ids
        assert made.decode(made.encode(text).ids) == tokenizer.decode(made.encode(text).ids)


def test_a_unigram_model(tmp_path: Path):
    vocabulary = json.loads(unigram(150).to_str())["model"]["vocab"]
    pieces = [(token, score, kind_of(token)) for token, score in vocabulary]
    save(tmp_path / "base", sentencepiece(pieces, UNIGRAM, has_bytes=False))
    model: Any = sentencepiece_document(tmp_path / "base" / "tokenizer.model", {})["model"]
    assert [piece for piece, _ in model["vocab"]] == [piece for piece, _ in vocabulary]
    assert [score for _, score in model["vocab"]] == pytest.approx([score for _, score in vocabulary], rel=1e-6)
    assert model["unk_id"] == [piece for piece, _ in vocabulary].index("<unk>")


def test_a_union_with_a_sentencepiece_base(tmp_path: Path):
    tokenizer = with_byte_fallback(450)
    save(tmp_path / "base", as_bpe(tokenizer), {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False})
    save_tokenizer(tmp_path / "other", from_tokens(["▁the", "▁llama"]))
    size = tokenizer.get_vocab_size()
    made = tokenizer_of(tmp_path, {"base": size, "other": 2}, base="base")
    assert made.left_out == {"tokenizer.model"}
    out = Tokenizer.from_file(str(written(made, tmp_path, tmp_path / "out") / "tokenizer.json"))
    assert out.get_vocab() == made.token_ids
    tokenizer.post_processor = None
    assert out.encode("the llama").ids == tokenizer.encode("the llama").ids
    assert tokenizer_of(tmp_path, {"base": size}, base="base").files == {}  # nothing new: the file is copied


PIECES = [
    ("<unk>", 0.0, UNKNOWN),
    ("<s>", 0.0, CONTROL),
    ("[X]", 0.0, USER_DEFINED),
    ("▁", -1.0, NORMAL),
    ("a", -2.0, NORMAL),
]


@pytest.mark.parametrize(
    ("config", "tokens"),
    [({}, ["<s>", "▁", "a"]), ({"add_bos_token": False}, ["▁", "a"]), ({"add_eos_token": True}, ["<s>", "▁", "a"])],
)
def test_what_is_put_around_a_text(tmp_path: Path, config: dict[str, Any], tokens: list[str]):
    save(tmp_path / "base", sentencepiece(PIECES, BPE))
    made = Tokenizer.from_str(json.dumps(sentencepiece_document(tmp_path / "base" / "tokenizer.model", config)))
    assert made.encode("a").tokens == tokens
    assert [(token.content, token.special) for token in made.get_added_tokens_decoder().values()] == [
        ("<unk>", True),
        ("<s>", True),
        ("[X]", False),
    ]


@pytest.mark.parametrize(
    ("data", "config", "message_"),
    [
        (b"IQ== 0\nIg== 1\n", {}, "is no SentencePiece model"),
        (b"", {}, "is no SentencePiece model"),
        (sentencepiece(PIECES, 3), {}, "neither a BPE nor a Unigram"),
        (sentencepiece(PIECES, BPE)[:-3], {}, "is no SentencePiece model"),
        (sentencepiece(PIECES, BPE), {"tokenizer_class": "XLMRobertaTokenizer"}, "ids of a XLMRobertaTokenizer"),
    ],
)
def test_models_that_are_not_read(tmp_path: Path, data: bytes, config: dict[str, Any], message_: str):
    save(tmp_path / "base", data, config)
    with pytest.raises(InputError, match=message_) as caught:
        tokenizer_of(tmp_path, {"base": 3}, base="base")
    assert str(caught.value).startswith(str(tmp_path / "base" / "tokenizer.model"))
    assert "save_pretrained" in str(caught.value)


def test_other_forms_are_named_and_not_passed_over(tmp_path: Path):
    save_tokenizer(tmp_path / "base", from_tokens("ab"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tekken.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"other.tekken\.json: it cannot be read, and there is no tokenizer\.json beside it"
    ):
        tokenizer_of(tmp_path, {"base": 2, "other": 2}, base="base")


@given(st.lists(st.integers(0, 400), max_size=3), st.binary(max_size=3), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, places: list[int], junk: bytes, cut: bool
):
    path = tmp_path_factory.getbasetemp() / "tokenizer.model"
    data = bytearray(sentencepiece(PIECES * 4, BPE))
    for place in places:
        data[place % len(data) : place % len(data) + len(junk)] = junk
    path.write_bytes(data[: places[0]] if cut and places else data)
    try:
        document = sentencepiece_document(path, {})
    except InputError:
        return
    assert json.dumps(document)
