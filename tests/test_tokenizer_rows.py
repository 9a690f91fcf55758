"""Where the row of each token comes from, for models that have the token and for those that do not."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plait.engine.errors import InputError
from plait.engine.recipe import ModelRef
from plait.engine.vocabulary import AVERAGE, MEAN, ZEROS
from tokenizer_support import from_tokens, save_tokenizer, tokenizer_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plait.loaders.vocabulary import OutputTokenizer

WORDS = {ZEROS: "zeros", MEAN: "mean", AVERAGE: "average"}


def sources(made: OutputTokenizer, model: str) -> list[str]:
    """For each row what a model contributes, as words: ``base.3``, ``mean``."""
    assert made.vocabulary is not None
    found = made.vocabulary.sources[ModelRef(model)]
    assert (found.model.dtype, found.row.dtype) == (np.int16, np.int32)
    assert len(found.model) == len(found.row) == made.vocabulary.rows
    names = [str(ref) for ref in made.vocabulary.models]
    return [WORDS[m] if m < 0 else f"{names[m]}.{r}" for m, r in zip(found.model, found.row, strict=True)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Base with a b c; one with c a x y; two with y z."""
    for name, tokens in (("base", "abc"), ("one", "caxy"), ("two", "yz")):
        save_tokenizer(tmp_path / name, from_tokens(tokens))
    return tmp_path


ROWS = {"base": 3, "one": 4, "two": 2}


def test_rows_of_a_union(root: Path):
    made = tokenizer_of(root, ROWS, base="base")
    #                                  a         b         c         x        y       z
    assert sources(made, "base") == ["base.0", "base.1", "base.2", "one.2", "mean", "two.1"]
    assert sources(made, "one") == ["one.1", "base.1", "one.0", "one.2", "one.3", "two.1"]
    assert sources(made, "two") == ["base.0", "base.1", "base.2", "one.2", "two.0", "two.1"]
    assert made.vocabulary is not None
    own = {str(ref): rows.tolist() for ref, rows in made.vocabulary.own.items()}
    assert own == {"base": [0, 1, 2, -1, -1, -1], "one": [1, -1, 0, 2, 3, -1], "two": [-1, -1, -1, -1, 0, 1]}


def test_without_a_base_tokens_of_several_models_are_averaged(root: Path):
    made = tokenizer_of(root, ROWS)
    #                                 a      b         c       x        y        z
    assert sources(made, "two") == ["mean", "base.1", "mean", "one.2", "two.0", "two.1"]


def rows_with(root: Path, model: str, tokens: Mapping[str, Any]) -> list[str]:
    return sources(tokenizer_of(root, ROWS, {"tokens": dict(tokens)}, base="base"), model)


def test_a_source_for_a_token_is_for_models_that_lack_it(root: Path):
    assert rows_with(root, "base", {"y": {"source": "two"}})[4] == "two.0"
    assert rows_with(root, "one", {"y": {"source": "two"}})[4] == "one.3"
    assert rows_with(root, "one", {"y": {"source": "two", "force": True}})[4] == "two.0"
    assert rows_with(root, "two", {"a": {"source": {"kind": "zero"}}})[0] == "zeros"
    assert rows_with(root, "base", {"a": {"source": {"kind": "zero"}}})[0] == "base.0"
    assert rows_with(root, "base", {"a": {"source": {"kind": "zero"}, "force": True}})[0] == "zeros"
    assert (
        rows_with(root, "base", {"x": {"source": {"kind": "model_token", "model": "two", "token": "z"}}})[3] == "two.1"
    )
    assert (
        rows_with(root, "base", {"x": {"source": {"kind": "model_token", "model": "one", "token_id": 0}}})[3] == "one.0"
    )


def test_force_alone_gives_every_model_the_usual_source(root: Path):
    forced = {"a": {"force": True}, "y": {"force": True}}
    for model in ROWS:
        found = rows_with(root, model, forced)
        assert (found[0], found[4]) == ("base.0", "mean")


def test_a_new_token_of_the_recipe(root: Path):
    tokens = {"<new>": {"source": {"kind": "model_token", "model": "base", "token": "b"}}, "<none>": {}}
    made = tokenizer_of(root, ROWS, {"tokens": tokens}, base="base")
    assert (made.token_ids["<new>"], made.token_ids["<none>"]) == (6, 7)
    for model in ROWS:
        assert sources(made, model)[6:] == ["base.1", "zeros"]


