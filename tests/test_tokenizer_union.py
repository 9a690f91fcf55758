"""The tokens of the output: whose they are, and their ids."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plait.engine.errors import InputError
from tokenizer_support import byte_level, from_tokens, save_tokenizer, tokenizer_of, written
from tokenizers import AddedToken, Tokenizer


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


def test_ordinary_tokens_of_all_models_come_before_added_ones(tmp_path: Path):
    save_tokenizer(tmp_path / "base", from_tokens("ab"))
    save_tokenizer(tmp_path / "one", from_tokens("ax", [special("<u>")]))
    save_tokenizer(tmp_path / "two", from_tokens("ay", [special("<v>")]))
    made = tokenizer_of(tmp_path, {"base": 2, "one": 3, "two": 3}, base="base")
    assert list(made.token_ids) == ["a", "b", "x", "y", "<u>", "<v>"]


def test_ids_beyond_a_models_rows_do_not_count(tmp_path: Path):
    save_tokenizer(tmp_path / "base", from_tokens("abcd", [special("<s>"), special("<pad>")]))
    save_tokenizer(tmp_path / "one", from_tokens("axyd", [special("<t>")]))
    made = tokenizer_of(tmp_path, {"base": 5, "one": 3}, base="base")
    assert made.token_ids == {"a": 0, "b": 1, "c": 2, "d": 3, "<s>": 4, "x": 5, "y": 6}
    assert made.notes == ("base: 1 token at or above its 5 rows left out",)


def test_the_first_settings_of_an_added_token_count(tmp_path: Path):
    spaced = AddedToken("<u>", special=True, normalized=False, lstrip=True)
    save_tokenizer(tmp_path / "base", from_tokens("ab"))
    save_tokenizer(tmp_path / "one", from_tokens("ab", [spaced]))
    save_tokenizer(tmp_path / "two", from_tokens("ab", [special("<u>")]))
    made = tokenizer_of(tmp_path, {"base": 2, "one": 3, "two": 3}, base="base")
    out = Tokenizer.from_file(str(written(made, tmp_path, tmp_path / "out") / "tokenizer.json"))
    assert out.get_added_tokens_decoder() == {2: spaced}
    assert made.notes == ("two: the added token '<u>' has other settings than in an earlier model, which count",)


def test_a_token_that_another_model_adds_is_an_added_one(tmp_path: Path):
    save_tokenizer(tmp_path / "base", from_tokens(["a", "<|im_start|>"]))
    save_tokenizer(tmp_path / "one", from_tokens("a", [special("<|im_start|>")]))
    made = tokenizer_of(tmp_path, {"base": 2, "one": 2}, base="base")
    out = Tokenizer.from_file(str(written(made, tmp_path, tmp_path / "out") / "tokenizer.json"))
    assert out.encode("a<|im_start|>").ids == [0, 1]


def test_base_and_model_name_whose_tokens_they_are(tmp_path: Path):
    save_tokenizer(tmp_path / "base", from_tokens("abc"))
    save_tokenizer(tmp_path / "one", from_tokens("cax"))
    rows = {"base": 3, "one": 3}
    assert tokenizer_of(tmp_path, rows, "base", base="base").token_ids == {"a": 0, "b": 1, "c": 2}
    assert tokenizer_of(tmp_path, rows, "base").token_ids == {"a": 0, "b": 1, "c": 2}  # the first listed
    for source in ("one", "model:one"):
        made = tokenizer_of(tmp_path, rows, source, base="base")
        assert (str(made.source), made.files, made.token_ids) == ("one", {}, {"c": 0, "a": 1, "x": 2})


def test_a_tokenizer_may_come_from_a_model_that_is_not_merged(tmp_path: Path):
    save_tokenizer(tmp_path / "base", from_tokens("abc"))
    save_tokenizer(tmp_path / "other", from_tokens("cx"))
    made = tokenizer_of(tmp_path, {"base": 3, "other": 2}, "other", merged=["base"])
    assert str(made.source) == "other"
    assert made.vocabulary is not None
    assert [str(ref) for ref in made.vocabulary.models] == ["base"]
    assert made.notes == ("tokens that no model has a row for start as zeros: 'x'",)


def test_a_model_without_a_tokenizer_has_that_of_the_base(tmp_path: Path):
    save_tokenizer(tmp_path / "base", from_tokens("abc"))
    (tmp_path / "one").mkdir()
    made = tokenizer_of(tmp_path, {"base": 3, "one": 3}, base="base")
    assert made.vocabulary is None
    assert made.notes == ("one: has no tokenizer.json; its tokens are taken to be those of base",)


def test_the_special_tokens_of_the_donor_are_followed(tmp_path: Path):
    save_tokenizer(tmp_path / "base", from_tokens("ab", [special("<s>"), special("<gone>")]), settings={})
    save_tokenizer(tmp_path / "one", from_tokens("a", [special("<s>")]))
    made = tokenizer_of(tmp_path, {"base": 4, "one": 2}, "one", base="base")
    assert made.donor_ids == {2: 1, 3: None}


# ------------------------------------------------------------------------------------------------ any vocabularies

PLAIN = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True)
ADDED = st.lists(st.sampled_from([f"<{letter}>" for letter in "stuvwxyz"]), max_size=4, unique=True)


@given(st.lists(st.tuples(PLAIN, ADDED), min_size=2, max_size=3), st.data())
@settings(max_examples=40, deadline=None)
def test_a_union_has_every_token_once(vocabularies: list[tuple[list[str], list[str]]], data: st.DataObject):
    with TemporaryDirectory() as folder:
        root, rows = Path(folder), {}
        for number, (plain, added) in enumerate(vocabularies):
            save_tokenizer(root / f"m{number}", from_tokens(plain, map(special, added)))
            rows[f"m{number}"] = data.draw(st.integers(1, len(plain) + len(added) + 2))
        made = tokenizer_of(root, rows, base="m0")
        held = [[*plain, *added][: rows[f"m{n}"]] for n, (plain, added) in enumerate(vocabularies)]
        out = Tokenizer.from_file(str(written(made, root, root / "out") / "tokenizer.json"))
    assert list(made.token_ids)[: len(held[0])] == held[0]  # the base keeps its ids
    assert list(made.token_ids.values()) == list(range(len(made.token_ids)))
    assert set(made.token_ids) == {token for tokens in held for token in tokens}
    assert out.get_vocab() == made.token_ids
    for tokens in held[1:]:  # what is new keeps its order within a model and kind
        for kind in ("<", ""):
            new = [token for token in tokens if token not in held[0] and token.startswith("<") == bool(kind)]
            fresh = [token for token in new if all(token not in other for other in held if other is not tokens)]
            assert sorted(fresh, key=made.token_ids.__getitem__) == fresh
