"""``chat_template:`` from the recipe to a model that transformers loads and talks with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import plait
import pytest
from chat_support import CHATML, rendered, write_tokenizer
from checkpoints import write_family
from merge_support import file_bytes, write_recipe
from plait.engine.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

OWN = "{{ 'own ' ~ messages[0].content }}"
MOST = "{{ 'most ' ~ messages[0].content }}"
RECIPE = """
    merge_method: linear
    models:
      - {{model: base, parameters: {{weight: 0.5}}}}
      - {{model: ft1, parameters: {{weight: 0.25}}}}
      - {{model: ft2, parameters: {{weight: 0.25}}}}
    chat_template: {choice}
    """
TALK = [{"role": "user", "content": "a"}]


@pytest.fixture
def family(tmp_path: Path) -> Path:
    for name, folder in zip(("base", "ft1", "ft2"), write_family(tmp_path, "tiny", finetunes=2), strict=True):
        write_tokenizer(folder, CHATML, chat=OWN if name == "base" else MOST)
    return tmp_path


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ("auto", "most a"),
        ("chatml", "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"),
        ("'{{ bos_token }}!'", "<s>!"),
    ],
)
def test_a_merged_model_talks_in_the_chosen_format(family: Path, choice: str, text: str) -> None:
    recipe = write_recipe(family / "recipe.yml", RECIPE.format(choice=choice))
    plan = plait.plan(recipe)
    plan.run(family / "out")
    assert rendered(family / "out", TALK) == text
    assert "chat_template" not in json.loads((family / "out" / "tokenizer_config.json").read_text())
    stops = ("generation_config.json: generation stops at <|im_end|>, too",) if choice == "chatml" else ()
    assert plan.warnings[len(plan.warnings) - len(stops) :] == stops
    generation = family / "out" / "generation_config.json"
    assert (json.loads(generation.read_text())["eos_token_id"] if stops else None) == ([2, 7] if stops else None)
    assert f"Chat template: {'as in the recipe' if '{' in choice else f'`{choice}`'}" in card(family / "out")


def card(out: Path) -> str:
    return (out / "README.md").read_text(encoding="utf-8")


def test_named_templates_go_and_come_with_an_overwritten_folder(family: Path) -> None:
    recipe = write_recipe(family / "recipe.yml", RECIPE.format(choice="mistral"))
    (family / "base" / "additional_chat_templates").mkdir()
    (family / "base" / "additional_chat_templates" / "rag.jinja").write_text("x")
    plait.plan(recipe).run(family / "out")
    assert file_bytes(family / "out" / "additional_chat_templates") == {"rag.jinja": b"x"}
    (family / "base" / "additional_chat_templates" / "rag.jinja").unlink()
    plait.plan(recipe).run(family / "out", overwrite=True)
    assert not (family / "out" / "additional_chat_templates").exists()


def test_a_wrong_template_is_told_before_any_model_is_opened(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yml", RECIPE.format(choice="chatlm"))
    with pytest.raises(RecipeError, match=r"recipe\.yml:7:1: chat_template: .* did you mean 'chatml'"):
        plait.plan(recipe)
