"""``chat_template:`` of a recipe: which template the output has, where it has it, and what is no template."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chat_support import CHATML, WHERE, beside, put, read_json, rendered, write_json, write_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from plait.engine.errors import InputError, RecipeError
from plait.loaders.chat_template import chat_files, check_choice, marks_of, most_common, turn_ends_of

if TYPE_CHECKING:
    from pathlib import Path

TALK = [{"role": "user", "content": "a"}]
FIRST, SECOND = "{{ 'first ' ~ messages[0].content }}", "{{ 'second ' ~ messages[0].content }}"


def models(folder: Path, *chats: object) -> dict[str, Path]:
    """Models called m0, m1, …, each with a template in its tokenizer's config, or none."""
    return {f"m{n}": write_tokenizer(folder / f"m{n}", chat=chat) for n, chat in enumerate(chats)}


# ------------------------------------------------------------------------------------------------ which


@pytest.mark.parametrize(
    ("chats", "text", "source"),
    [
        ((FIRST, SECOND, SECOND), "second a", "m1"),
        ((FIRST, SECOND, FIRST), "first a", "m0"),
        ((FIRST, SECOND), "first a", "m0"),
        ((None, SECOND, FIRST), "second a", "m1"),
        ((FIRST, SECOND + "\n", f"\r\n{SECOND}", None), "second a", "m1"),
    ],
)
def test_auto_is_what_most_models_have_and_of_equals_the_donors(
    tmp_path: Path, chats: tuple[object, ...], text: str, source: str
) -> None:
    found = models(tmp_path, *chats)
    assert chat_files("auto", WHERE, found).source == source
    assert rendered(put(beside(found, "auto"), tmp_path / "out"), TALK) == text


def test_auto_sees_templates_wherever_models_keep_them(tmp_path: Path) -> None:
    found = models(tmp_path, FIRST, None, None, [{"name": "tool_use", "template": "x"}])
    (found["m1"] / "chat_template.jinja").write_text(SECOND)
    write_json(found["m2"] / "chat_template.json", {"chat_template": SECOND})
    assert chat_files("auto", WHERE, found).texts["chat_template.jinja"] == SECOND


def test_a_file_goes_before_a_key_as_in_transformers(tmp_path: Path) -> None:
    found = models(tmp_path, FIRST)
    (found["m0"] / "chat_template.jinja").write_text(SECOND)
    assert rendered(found["m0"], TALK) == "second a"
    assert rendered(put(beside(found, "auto"), tmp_path / "out"), TALK) == "second a"


def test_auto_without_any_template_says_so(tmp_path: Path) -> None:
    found = models(tmp_path, None, None)
    side = beside(found, "auto")
    assert side.texts == {}
    assert side.notes == ("chat_template: auto: no model has a chat template, so the output has none",)


@given(st.lists(st.sampled_from([None, "x", "y", "z", " y\n"]), min_size=1, max_size=8))
def test_nothing_is_more_common_than_auto(chats: list[str | None]) -> None:
    chosen = most_common({str(n): chat for n, chat in enumerate(chats)})
    same = [chat.strip() for chat in chats if chat is not None]
    assert (chosen is None) == (same == [])
    if chosen is not None:
        index = int(chosen)
        chat = chats[index]
        assert chat is not None
        count = same.count(chat.strip())
        assert all(same.count(other) <= count for other in same)
        assert all(same.count(other.strip()) < count for other in chats[:index] if other is not None)


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    text = "{# ours #}{% for message in messages %}\n<{{ message.role }}>{{ message.content }}\n{% endfor %}\n"
    out = put(beside(models(tmp_path, FIRST), text), tmp_path / "out")
    assert (out / "chat_template.jinja").read_text() == text
    assert rendered(out, [*TALK, {"role": "assistant", "content": "b"}]) == "<user>a\n<assistant>b\n"


# ------------------------------------------------------------------------------------------------ where


def test_the_output_has_a_template_once(tmp_path: Path) -> None:
    found = models(tmp_path, FIRST)
    write_json(found["m0"] / "chat_template.json", {"chat_template": FIRST})
    write_json(found["m0"] / "processor_config.json", {"processor_class": "P", "chat_template": FIRST})
    out = put(beside(found, "{{ 'new' }}"), tmp_path / "out")
    assert (out / "chat_template.jinja").read_text() == "{{ 'new' }}"
    assert not (out / "chat_template.json").exists()
    assert read_json(out / "processor_config.json") == {"processor_class": "P"}
    before, after = (read_json(folder / "tokenizer_config.json") for folder in (found["m0"], out))
    assert after == {key: value for key, value in before.items() if key != "chat_template"}
    assert list(after) == [key for key in before if key != "chat_template"]


