"""What stands beside the weights: where each file comes from, and that transformers takes all of it without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chat_support import CHATML, CONFIG, beside, put, write_json, write_tokenizer
from plait.engine.errors import InputError
from plait.loaders.chat_formats import FORMATS
from plait.loaders.generation import Vocabulary
from plait.loaders.special_tokens import added_tokens, special_tokens

if TYPE_CHECKING:
    from pathlib import Path

TALK = [{"role": "user", "content": "a b"}]


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """A donor without and a fine-tune with the tokens of ChatML, both with files of every kind."""
    found = {"base": write_tokenizer(tmp_path / "base"), "tuned": write_tokenizer(tmp_path / "tuned", CHATML)}
    for name, folder in found.items():
        write_json(folder / "generation_config.json", {"eos_token_id": 2, "do_sample": True, "top_k": len(name)})
        write_json(folder / "preprocessor_config.json", {"of": name})
        (folder / "modeling_own.py").write_text(f"# {name}\n")
        (folder / f"tokenization_{name}.py").write_text("# a tokenizer\n")
        (folder / "README.md").write_text("# a card\n")
    return found


def test_everything_is_the_donors(models: dict[str, Path], tmp_path: Path) -> None:
    side = beside(models, None)
    assert (side.texts, side.config, side.notes) == ({}, CONFIG, ())
    assert {path.parent for path in side.copies.values()} == {tmp_path / "base"}
    assert set(side.copies) == {
        *("tokenizer.json", "tokenizer_config.json", "generation_config.json", "preprocessor_config.json"),
        *("modeling_own.py", "tokenization_base.py"),
    }


def test_a_tokenizer_comes_whole_from_its_model(models: dict[str, Path], tmp_path: Path) -> None:
    (models["base"] / "added_tokens.json").write_text("{}")
    (models["tuned"] / "additional_chat_templates").mkdir()
    (models["tuned"] / "additional_chat_templates" / "rag.jinja").write_text("x")
    side = beside(models, None, tokenizer="tuned")
    sources = {name: path.relative_to(tmp_path).parts[0] for name, path in side.copies.items()}
    assert sources == {
        "tokenizer.json": "tuned",
        "tokenizer_config.json": "tuned",
        "tokenization_tuned.py": "tuned",
        "additional_chat_templates/rag.jinja": "tuned",
        "generation_config.json": "base",
        "preprocessor_config.json": "base",
        "modeling_own.py": "base",
    }


def test_a_processor_stays_the_donors_without_its_template(models: dict[str, Path]) -> None:
    for name, folder in models.items():
        write_json(folder / "processor_config.json", {"of": name, "chat_template": "x"})
    side = beside(models, "mistral", tokenizer="tuned")
    assert side.texts["processor_config.json"] == '{\n  "of": "base"\n}\n'


def test_what_is_written_or_left_out_is_not_copied(models: dict[str, Path]) -> None:
    (models["base"] / "tokenizer.model").write_bytes(b"x")
    side = beside(models, None, files={"tokenizer.json": "{}"}, left_out=["tokenizer.model"])
    assert side.texts == {"tokenizer.json": "{}"}
    assert not {"tokenizer.json", "tokenizer.model"} & set(side.copies)


def test_a_generation_config_that_cannot_be_read_is_copied_unless_it_has_to_change(models: dict[str, Path]) -> None:
    (models["base"] / "generation_config.json").write_text("")
    assert "generation_config.json" in beside(models, None).copies
    assert "generation_config.json" in beside(models, "mistral").copies
    with pytest.raises(InputError, match=r"generation_config\.json"):
        beside(models, "chatml", tokenizer="tuned")


def test_a_vocabulary_in_other_numbers(models: dict[str, Path]) -> None:
    known = Vocabulary({"<s>": 5, "</s>": 6}, 64, {1: 5, 2: 6})
    side = beside(models, None, vocabulary=known)
    assert side.config == CONFIG | {"bos_token_id": 5, "eos_token_id": 6}
    assert side.texts["generation_config.json"] == ('{\n  "eos_token_id": 6,\n  "do_sample": true,\n  "top_k": 4\n}\n')


@pytest.mark.parametrize("place", ["tokenizer.json", "tokenizer_config.json", "added_tokens.json", "texts"])
def test_added_tokens_are_found_wherever_they_are_listed(tmp_path: Path, place: str) -> None:
    entries = {
        "tokenizer.json": {"version": "1.0", "added_tokens": [{"id": 7, "content": "<x>"}, {"id": "no"}, 3]},
        "tokenizer_config.json": {"added_tokens_decoder": {"7": {"content": "<x>"}, "x": {"content": "<y>"}, "8": 1}},
        "added_tokens.json": {"<x>": 7, "<y>": "no"},
    }
    if place == "texts":
        assert added_tokens(tmp_path, {"tokenizer.json": '{"added_tokens": [{"id": 7, "content": "<x>"}]}'}) == {
            "<x>": 7
        }
        return
    write_json(tmp_path / place, entries[place])
    assert added_tokens(tmp_path) == {"<x>": 7}


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 10_000, b'{"added_tokens": [{"id": 1', b"\xff" * 100])
def test_a_tokenizer_that_cannot_be_read_has_no_known_tokens(tmp_path: Path, data: bytes) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"):
        (tmp_path / name).write_bytes(data)
    assert added_tokens(tmp_path) is None
    assert special_tokens(tmp_path) == {}


def test_special_tokens_are_read_from_both_files(tmp_path: Path) -> None:
    write_json(tmp_path / "special_tokens_map.json", {"eos_token": {"content": "<e>"}, "bos_token": "<b>"})
    write_json(tmp_path / "tokenizer_config.json", {"bos_token": "<s>", "pad_token": None, "add_bos_token": True})
    assert special_tokens(tmp_path) == {"eos_token": "<e>", "bos_token": "<s>"}


# ------------------------------------------------------------------------------------------------ in transformers


@pytest.mark.parametrize(
    "choice", [None, "auto", *FORMATS, "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"]
)
def test_transformers_loads_it_without_a_word(
    models: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], choice: str | None
) -> None:
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    out = put(beside(models, choice, tokenizer="tuned"), tmp_path / "out")
    (out / "tokenization_tuned.py").unlink()
    tokenizer = AutoTokenizer.from_pretrained(out)
    config, generation = AutoConfig.from_pretrained(out), GenerationConfig.from_pretrained(out)
    assert (config.eos_token_id, tokenizer.eos_token_id) == (2, 2)
    stops = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    assert stops == ([2, 7] if choice == "chatml" else [2])
    if choice not in (None, "auto"):
        ids = tokenizer.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False)
        assert tokenizer.convert_ids_to_tokens(ids).count("<|im_start|>") == (2 if choice == "chatml" else 0)
    assert capfd.readouterr().err == ""
