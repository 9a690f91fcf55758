"""The files of a merged tokenizer: consistent with each other, and read by those who use them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed_text import mixed_strings
from plait.engine.errors import InputError
from plait.loaders.tokenizer_file import read_tokenizer
from tokenizer_support import (
    CORPUS,
    byte_level,
    from_tokens,
    save_tokenizer,
    tokenizer_of,
    unigram,
    with_byte_fallback,
    word_piece,
    written,
)
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER_CORPUS = ("merging models is legitimate itself", "das Straßenfest 公园 카페 ещё", *CORPUS[2:])
CHAT = [AddedToken(text, special=True, normalized=False) for text in ("<|im_start|>", "<|im_end|>")]


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def ignoring_merges(tokenizer: Tokenizer) -> Tokenizer:
    """As Llama 3 has it: a word that is a token is not split."""
    saved = json.loads(tokenizer.to_str())
    saved["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(saved))


# ------------------------------------------------------------------------------------------------ encoding

PAIRS: dict[str, tuple[Callable[[], Tokenizer], Callable[[], Tokenizer]]] = {
    "bytes and bytes": (lambda: byte_level(400), lambda: byte_level(500, corpus=OTHER_CORPUS)),
    "bytes and characters": (lambda: byte_level(400), lambda: with_byte_fallback(400, corpus=OTHER_CORPUS)),
    "characters and bytes": (lambda: with_byte_fallback(400), lambda: byte_level(500, corpus=OTHER_CORPUS)),
    "bytes and pieces": (lambda: byte_level(400), lambda: unigram(120, corpus=OTHER_CORPUS)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_union_splits_text_as_the_base_does(tmp_path: Path, pair: str):
    base, other = PAIRS[pair][0](), PAIRS[pair][1]()
    base.add_tokens(CHAT[:1])
    other.add_tokens(CHAT)
    save_tokenizer(tmp_path / "base", base, settings={"tokenizer_class": "PreTrainedTokenizerFast"})
    save_tokenizer(tmp_path / "other", other)
    rows = {"base": base.get_vocab_size(), "other": other.get_vocab_size()}
    made = tokenizer_of(tmp_path, rows, base="base")
    out = written(made, tmp_path, tmp_path / "out")
    assert len(made.token_ids) > base.get_vocab_size() + 20
    assert Tokenizer.from_file(str(out / "tokenizer.json")).get_vocab() == made.token_ids
    loaded = AutoTokenizer.from_pretrained(out)
    assert loaded.get_vocab() == made.token_ids
    special = [token.content for token in base.get_added_tokens_decoder().values()]
    # A token of the other model that is a single character stands for itself: the base spells it in bytes.
    new = {token for token in made.token_ids if token not in base.get_vocab() and len(token) == 1}
    strings = [text for text in mixed_strings(1000, special) if pair != "characters and bytes" or not new & {*text}]
    assert len(strings) > 500
    encoded = [base.encode(text).ids for text in strings]
    assert [loaded(text)["input_ids"] for text in strings] == encoded
    assert loaded.batch_decode(encoded, clean_up_tokenization_spaces=False) == base.decode_batch(encoded, False)
    assert loaded.convert_tokens_to_ids("<|im_end|>") == loaded("<|im_end|>", add_special_tokens=False)["input_ids"][-1]


def test_words_that_are_looked_up_whole(tmp_path: Path):
    # No vocabulary can hold a token there without using it: new ones count only where they stand as words.
    base = ignoring_merges(byte_level(400))
    save_tokenizer(tmp_path / "base", base)
    save_tokenizer(tmp_path / "other", byte_level(500, corpus=OTHER_CORPUS))
    made = tokenizer_of(tmp_path, {"base": 401, "other": 501}, base="base")
    out = Tokenizer.from_file(str(written(made, tmp_path, tmp_path / "out") / "tokenizer.json"))
    new = "|".join(re.escape(token) for token in made.token_ids if token not in base.get_vocab())
    alike = 0
    for text in mixed_strings(1000, ["<|end|>"]):
        ids = out.encode(text).ids
        if not re.search(rf"(?<!\w)({new})(?!\w)", text):
            assert ids == base.encode(text).ids
            alike += 1
        assert out.decode(ids, False) == base.decode(base.encode(text).ids, False)
    assert 500 < alike < 1000


def test_word_pieces(tmp_path: Path):
    save_tokenizer(tmp_path / "base", word_piece(150), settings={"tokenizer_class": "PreTrainedTokenizerFast"})
    save_tokenizer(tmp_path / "other", word_piece(150, corpus=OTHER_CORPUS))
    rows = {
        name: Tokenizer.from_file(str(tmp_path / name / "tokenizer.json")).get_vocab_size()
        for name in ("base", "other")
    }
    made = tokenizer_of(tmp_path, rows, base="base")
    loaded = AutoTokenizer.from_pretrained(written(made, tmp_path, tmp_path / "out"))
    assert loaded.get_vocab() == made.token_ids


def test_a_unigram_base_uses_its_own_pieces_where_it_can(tmp_path: Path):
    base = unigram(150)
    save_tokenizer(tmp_path / "base", base)
    save_tokenizer(tmp_path / "other", byte_level(500, corpus=OTHER_CORPUS))
    made = tokenizer_of(tmp_path, {"base": base.get_vocab_size(), "other": 501}, base="base")
    out = Tokenizer.from_file(str(written(made, tmp_path, tmp_path / "out") / "tokenizer.json"))
    assert out.get_vocab() == made.token_ids
    unknown = base.token_to_id("<unk>")
    known = [text for text in (*CORPUS, *mixed_strings(300)) if unknown not in base.encode(text).ids]
    assert known
    assert [out.encode(text).ids for text in known] == [base.encode(text).ids for text in known]


# ------------------------------------------------------------------------------------------------ files


def test_settings_list_the_added_tokens_of_the_output(tmp_path: Path):
    base, other = byte_level(300), byte_level(300)
    other.add_tokens(CHAT)
    given = {"eos_token": "<|end|>", "model_max_length": 1024, "tokenizer_class": "PreTrainedTokenizerFast"}
    save_tokenizer(tmp_path / "base", base, settings=given, special={"eos_token": {"content": "<|end|>"}})
    save_tokenizer(tmp_path / "other", other)
    (tmp_path / "base" / "added_tokens.json").write_text('{"<|end|>": 300}')
    made = tokenizer_of(tmp_path, {"base": 301, "other": 303}, base="base")
    out = written(made, tmp_path, tmp_path / "out")
    assert set(made.files) == {"tokenizer.json", "tokenizer_config.json", "added_tokens.json"}
    assert made.left_out == frozenset()
    ids = {"<|end|>": 300, "<|im_start|>": 301, "<|im_end|>": 302}
    assert read(out, "added_tokens.json") == ids
    config = read(out, "tokenizer_config.json")
    assert {entry["content"]: int(key) for key, entry in config.pop("added_tokens_decoder").items()} == ids
    assert config == given
    loaded = AutoTokenizer.from_pretrained(out)
    assert (loaded.eos_token, loaded.eos_token_id, loaded.get_vocab()) == ("<|end|>", 300, made.token_ids)


def test_a_token_that_is_cut_is_named_nowhere(tmp_path: Path):
    base = byte_level(300)
    base.add_tokens([AddedToken("<pad>", special=True), AddedToken("<x>", special=True)])
    given = {"eos_token": "<|end|>", "pad_token": "<pad>", "additional_special_tokens": ["<x>", "<|end|>"]}
    save_tokenizer(tmp_path / "base", base, settings=given, special={"pad_token": {"content": "<pad>"}})
    made = tokenizer_of(tmp_path, {"base": 301}, base="base")
    out = written(made, tmp_path, tmp_path / "out")
    assert "<pad>" not in (out / "tokenizer.json").read_text()
    assert list(read(out, "tokenizer_config.json")["added_tokens_decoder"]) == ["300"]
    config = read(out, "tokenizer_config.json")
    assert ("pad_token" in config, config["additional_special_tokens"]) == (False, ["<|end|>"])
    assert read(out, "special_tokens_map.json") == {}
    assert made.donor_ids == {300: 300, 301: None, 302: None}


@pytest.mark.parametrize(
    "make", [lambda: byte_level(400, special=()), lambda: unigram(150), lambda: with_byte_fallback(400)]
)
def test_a_vocabulary_is_cut_with_its_merges(tmp_path: Path, make: Callable[[], Tokenizer]):
    base = make()
    size = base.get_vocab_size()
    save_tokenizer(tmp_path / "base", base)
    (tmp_path / "base" / "tokenizer.model").write_bytes(b"the same as pieces")
    made = tokenizer_of(tmp_path, {"base": size - 30}, "base", base="base")
    out = Tokenizer.from_file(str(written(made, tmp_path, tmp_path / "out") / "tokenizer.json"))
    assert out.get_vocab() == {token: index for token, index in base.get_vocab().items() if index < size - 30}
    assert made.left_out == {"tokenizer.model"}
    for text in CORPUS:
        assert max(out.encode(text).ids) < size - 30


def test_forms_that_stay_true_are_kept(tmp_path: Path):
    base = with_byte_fallback(400)
    save_tokenizer(tmp_path / "base", base, settings={})
    (tmp_path / "base" / "tokenizer.model").write_bytes(b"the same as pieces")
    size = base.get_vocab_size()
    base.add_tokens(CHAT)
    save_tokenizer(tmp_path / "other", base)
    made = tokenizer_of(tmp_path, {"base": size, "other": size + 2}, base="base")
    assert made.left_out == frozenset()
    assert json.loads(made.files["added_tokens.json"]) == {"<|im_start|>": size, "<|im_end|>": size + 1}


def test_a_gap_in_the_ids_stays(tmp_path: Path):
    base = from_tokens("abc")
    save_tokenizer(tmp_path / "base", base)
    saved = read(tmp_path / "base", "tokenizer.json")
    saved["model"]["vocab"]["c"] = 5
    (tmp_path / "base" / "tokenizer.json").write_text(json.dumps(saved))
    save_tokenizer(tmp_path / "other", from_tokens("ad", CHAT))
    made = tokenizer_of(tmp_path, {"base": 8, "other": 4}, base="base")
    out = Tokenizer.from_file(str(written(made, tmp_path, tmp_path / "out") / "tokenizer.json"))
    assert out.get_vocab() == {"a": 0, "b": 1, "c": 5, "d": 6, "<|im_start|>": 7, "<|im_end|>": 8}
    assert made.vocabulary is not None
    sources = made.vocabulary.sources[made.vocabulary.models[1]]
    assert (sources.model[2:5].tolist(), sources.row[2:5].tolist()) == ([0, 0, 0], [2, 3, 4])


def test_the_digest_follows_files_and_rows(tmp_path: Path):
    save_tokenizer(tmp_path / "base", from_tokens("ab"))
    save_tokenizer(tmp_path / "other", from_tokens("ac"))
    rows = {"base": 2, "other": 2}
    blocks: list[Any] = ["union", "base", "other", {"pad_to_multiple_of": 8}, {"tokens": {"a": {"force": True}}}, None]
    digests = [tokenizer_of(tmp_path, rows, block, base="base").digest for block in blocks]
    assert len(set(digests)) == len(blocks)
    assert digests == [tokenizer_of(tmp_path, rows, block, base="base").digest for block in blocks]


# ------------------------------------------------------------------------------------------------ reading


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True),
    st.lists(st.tuples(st.sampled_from([*"abcdefghxyz", ""]), st.integers(0, 12)), max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_ids_are_those_of_the_library(plain: list[str], added: list[tuple[str, int]]):
    # Also where the file gives added tokens other ids, or the same one twice.
    saved = json.loads(from_tokens(plain).to_str())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    saved["added_tokens"] = [{"id": index, "content": text, **flags} for text, index in added]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(json.dumps(saved))
        found = read_tokenizer(path.parent)
        library = Tokenizer.from_file(str(path))
    assert found is not None
    assert found[0].ids == library.get_vocab()
    assert list(found[0].added) == [token.content for _, token in sorted(library.get_added_tokens_decoder().items())]


def test_tokens_that_only_the_settings_name_count_as_transformers_counts_them(tmp_path: Path):
    base = byte_level(300)
    settings_ = {"pad_token": "<pad>", "eos_token": "<|end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    save_tokenizer(tmp_path / "base", base, settings=settings_)
    config = read(tmp_path / "base", "tokenizer_config.json")
    config["added_tokens_decoder"]["301"] = {"content": "<extra>", "special": True}
    (tmp_path / "base" / "tokenizer_config.json").write_text(json.dumps(config))
    found = read_tokenizer(tmp_path / "base")
    assert found is not None
    assert found[0].ids == AutoTokenizer.from_pretrained(tmp_path / "base").get_vocab()
    assert (found[0].ids["<extra>"], found[0].ids["<pad>"]) == (301, 302)


def test_a_file_that_the_library_refuses(tmp_path: Path):
    save_tokenizer(tmp_path / "base", from_tokens("ab"))
    saved = read(tmp_path / "base", "tokenizer.json")
    saved["pre_tokenizer"] = {"type": "OfTheFuture"}
    (tmp_path / "base" / "tokenizer.json").write_text(json.dumps(saved))
    save_tokenizer(tmp_path / "other", from_tokens("ac"))
    with pytest.raises(InputError, match=r"base.tokenizer\.json: the tokenizers library cannot read it"):
        tokenizer_of(tmp_path, {"base": 2, "other": 2}, base="base")


def test_letters_that_the_base_spells_in_bytes_stay_bytes_inside_of_words(tmp_path: Path) -> None:
    # A byte-level vocabulary writes bytes as letters: what it calls ĵ is the byte 0x93.
    save_tokenizer(tmp_path / "base", with_byte_fallback(700))
    save_tokenizer(tmp_path / "other", byte_level(400, special=["<|mine|>"]))
    made = tokenizer_of(tmp_path, {"base": 700, "other": 401}, base="base")
    out = written(made, tmp_path, tmp_path / "out")
    base, joined = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (tmp_path / "base", out))
    assert base.token_to_id("ĵ") is None
    assert joined.get_vocab() == made.token_ids
    assert set(made.token_ids) == set(base.get_vocab()) | set(byte_level(400, special=["<|mine|>"]).get_vocab())
    for text in ("ĵaŭdo", "aĵb", "ĴĵĤĥ ĳ_x", "the ĵus dog"):
        assert joined.encode(text).ids == base.encode(text).ids, text
    without_rules = json.loads((out / "tokenizer.json").read_text("utf-8")) | {"normalizer": None}
    assert "ĵ" in Tokenizer.from_str(json.dumps(without_rules)).encode("the ĵ dog").tokens, "alone it is found"