def test_without_a_choice_everything_stays_as_it_is(tmp_path: Path) -> None:
    found = models(tmp_path, [{"name": "default", "template": FIRST}, {"name": "rag", "template": SECOND}], SECOND)
    (found["m0"] / "additional_chat_templates").mkdir()
    (found["m0"] / "additional_chat_templates" / "tool_use.jinja").write_bytes(b"{{ 'tool' }}\r\n")
    side = beside(found, None)
    assert (side.texts, side.notes) == ({}, ())
    out = put(side, tmp_path / "out")
    for name in ("tokenizer_config.json", "additional_chat_templates/tool_use.jinja"):
        assert (out / name).read_bytes() == (found["m0"] / name).read_bytes()


def test_named_templates_become_files(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    listed = [
        {"name": "default", "template": FIRST},
        {"name": "rag", "template": SECOND},
        {"name": "../../escape", "template": "x"},
        {"name": "con/../x", "template": "x"},
        "no entry",
    ]
    found = models(tmp_path, listed)
    (found["m0"] / "additional_chat_templates").mkdir()
    (found["m0"] / "additional_chat_templates" / "tool_use.jinja").write_text("{{ 'tool' }}")
    side = beside(found, "auto")
    assert set(side.texts) == {
        "chat_template.jinja",
        "additional_chat_templates/rag.jinja",
        "additional_chat_templates/tool_use.jinja",
        "tokenizer_config.json",
    }
    loaded = AutoTokenizer.from_pretrained(put(side, tmp_path / "out"))
    assert loaded.chat_template == {"default": FIRST, "rag": SECOND, "tool_use": "{{ 'tool' }}"}


def test_beside_a_new_template_the_donors_named_ones_are_kept_and_said(tmp_path: Path) -> None:
    found = models(tmp_path, {"default": FIRST, "rag": SECOND})
    side = beside(found, "mistral")
    assert side.texts["additional_chat_templates/rag.jinja"] == SECOND
    assert side.notes == ("chat_template: the templates that m0 has by name are kept: rag",)


def test_named_templates_of_another_format_go_with_it(tmp_path: Path) -> None:
    found = models(tmp_path, FIRST, SECOND, SECOND)
    (found["m0"] / "additional_chat_templates").mkdir()
    (found["m0"] / "additional_chat_templates" / "tool_use.jinja").write_text("{{ 'tool' }}")
    out = put(beside(found, "auto"), tmp_path / "out")
    assert not (out / "additional_chat_templates").exists()


def test_what_the_tokenizers_makers_changed_stays_changed(tmp_path: Path) -> None:
    found = models(tmp_path, FIRST)
    side = beside(found, "mistral", files={"tokenizer_config.json": '{"own": 1, "chat_template": "x"}'})
    assert side.texts["tokenizer_config.json"] == '{\n  "own": 1\n}\n'
    assert beside(found, None, files={"tokenizer_config.json": "{}"}).texts == {"tokenizer_config.json": "{}"}


# ------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("chatlm", "'chatlm' is neither the name of a chat template nor a Jinja template; did you mean 'chatml'?"),
        ("Llama-3", "did you mean 'llama3'?"),
        ("", "'' is neither"),
        ("x" * 500, "write one of auto, alpaca, chatml, exaone, llama3, mistral, or a template"),
        ("{# only a comment #}", "neither"),
        ("{{ a }}\n{% for m in messages %}\n", "wrong in line 2: "),
        ("ok\n\n{{ a +* b }}", "wrong in line 3: "),
        ("{{ a | capitalise }}", "wrong in line 1: there is no filter 'capitalise'"),
        ("{{ 1 }}{% if a is strong %}{% endif %}", "there is no test 'strong'"),
        ("{% if %}\x1b[31m{% endif %}", "wrong in line 1"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "nested too deeply"),
    ],
)
def test_what_is_no_template_is_a_mistake_of_the_recipe(choice: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_choice(choice, WHERE)
    assert str(caught.value).startswith("recipe.yml:7:1: chat_template: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "choice",
    [
        " chatml\n",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{% for m in range(10 ** 12) %}{{ 'x' * 10 ** 12 }}{% endfor %}",
        "{% for m in messages %}{% generation %}{{ m | tojson }}{%- endgeneration -%}{% break %}{% endfor %}",
        "{{ raise_exception('no') }}{{ strftime_now('%d') }}{% set ns = namespace(a=1) %}",
    ],
)
def test_a_template_is_read_and_not_run(choice: str) -> None:
    check_choice(choice, WHERE)


@pytest.mark.parametrize(
    "broken", [b"{", b"[]", b"\xff", b"[" * 5000, b'{"chat_template": 7}', b'{"chat_template": [1, {}]}']
)
def test_auto_takes_what_cannot_be_read_for_no_template(tmp_path: Path, broken: bytes) -> None:
    found = models(tmp_path, FIRST, SECOND)
    for name in ("tokenizer_config.json", "chat_template.json"):
        (found["m1"] / name).write_bytes(broken)
    (found["m1"] / "chat_template.jinja").write_bytes(b"\xff{{ x }}")
    assert chat_files("auto", WHERE, found).source == "m0"


def test_what_has_to_be_changed_and_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    found = models(tmp_path, FIRST)
    (found["m0"] / "tokenizer_config.json").write_text('{"chat_template": ')
    with pytest.raises(InputError, match=r"tokenizer_config\.json:1:\d+: not JSON"):
        beside(found, "mistral")


# ------------------------------------------------------------------------------------------------ special tokens


def test_tokens_that_the_tokenizer_lacks_are_named_with_a_remedy(tmp_path: Path) -> None:
    found = models(tmp_path, None)
    (note,) = beside(found, "chatml").notes
    assert "cuts <|im_start|>, <|im_end|> into pieces" in note
    assert note.endswith(
        "add them with tokenizer: {source: base, tokens: {'<|im_start|>': {source: {kind: zero}}, "
        "'<|im_end|>': {source: {kind: zero}}}}, or choose another template"
    )
    found["tuned"] = write_tokenizer(tmp_path / "tuned", CHATML)
    (note,) = beside(found, "chatml").notes
    assert "tuned has them: add them with tokenizer: {source: union}" in note
    assert beside(found, "chatml", tokenizer="tuned").notes[0].startswith("generation_config.json")
    assert beside(found, "mistral").notes == ()


def test_one_missing_of_two_is_named_alone(tmp_path: Path) -> None:
    found = {"m0": write_tokenizer(tmp_path / "m0", CHATML[:1])}
    (note,) = beside(found, "chatml").notes
    assert "cuts <|im_end|> into pieces" in note
    assert "im_start" not in note


@pytest.mark.parametrize(
    ("template", "marks", "ends"),
    [
        (
            "{{ '<|im_start|>' ~ m.role }}{# <|eot_id|> #}<|im_end|><|im_end|>",
            ["<|im_start|>", "<|im_end|>"],
            ["<|im_end|>"],
        ),
        # Here <|end|> ends a part of a turn.
        (
            "<|start|>{{ m }}<|end|><|channel|><|return|>",
            ["<|start|>", "<|end|>", "<|channel|>", "<|return|>"],
            ["<|return|>"],
        ),
        ("<|user|>{{ m }}<|end|>", ["<|user|>", "<|end|>"], ["<|end|>"]),
        ("<start_of_turn>{{ m }}<end_of_turn>", ["<start_of_turn>", "<end_of_turn>"], ["<end_of_turn>"]),
        ("<｜User｜>{{ m }}[|endofturn|]", ["<｜User｜>", "[|endofturn|]"], ["[|endofturn|]"]),
        ("{{ '<|' ~ m.role ~ '|>' }}<b>{{ a < b }}{% if a <|b|> c %}|>[INST]", ["<|b|>"], []),
    ],
)
def test_tokens_are_told_from_other_text(template: str, marks: list[str], ends: list[str]) -> None:
    assert list(marks_of(template)) == marks
    assert list(turn_ends_of(template)) == ends


def test_with_its_own_template_a_model_is_as_it_was(tmp_path: Path) -> None:
    own, new = "<|im_start|>{{ messages[0].content }}<|im_end|>", "{{ 1 }}<|im_start|><|im_end|>"
    found = {"m0": write_tokenizer(tmp_path / "m0", chat=own), "m1": write_tokenizer(tmp_path / "m1", chat=None)}
    side = beside(found, "auto")
    assert (side.notes, set(side.texts)) == ((), {"chat_template.jinja", "tokenizer_config.json"})
    found = {name: write_tokenizer(folder, CHATML, chat=own) for name, folder in found.items()}
    assert beside(found, "auto").notes == ()
    assert beside(found, new).notes == ("generation_config.json: generation stops at <|im_end|>, too",)
