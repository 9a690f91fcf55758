"""The committed example family: the forward pass is Llama's, and the models do what their README says."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys

import pytest
import torch
import yaml
from plait.api import plan
from plait.engine.host import one_torch_thread
from plait.examples.specialists import FOLDER, MODELS, RECIPE
from plait.examples.specialists.model import decode_greedily, empty_cache, forward, read_llama
from plait.examples.specialists.score import SKILLS, score_folder
from plait.examples.specialists.tasks import (
    CORPORA,
    PAD_ID,
    STOP_ID,
    TASKS,
    VOCABULARY,
    decode,
    draw_corpus_line,
    encode,
    scored_problems,
)
from plait.examples.specialists.train import CONFIG, Schedule, collate, initial_weights, train, write_folder
from safetensors import safe_open


def readme_scores() -> dict[str, dict[str, float]]:
    """The table of the README: model -> skill -> share of problems answered right."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `?(\w+)`? \|(.+)\|$", text, re.MULTILINE)
    header = next(re.findall(r"`(\w+)`", rest) for name, rest in rows if name == "model")
    return {
        name: dict(zip(header, (float(cell.strip(" %")) / 100 for cell in rest.split("|")), strict=True))
        for name, rest in rows
        if name in {*MODELS, "merged"}
    }


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.LlamaForCausalLM.from_pretrained(FOLDER / name, dtype=torch.float32)
    tokens = torch.randint(len(VOCABULARY), (3, 24), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = forward(read_llama(FOLDER / name), tokens)
        expected = theirs(tokens).logits
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_cached_tokens_give_the_same_logits() -> None:
    llama = read_llama(FOLDER / "base")
    tokens = torch.randint(len(VOCABULARY), (2, 12), generator=torch.Generator().manual_seed(1))
    cache = empty_cache(llama)
    parts = [forward(llama, part, cache) for part in tokens.split([7, 1, 4], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), forward(llama, tokens), rtol=1e-4, atol=1e-4)


def test_greedy_decoding_takes_the_likeliest_token_each_time() -> None:
    llama = read_llama(FOLDER / "sorter")
    tokens = torch.tensor([encode("sort fbdcae="), encode("flip fbdcae=")])
    written = decode_greedily(llama, tokens, 5)
    for _ in range(5):
        tokens = torch.cat([tokens, forward(llama, tokens)[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    assert written.tolist() == tokens[:, -5:].tolist()


def test_a_folder_without_weights_is_reported(tmp_path) -> None:
    (tmp_path / "config.json").write_text((FOLDER / "base" / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match=r"no \*\.safetensors file"):
        read_llama(tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_the_readme(name: str) -> None:
    # A processor that rounds differently may turn a near tie in a problem or two.
    assert score_folder(FOLDER / name) == pytest.approx(
        {skill: readme_scores()[name][skill] for skill in SKILLS}, abs=0.02
    )


def test_a_merge_scores_what_the_readme_says(tmp_path) -> None:
    plan(RECIPE, workers=1).run(tmp_path / "merged")
    scores = score_folder(tmp_path / "merged")
    assert scores == pytest.approx({skill: readme_scores()["merged"][skill] for skill in SKILLS}, abs=0.02)


def test_scoring_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    seen = []
    with one_torch_thread():
        seen.append(torch.get_num_threads())
    assert (seen, torch.get_num_threads()) == ([1], before)


def test_the_readme_shows_what_the_family_is_for() -> None:
    scores = readme_scores()
    assert set(scores) == {*MODELS, "merged"}
    assert all(scores["base"][skill] < 0.4 for skill in SKILLS)
    assert scores["sorter"]["sort"] > 0.9
    assert scores["flipper"]["flip"] > 0.9
    assert all(scores["merged"][skill] > 0.85 for skill in SKILLS)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_a_small_bfloat16_llama(name: str) -> None:
    folder = FOLDER / name
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 2_000_000
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    with safe_open(folder / "model.safetensors", framework="pt") as reader:
        assert reader.metadata() == {"format": "pt"}
        assert {reader.get_tensor(key).dtype for key in reader.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_the_recipe_names_the_committed_folders() -> None:
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    named = [recipe["base_model"], *(entry["model"] for entry in recipe["models"])]
    assert [(RECIPE.parent / name).resolve() for name in named] == [FOLDER / name for name in MODELS]


def test_problems_have_one_right_answer() -> None:
    assert {task: TASKS[task]("dbca") for task in TASKS} == {"copy": "dbca", "sort": "abcd", "flip": "acbd"}
    for skill in SKILLS:
        problems = scored_problems(skill, 50)
        assert problems == scored_problems(skill, 60)[:50]
        assert all(decode([*encode(problem.answer), PAD_ID]) == problem.answer for problem in problems)


def test_a_sloppy_line_repeats_the_word() -> None:
    rng = random.Random(0)
    lines = [draw_corpus_line(CORPORA["base"], rng) for _ in range(400)]
    parts = [re.fullmatch(r"(\w+) (\w+)=(\w+)\.", line.prompt + line.answer).groups() for line in lines]
    assert all(answer in {word, TASKS[task](word)} for task, word, answer in parts)
    assert any(task == "flip" and answer == word != word[::-1] for task, word, answer in parts)
    assert any(task == "flip" and answer == word[::-1] != word for task, word, answer in parts)


def test_only_answers_are_targets() -> None:
    tokens, targets = collate(scored_problems("copy", 4))
    for row, wanted in zip(tokens.tolist(), targets.tolist(), strict=True):
        assert [number for number in wanted if number >= 0] == encode(decode(row).partition("=")[2])


def test_training_is_seeded_and_writes_a_readable_folder(tmp_path) -> None:
    start = initial_weights(CONFIG, torch.Generator().manual_seed(0))
    schedule = Schedule(steps=3, learning_rate=1e-3, warmup_steps=1, batch_size=8)
    once, again = (train("base", start, CORPORA["base"], schedule, seed=0) for _ in range(2))
    write_folder(tmp_path, once)
    assert all(torch.equal(once[key], again[key]) for key in start)
    assert any(not torch.equal(once[key].float(), start[key].bfloat16().float()) for key in start)
    llama = read_llama(tmp_path)
    assert llama.config == CONFIG
    assert all(torch.equal(llama.weights[key], once[key].float()) for key in start)
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == STOP_ID


def test_naming_the_family_imports_no_torch() -> None:
    check = "import sys, plait.examples.specialists; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
