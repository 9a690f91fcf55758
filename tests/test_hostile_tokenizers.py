"""Tokenizer files that an enemy wrote: each is refused with a line that names it, or read as the library reads it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plait.engine.errors import InputError
from tokenizer_support import from_tokens, save_tokenizer, tokenizer_of, written
from tokenizers import Tokenizer

FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
MODEL = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}


def document(**changes: Any) -> str:
    found: dict[str, Any] = json.loads(from_tokens("ab").to_str()) | {"model": MODEL} | changes
    return json.dumps(found)


def entry(content: Any = "<x>", index: Any = 3, **flags: Any) -> dict[str, Any]:
    return {"id": index, "content": content, **FLAGS, **flags}


def model(**changes: Any) -> dict[str, Any]:
    return MODEL | changes


FILES = {
    "not JSON": "{" * 100,
    "deep": '{"model": ' + "[" * 10_000 + "]" * 10_000 + "}",
    "no object": "[1]",
    "no model": '{"added_tokens": []}',
    "no vocabulary": document(model={"type": "BPE"}),
    "vocabulary of text": document(model=model(vocab="ab")),
    "negative id": document(model=model(vocab={"a": -1})),
    "huge id": document(model=model(vocab={"a": 1 << 40})),
    "id that is text": document(model=model(vocab={"a": "0"})),
    "id that is a boolean": document(model=model(vocab={"a": True})),
    "one id twice": document(model=model(vocab={"a": 0, "b": 0, "ab": 1})),
    "pieces without scores": document(model={"type": "Unigram", "vocab": ["a", "b"]}),
    "pieces that are numbers": document(model={"type": "Unigram", "vocab": [[1, 2.0]]}),
    "added text": document(added_tokens="<x>"),
    "added words": document(added_tokens=["<x>"]),
    "added without text": document(added_tokens=[entry(None)]),
    "added with a negative id": document(added_tokens=[entry(index=-3)]),
    "added with a flag of text": document(added_tokens=[entry(special="no")]),
    "merge of one": document(model=model(merges=["ab"])),
    "merge of numbers": document(model=model(merges=[[0, 1]])),
    "merge that makes nothing": document(model=model(merges=[["b", "a"]])),
    "unknown step": document(pre_tokenizer={"type": "OfTheFuture"}),
    "template without its token": document(
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<no>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<no>": {"id": "<no>", "ids": [9], "tokens": ["<no>"]}},
        }
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_tokenizer_that_is_none(tmp_path: Path, name: str):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer.json").write_text(FILES[name])
    save_tokenizer(tmp_path / "other", from_tokens("xy"))
    with pytest.raises(InputError) as caught:
        tokenizer_of(tmp_path, {"base": 3, "other": 2}, base="base")
    assert str(caught.value).startswith(str(tmp_path / "base" / "tokenizer.json"))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "<x>"}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"3": "<x>"}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"999999999999": {"content": "<x>"}}}'),
        ("special_tokens_map.json", '{"a": ' * 200 + "1" + "}" * 200),
        ("added_tokens.json", '{"<x>": -1}'),
    ],
)
def test_settings_that_are_none(tmp_path: Path, file: str, text: str):
    save_tokenizer(tmp_path / "base", from_tokens("ab"))
    (tmp_path / "base" / file).write_text(text)
    with pytest.raises(InputError) as caught:
        tokenizer_of(tmp_path, {"base": 2}, base="base")
    assert str(caught.value).startswith(str(tmp_path / "base" / file))
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_beyond_all_measure(tmp_path: Path):
    (tmp_path / "base").mkdir()
    with (tmp_path / "base" / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(InputError, match="larger than 100 MB"):
        tokenizer_of(tmp_path, {"base": 2}, base="base")


def test_a_link_that_leads_nowhere(tmp_path: Path):
    (tmp_path / "base").mkdir()
    try:
        (tmp_path / "base" / "tokenizer.json").symlink_to("elsewhere.json")
    except OSError:
        pytest.skip("this system lets nobody make links")
    with pytest.raises(InputError, match="cannot be read"):
        tokenizer_of(tmp_path, {"base": 2}, base="base")


@pytest.mark.parametrize("text", ["\0", "\x1b]0;title\x07", "../../x", "a\nb", "\u202e", " ", '"', "\\", "😀"])
def test_tokens_of_any_text(tmp_path: Path, text: str):
    for name, vocabulary in (("base", {"a": 0}), ("other", {"a": 0, text: 1})):
        (tmp_path / name).mkdir()
        added = [entry(f"<{text}>", len(vocabulary))]
        saved = document(model=model(vocab=vocabulary, merges=[]), added_tokens=added)
        (tmp_path / name / "tokenizer.json").write_text(saved, encoding="utf-8")
    made = tokenizer_of(tmp_path, {"base": 2, "other": 3}, base="base")
    assert made.token_ids == {"a": 0, f"<{text}>": 1, text: 2}
    out = Tokenizer.from_file(str(written(made, tmp_path, tmp_path / "out") / "tokenizer.json"))
    assert out.get_vocab() == made.token_ids


def test_half_a_character_is_refused_as_the_library_refuses_it(tmp_path: Path):
    (tmp_path / "base").mkdir()
    saved = document(model=model(vocab={"a": 0, "\ud800": 1}, merges=[]))
    (tmp_path / "base" / "tokenizer.json").write_text(saved)
    save_tokenizer(tmp_path / "other", from_tokens("xy"))
    with pytest.raises(InputError, match="half a character"):
        tokenizer_of(tmp_path, {"base": 2, "other": 2}, base="base")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.sampled_from(["a", "b", "<x>", ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "id", "content"]), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = ("model", "added_tokens", "post_processor", "padding", "normalizer", "pre_tokenizer", "decoder", "truncation")


@given(
    st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3), st.dictionaries(st.sampled_from([*MODEL, "unk_id"]), JSON)
)
@settings(max_examples=150, deadline=None)
def test_any_document_is_refused_or_makes_a_tokenizer(changes: dict[str, Any], inner: dict[str, Any]):
    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "base").mkdir()
        (root / "base" / "tokenizer.json").write_text(document(**({"model": MODEL | inner} | changes)))
        save_tokenizer(root / "other", from_tokens("xy"))
        try:
            made = tokenizer_of(root, {"base": 4, "other": 2}, base="base")
        except InputError:
            return
        out = Tokenizer.from_file(str(written(made, root, root / "out") / "tokenizer.json"))
        assert out.get_vocab() == made.token_ids


def test_many_tokens_take_a_moment(tmp_path: Path):
    # What is quadratic in the tokens takes hours here.
    for name, letter in (("base", "a"), ("other", "b")):
        (tmp_path / name).mkdir()
        vocabulary = {f"{letter}{number}": number for number in range(30_000)}
        added = [entry(f"<{letter}{number}>", 30_000 + number) for number in range(10_000)]
        saved = document(model=model(vocab=vocabulary, merges=[]), added_tokens=added)
        (tmp_path / name / "tokenizer.json").write_text(saved)
    start = time.process_time()
    made = tokenizer_of(tmp_path, {"base": 40_000, "other": 40_000}, base="base")
    assert len(made.token_ids) == 80_000
    assert time.process_time() - start < 20
