"""``tokenizer:`` from the recipe to a model that transformers loads: rows, files, bytes, memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import plait
import pytest
import torch
from checkpoints import write_family
from merge_support import file_bytes, peak_bytes, save_model, tensors_of, write_recipe
from merge_support import plait as run_plait
from plait.engine.errors import InputError, Interrupted, UsageError
from plait.views import dry_run
from tokenizer_support import byte_level
from transformers import AutoModelForCausalLM, AutoTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_support import Said
    from tokenizers import Tokenizer

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
OTHER = ("a wholly different corpus: lorem ipsum dolor sit amet, consectetur", "zażółć gęślą jaźń, λόγος, ∑∫√")
LINE = "the lazy dog: größer, λόγος 🦙<|mine|><|end|>"
RECIPE = """
    merge_method: linear
    base_model: base
    models:
      - {{model: base, parameters: {{weight: 0.5}}}}
      - {{model: ft1, parameters: {{weight: 0.5}}}}
    tokenizer: {block}
    """


def with_tokenizer(folder: Path, tokenizer: Tokenizer, extra_rows: int) -> None:
    """Give a model a tokenizer, and as many rows as that has tokens and some more."""
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((folder / "config.json").read_text())
    rows = tokenizer.get_vocab_size() + extra_rows
    tensors = tensors_of(folder)
    random = torch.Generator().manual_seed(rows)
    for name in (EMBEDDING, HEAD):
        if name in tensors:
            tensors[name] = torch.randn(rows, tensors[name].shape[1], generator=random).to(tensors[name].dtype)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    ids = {"eos_token_id": tokenizer.token_to_id("<|end|>"), "bos_token_id": None}
    save_model(folder, tensors, config | {"vocab_size": rows} | ids)


@pytest.fixture
def family(tmp_path: Path) -> Path:
    base, other = write_family(tmp_path, "tiny", finetunes=1)
    with_tokenizer(base, byte_level(400), 5)
    with_tokenizer(other, byte_level(380, corpus=OTHER, special=("<|end|>", "<|mine|>")), 0)
    return tmp_path


def expected(family: Path, name: str, tokens: dict[str, int], rows: int) -> torch.Tensor:
    """Rows of the union, token by token, from the rule alone: a model that lacks a token takes the other's row."""
    of = {
        each: (tensors_of(family / each)[name].float(), AutoTokenizer.from_pretrained(family / each).get_vocab())
        for each in ("base", "ft1")
    }
    result = torch.full((rows, of["base"][0].shape[1]), float("nan"))
    for token, row in tokens.items():
        parts = [tensor[vocab[token]] for tensor, vocab in of.values() if token in vocab]
        parts = parts if len(parts) == 2 else parts * 2
        result[row] = 0.5 * parts[0] + 0.5 * parts[1]
    return result


def test_a_union_has_every_token_and_its_row(family: Path) -> None:
    plan = plait.plan(write_recipe(family / "recipe.yml", RECIPE.format(block="{source: union}")))
    result = plan.run(family / "out", verify=True)
    assert result.verification is not None
    assert result.verification.problems == 0
    assert result.bytes_read == plan.plan.bytes_read
    loaded, info = AutoModelForCausalLM.from_pretrained(family / "out", output_loading_info=True)
    assert not any(info.values())
    tokenizer = AutoTokenizer.from_pretrained(family / "out")
    vocab = tokenizer.get_vocab()
    first = AutoTokenizer.from_pretrained(family / "base").get_vocab()
    second = AutoTokenizer.from_pretrained(family / "ft1").get_vocab()
    assert vocab.keys() == first.keys() | second.keys()
    assert {token: vocab[token] for token in first} == first
    config: dict[str, Any] = json.loads((family / "out" / "config.json").read_text())
    out = tensors_of(family / "out")
    names = [name for name in (EMBEDDING, HEAD) if name in out]
    assert names
    for name in names:
        assert out[name].shape[0] == config["vocab_size"]
        wanted = expected(family, name, vocab, config["vocab_size"])
        chosen = ~wanted.isnan().any(1)
        assert chosen.sum() == len(vocab)
        assert torch.equal(out[name][chosen], wanted[chosen].to(out[name].dtype))
    assert tokenizer.decode(tokenizer(LINE).input_ids) == LINE
    assert loaded.config.eos_token_id == vocab["<|end|>"]


@pytest.mark.parametrize(
    "block",
    [
        "{source: union, pad_to_multiple_of: 64}",
        "{source: base, tokens: {'<|mine|>': {source: ft1}}}",
        "{source: ft1, tokens: {the: {source: {kind: zero}, force: true}}}",
    ],
)
def test_any_memory_and_workers_give_the_same_bytes(family: Path, block: str) -> None:
    recipe = write_recipe(family / "recipe.yml", RECIPE.format(block=block))
    plait.plan(recipe, workers=1).run(family / "one")
    least = plait.plan(recipe).plan.minimum_bytes
    plait.plan(recipe, workers=2, memory=least).run(family / "two")
    of = {name: file_bytes(family / name) for name in ("one", "two")}
    for files in of.values():
        files.pop("plait-manifest.json")
    assert of["one"] == of["two"]
    rows = json.loads(of["one"]["config.json"])["vocab_size"]
    assert rows % 64 == 0 or "pad" not in block


