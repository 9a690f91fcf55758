"""Ids in config.json and generation_config.json: every one is in the output's vocabulary, or said to be gone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plait.loaders.generation import TokenIds, Vocabulary, follow_vocabulary

NAMES = {"eos_token": "</s>", "bos_token": "<s>"}


def follow(
    config: dict[str, Any], generation: dict[str, Any] | None = None, *, turn_ends: tuple[str, ...] = (), **known: Any
) -> TokenIds:
    return follow_vocabulary(config, generation, Vocabulary(**known), special_tokens=NAMES, turn_ends=turn_ends)


# ------------------------------------------------------------------------------------------------ the donor's numbers


def test_nothing_changes_where_nothing_has_to() -> None:
    config = {"eos_token_id": [2, 3], "vocab_size": 8, "pad_token_id": -1, "bos_token_id": None}
    made = follow(config, {"eos_token_id": 2, "suppress_tokens": [99]}, ids={"</s>": 2})
    assert made == TokenIds(config, {"eos_token_id": 2, "suppress_tokens": [99]}, ())
    assert follow({}, None) == TokenIds({}, None, ())


def test_an_end_of_text_beyond_the_vocabulary_is_left_out() -> None:
    made = follow({"eos_token_id": [2, 99], "vocab_size": 8}, {"eos_token_id": 8, "max_length": 9})
    assert made.config == {"eos_token_id": [2], "vocab_size": 8}
    assert made.generation == {"eos_token_id": None, "max_length": 9}
    assert made.notes == (
        "config.json: eos_token_id 99 is left out: the vocabulary ends at 8",
        "generation_config.json: eos_token_id 8 is left out: the vocabulary ends at 8",
    )
    assert follow({"eos_token_id": 8, "vocab_size": 8}, rows=16).notes == ()
    assert follow({"eos_token_id": 7, "vocab_size": 8}, rows=4).config["eos_token_id"] is None


def test_a_list_of_ends_that_would_be_empty_stays() -> None:
    made = follow({"eos_token_id": [98, 99], "vocab_size": 8})
    assert made.config["eos_token_id"] == [98, 99]
    assert made.notes == (
        "config.json: eos_token_id 98, 99 is beyond the vocabulary, which ends at 8, and is left as it was",
    )


# ------------------------------------------------------------------------------------------------ other numbers

OLD = {0: None, 1: 11, 2: 12, 3: 13, 4: None}
NEW = {"<s>": 11, "</s>": 12, "<image>": 13}


def test_ids_follow_their_tokens() -> None:
    config = {
        "bos_token_id": 1,
        "eos_token_id": [2],
        "image_token_index": 3,
        "pad_token_id": -1,
        "hidden_size": 2,
        "text_config": {"eos_token_id": 2, "num_attention_heads": 2},
        "vision_config": {"eos_token_id": 2, "image_token_id": 3},
    }
    generation = {"eos_token_id": 2, "suppress_tokens": [1, 3], "bad_words_ids": [[1], [1, 2]], "top_k": 3}
    made = follow(config, generation, ids=NEW, donor_ids=OLD)
    assert made.config == {
        "bos_token_id": 11,
        "eos_token_id": [12],
        "image_token_index": 13,
        "pad_token_id": -1,
        "hidden_size": 2,
        "text_config": {"eos_token_id": 12, "num_attention_heads": 2},
        "vision_config": {"eos_token_id": 2, "image_token_id": 3},
    }
    assert made.generation == {
        "eos_token_id": 12,
        "suppress_tokens": [11, 13],
        "bad_words_ids": [[11], [11, 12]],
        "top_k": 3,
    }
    assert made.notes == ()
    assert config["bos_token_id"] == 1, "what was given is not changed"


def test_a_token_that_is_gone_is_replaced_by_the_tokenizers_own_or_by_none() -> None:
    made = follow(
        {"eos_token_id": 4, "pad_token_id": 0, "decoder_start_token_id": 9, "audio_token_id": 4},
        {"eos_token_id": [4, 2], "suppress_tokens": [0, 1], "bad_words_ids": [[0, 1], [1]]},
        ids=NEW,
        donor_ids=OLD,
    )
    assert made.config == {
        "eos_token_id": 12,
        "pad_token_id": None,
        "decoder_start_token_id": None,
        # Nobody can say which one it is now; a number is needed.
        "audio_token_id": 4,
    }
    assert made.generation == {"eos_token_id": [12], "suppress_tokens": [11], "bad_words_ids": [[11]]}
    assert "config.json: eos_token_id 4 has no token in the output's tokenizer; it is 12 now" in made.notes
    assert "config.json: pad_token_id 0 has no token in the output's tokenizer; it is none now" in made.notes
    assert "config.json: audio_token_id 4 has no token in the output's tokenizer, and is left as it was" in made.notes


def test_the_tokenizers_own_end_of_text_ends_a_generation() -> None:
    old, new = {7: 5}, {"</s>": 2, "<|im_end|>": 5}
    made = follow({"eos_token_id": 7}, {"eos_token_id": 7}, ids=new, donor_ids=old)
    assert made.config == {"eos_token_id": 5}
    assert made.generation == {"eos_token_id": [5, 2]}
    assert made.notes == ("generation_config.json: generation stops at </s>, too",)


_IDS = st.integers(-1, 30)
_VALUES = st.one_of(_IDS, st.none(), st.lists(_IDS, max_size=4), st.lists(st.lists(_IDS, max_size=3), max_size=3))
_KEYS = st.sampled_from(["eos_token_id", "bos_token_id", "suppress_tokens", "bad_words_ids", "image_token_id", "top_k"])


@given(
    st.dictionaries(_KEYS, _VALUES),
    st.dictionaries(st.integers(0, 30), st.none() | st.integers(100, 120)),
    st.integers(100, 120),
)
def test_every_id_is_one_of_the_outputs_afterwards(
    config: dict[str, Any], new: dict[int, int | None], end_of_text: int
) -> None:
    made = follow(config, ids={"</s>": end_of_text}, donor_ids=new)
    for key, value in made.config.items():
        said = [note for note in made.notes if note.startswith(f"config.json: {key} ")]
        if key == "top_k" or (said and said[0].endswith("left as it was")):
            assert value == config[key]
        else:
            assert all(number < 0 or number in {*new.values(), end_of_text} for number in flat(value))
            assert len(flat(value)) <= len(flat(config[key]))


def flat(value: Any) -> list[int]:
    if isinstance(value, list):
        return [number for each in value for number in flat(each)]
    return [] if value is None else [value]


# ------------------------------------------------------------------------------------------------ ends of turns


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"eos_token_id": 2}, {"eos_token_id": [2, 5]}),
        ({"eos_token_id": [2, 5]}, {"eos_token_id": [2, 5]}),
        ({"eos_token_id": 5}, {"eos_token_id": 5}),
        ({"eos_token_id": None, "top_k": 1}, {"eos_token_id": 5, "top_k": 1}),
        ({}, {"eos_token_id": 5}),
        (None, {"bos_token_id": 1, "eos_token_id": [2, 5]}),
    ],
)
def test_a_generation_stops_where_the_template_ends_a_turn(
    before: dict[str, Any] | None, after: dict[str, Any]
) -> None:
    config = {"bos_token_id": 1, "eos_token_id": 2, "hidden_size": 8}
    made = follow(config, before, ids={"<|im_end|>": 5}, turn_ends=("<|im_end|>", "<|absent|>"))
    assert made.generation == after
    assert made.config == config
    assert made.notes == (() if before == after else ("generation_config.json: generation stops at <|im_end|>, too",))


def test_a_nested_config_gives_the_first_end_of_text() -> None:
    made = follow({"text_config": {"eos_token_id": 2}}, ids={"<|im_end|>": 5}, turn_ends=("<|im_end|>",))
    assert made.generation == {"eos_token_id": [2, 5]}


def test_a_config_that_stops_there_needs_no_second_file() -> None:
    assert follow({"eos_token_id": [2, 5]}, ids={"<|im_end|>": 5}, turn_ends=("<|im_end|>",)).generation is None