def test_rows_may_be_lent_by_a_model_that_is_not_merged(root: Path):
    block = {"source": "base", "tokens": {"c": {"source": {"kind": "model_token", "model": "two", "token": "z"}}}}
    made = tokenizer_of(root, {"base": 2, "one": 4, "two": 2}, block, base="base", merged=["base", "one"])
    assert made.vocabulary is not None
    assert [str(ref) for ref in made.vocabulary.models] == ["base", "one", "two"]
    assert sources(made, "base") == ["base.0", "base.1", "two.1"]
    assert (made.vocabulary.own[ModelRef("two")] == -1).all()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"source": "two"}, "token 'a': the model two has no token 'a'"),
        ({"source": {"kind": "model_token", "model": "two", "token": "b"}}, "the model two has no token 'b'"),
        ({"source": {"kind": "model_token", "model": "two", "token_id": 2}}, "row 2 of two is not there: it has 2"),
    ],
)
def test_rows_that_are_not_there(root: Path, row: Mapping[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        rows_with(root, "base", {"a": row})


# ------------------------------------------------------------------------------------------------ padding


def test_a_padded_vocabulary_keeps_its_rows(root: Path):
    made = tokenizer_of(root, {"base": 6, "one": 4, "two": 4}, "base", base="base")
    assert sources(made, "base") == [f"base.{row}" for row in range(6)]
    # Rows 2 and 3 of `one` are tokens, and of `two` they are not.
    assert sources(made, "one")[3:] == ["average", "average", "average"]
    assert sources(made, "two")[3:] == ["two.3", "average", "average"]


def test_new_tokens_take_padding_rows(root: Path):
    made = tokenizer_of(root, {"base": 8, "one": 4, "two": 2}, base="base")
    assert made.vocabulary is not None
    assert (made.vocabulary.tokens, made.vocabulary.rows) == (6, 8)
    assert sources(made, "base")[3:] == ["one.2", "mean", "two.1", "base.6", "base.7"]


@pytest.mark.parametrize(("multiple", "rows"), [(1, 6), (4, 8), (6, 6), (32, 32)])
def test_pad_to_multiple_of(root: Path, multiple: int, rows: int):
    made = tokenizer_of(root, {"base": 9, "one": 4, "two": 2}, {"pad_to_multiple_of": multiple}, base="base")
    assert made.vocabulary is not None
    assert (made.vocabulary.tokens, made.vocabulary.rows) == (6, rows)
    assert sources(made, "base")[6:] == ["average"] * (rows - 6)


def test_equal_vocabularies_are_left_alone_only_with_equal_rows(root: Path):
    save_tokenizer(root / "same", from_tokens("abc"))
    assert tokenizer_of(root, {"base": 4, "same": 4}, base="base").vocabulary is None
    made = tokenizer_of(root, {"base": 3, "same": 4}, base="base")
    assert sources(made, "same") == ["same.0", "same.1", "same.2"]
    forced = {"tokens": {"a": {"source": "base", "force": True}}}
    assert tokenizer_of(root, {"base": 4, "same": 4}, forced, base="base").vocabulary is not None


# ------------------------------------------------------------------------------------------------ any vocabularies

TOKENS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True)


def expected(token: str, model: str, held: Mapping[str, Sequence[str]], base: str | None) -> str:
    """The rule, from the words of the documentation."""
    if token in held[model]:
        return f"{model}.{held[model].index(token)}"
    having = [name for name in held if token in held[name]]
    if len(having) == 1:
        return f"{having[0]}.{held[having[0]].index(token)}"
    if base in having:
        return f"{base}.{held[base].index(token)}"
    return "mean"


@given(st.lists(TOKENS, min_size=2, max_size=4), st.booleans(), st.data())
@settings(max_examples=40, deadline=None)
def test_every_row_follows_the_rule(vocabularies: list[list[str]], with_base: bool, data: st.DataObject):
    base = "m0" if with_base else None
    with TemporaryDirectory() as folder:
        rows = {f"m{n}": data.draw(st.integers(1, len(tokens) + 3)) for n, tokens in enumerate(vocabularies)}
        for name, tokens in zip(rows, vocabularies, strict=True):
            save_tokenizer(Path(folder) / name, from_tokens(tokens))
        made = tokenizer_of(Path(folder), rows, base=base)
    held = {name: tokens[: rows[name]] for name, tokens in zip(rows, vocabularies, strict=True)}
    if made.vocabulary is None:
        assert len({tuple(tokens) for tokens in held.values()}) == len(set(rows.values())) == 1
        return
    for name in rows:
        words = sources(made, name)
        assert words[: len(made.token_ids)] == [expected(token, name, held, base) for token in made.token_ids]
        # No row of a token is lost, and none is there twice.
        reached = {word for word in words if word.startswith(f"{name}.")}
        assert {f"{name}.{row}" for row in range(len(held[name]))} <= reached
        own = made.vocabulary.own[ModelRef(name)]
        assert [held[name][row] for row in own[own >= 0]] == [token for token in made.token_ids if token in held[name]]