def test_an_interrupted_union_goes_on_to_the_same_bytes(family: Path) -> None:
    recipe = write_recipe(family / "recipe.yml", RECIPE.format(block="{source: union}"))
    plait.plan(recipe).run(family / "whole")

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        plait.plan(recipe).run(family / "out", progress=stop)
    plait.plan(recipe).run(family / "out", resume=True)
    assert tensors_of(family / "out").keys() == tensors_of(family / "whole").keys()
    for file in (family / "whole").glob("*.safetensors"):
        assert (family / "out" / file.name).read_bytes() == file.read_bytes()


def test_a_tokenizer_that_changed_meanwhile_is_noticed(family: Path) -> None:
    recipe = write_recipe(family / "recipe.yml", RECIPE.format(block="{source: union}"))

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        plait.plan(recipe).run(family / "out", progress=stop)
    byte_level(390, special=("<|end|>",)).save(str(family / "base" / "tokenizer.json"))
    with pytest.raises(
        (InputError, UsageError), match=r"tokenizer changed since|laid out in another way|config.json changed"
    ):
        plait.plan(recipe).run(family / "out", resume=True)


def test_vocabularies_that_differ_name_the_two_lines_to_add(family: Path, say: Callable[..., Said]) -> None:
    text = RECIPE.format(block="{}").replace("tokenizer: {}", "")
    recipe = write_recipe(family / "recipe.yml", text)
    found = say("run", recipe, family / "out")
    assert found.code == 3
    first, *lines = found.err.splitlines()
    assert first.startswith("error: the vocabularies differ: rows of ")
    assert lines == ["  tokenizer:", "    source: union"]
    write_recipe(family / "recipe.yml", text + "\n".join(["", *(f"  {line}" for line in lines)]))
    measured = run_plait("run", recipe, family / "out", "--json", cwd=family, measured=True)
    assert measured.returncode == 0, measured.stderr
    assert peak_bytes(measured) <= json.loads(measured.stdout)["predicted_peak_bytes"]


@pytest.mark.parametrize(("written", "meant"), [("unoin", "union"), ("bsae", "base")])
def test_a_slip_in_whose_vocabulary_is_meant_is_told_from_a_model(family: Path, written: str, meant: str) -> None:
    text = RECIPE.format(block="{}").replace("tokenizer: {}", f"tokenizer_source: {written}")
    with pytest.raises(InputError, match=rf"model {written}: not found .*; did you mean tokenizer_source: {meant}\?$"):
        plait.plan(write_recipe(family / "slip.yml", text))


def test_a_dry_run_shows_whose_rows_are_gathered(family: Path, say: Callable[..., Said]) -> None:
    recipe = write_recipe(family / "recipe.yml", RECIPE.format(block="{source: union}"))
    found = say("run", recipe, "--dry-run", "--tensor", EMBEDDING)
    assert found.code == 0, found.err
    tree, _, reads = found.out.partition("\n  read ")
    assert tree.count("gather A B ") == 2
    assert [f"{mark} {EMBEDDING}" in reads for mark in "AB"] == [True, True]
    merge = plait.plan(recipe)
    rows = merge.plan.island_of(EMBEDDING).spec.shape[0]
    assert f" {rows} vocabulary rows, " in next(dry_run.page(merge, None, free_disk_bytes=1)).plain


def test_the_rows_that_a_model_lends_are_counted(family: Path) -> None:
    block = (
        "{source: base, tokens: {'<|mine|>': {source: ft1}, zo: {source: {kind: model_token, model: ft1, token: c}}}}"
    )
    text = f"merge_method: passthrough\nmodels: [{{model: base}}]\ntokenizer: {block}\n"
    plait.plan(write_recipe(family / "recipe.yml", text)).run(family / "out")
    base, lender = json.loads((family / "out" / "plait-manifest.json").read_text())["inputs"]
    # Two tokens; five rows of padding in the base, of which two give way to them.
    rows = byte_level(400).get_vocab_size() + 5
    assert {(each["used"], each["of"]) for each in base["rows"]} == {(rows - 2, rows)}
    other_rows = tensors_of(family / "ft1")[EMBEDDING].shape[0]
    assert {"name": EMBEDDING, "used": 2, "of": other_rows} in lender["rows"]
    (unused,) = lender["unused"]
    assert (unused["why"], unused["tensors"]) == ("lender", lender["tensors"] - len(lender["rows"]))
    (said,) = [check.said for check in plait.verify(family / "out").checks if check.name == "inputs"]
    assert f"2 of {other_rows} rows of" in said
    assert f"{unused['tensors']} of them unused, and explained" in said


@pytest.mark.parametrize("block", ["{source: union}", "{source: ft1}"])
def test_the_disk_that_a_run_needs_counts_the_tokenizer(family: Path, block: str) -> None:
    for name in ("base", "ft1"):  # as large as the tokenizers of large models
        settings = json.loads((family / name / "tokenizer_config.json").read_text())
        settings["chat_template"] = "{# " + "x" * 3_000_000 + " #}"
        (family / name / "tokenizer_config.json").write_text(json.dumps(settings))
    plan = plait.plan(write_recipe(family / "recipe.yml", RECIPE.format(block=block)))
    plan.run(family / "out")
    taken_bytes = sum(file.stat().st_size for file in (family / "out").iterdir())
    assert taken_bytes <= plan.disk_needed_bytes <= taken_bytes + (2 << 20)
