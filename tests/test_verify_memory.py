"""`plait run --verify` stays within --memory: what verification holds is part of the plan."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import plait
import pytest
import torch
from merge_support import peak_bytes, save_model, write_recipe
from merge_support import plait as in_a_process
from plait.engine.errors import PlanError
from plait.engine.units import MIB
from plait.reports.verification import examine, needed_bytes

if TYPE_CHECKING:
    from pathlib import Path

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process from /proc")

TOKENS = 105_000
UNION = """\
    merge_method: linear
    base_model: m0
    models: [{model: m0, parameters: {weight: 0.5}}, {model: m1, parameters: {weight: 0.5}}]
    tokenizer: {source: union}
    dtype: bfloat16
    """


def write_vocabulary(folder: Path, tokens: int, mark: str) -> None:
    """A small model whose tokenizer has so many tokens, each of which two merges make."""
    vocabulary = {letter: number for number, letter in enumerate("0123456789abcdefö" + mark)}
    names = [f"{mark}{number:05x}ö" for number in range(tokens)]
    vocabulary |= {name: len(vocabulary) + number for number, name in enumerate(names)}
    parts = {part: None for name in names for part in (name[:3], name[3:]) if part not in vocabulary}
    vocabulary |= {part: len(vocabulary) + number for number, part in enumerate(parts)}
    save_model(
        folder,
        {"model.embed_tokens.weight": torch.rand(len(vocabulary), 8).to(torch.bfloat16)},
        {"model_type": "llama", "architectures": ["LlamaModel"], "vocab_size": len(vocabulary), "num_hidden_layers": 0},
    )
    model = {"type": "BPE", "vocab": vocabulary, "merges": [[name[:3], name[3:]] for name in names] * 2}
    document = {"version": "1.0", "added_tokens": [], "pre_tokenizer": None, "decoder": None, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


@linux
def test_a_verified_run_with_a_large_vocabulary_stays_within_its_prediction(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "m0", TOKENS, "t")
    write_vocabulary(tmp_path / "m1", 100, "u")
    recipe = write_recipe(tmp_path / "recipe.yml", UNION)
    finished = in_a_process("run", recipe, "out", "--verify", "--json", cwd=tmp_path, measured=True)
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert result["verification"]["ok"]
    assert peak_bytes(finished) <= result["predicted_peak_bytes"] * 1.001
    assert result["measured_peak_bytes"] == pytest.approx(peak_bytes(finished), rel=0.01)
    written = json.loads((tmp_path / "out" / "tokenizer.json").read_text(encoding="utf-8"))
    assert len(written["model"]["vocab"]) > TOKENS
    # A verification alone has nothing to hide behind.
    with_tokenizer = in_a_process("verify", "out", cwd=tmp_path, measured=True)
    (tmp_path / "out" / "plait-manifest.json").unlink()
    (tmp_path / "out" / "tokenizer.json").unlink()
    without = in_a_process("verify", "out", cwd=tmp_path, measured=True)
    assert (with_tokenizer.returncode, without.returncode) == (0, 0), with_tokenizer.stdout + without.stdout
    assert peak_bytes(with_tokenizer) - peak_bytes(without) < 10 * MIB


def test_a_budget_without_room_to_verify_is_refused_before_the_work(tmp_path: Path) -> None:
    names = [f"model.layers.{layer}.mlp.experts.{expert}.w.weight" for layer in range(10) for expert in range(500)]
    save_model(
        tmp_path / "base",
        {name: torch.ones(1, 1) for name in names},
        {"model_type": "llama", "architectures": ["LlamaModel"], "num_hidden_layers": 10},
    )
    recipe = write_recipe(tmp_path / "recipe.yml", "merge_method: passthrough\nmodels: [{model: base}]\n")
    dry = in_a_process("run", recipe, "--dry-run", "--json", "--workers", 1, cwd=tmp_path)
    assert dry.returncode == 0, dry.stderr
    enough = json.loads(dry.stdout)["minimum_memory_bytes"] + needed_bytes(5000) // 4
    options = ("--json", "--workers", 1, "--memory", enough)
    refused = in_a_process("run", recipe, "out", "--verify", *options, cwd=tmp_path)
    assert (refused.returncode, "is too little" in refused.stderr) == (4, True), refused.stderr
    assert not (tmp_path / "out").exists()
    assert in_a_process("run", recipe, "out", *options, cwd=tmp_path).returncode == 0


def test_a_plan_made_without_verification_is_held_to_its_budget_when_run_with_it(tmp_path: Path) -> None:
    save_model(tmp_path / "base", {"t": torch.ones(4)})
    recipe = write_recipe(tmp_path / "recipe.yml", "merge_method: passthrough\nmodels: [{model: base}]\n")
    plan = plait.plan(recipe, workers=1)
    assert plan.plan.afterwards_bytes == 0
    tight = replace(plan.plan, peak_so_far_bytes=0)
    tight = replace(tight, budget_bytes=tight.predicted_peak_bytes)
    with pytest.raises(PlanError, match="verification"):
        replace(plan, plan=tight).run(tmp_path / "out", verify=True)
    assert not (tmp_path / "out").exists()
    verified = plan.run(tmp_path / "out", verify=True)
    assert verified.predicted_peak_bytes >= plan.plan.reserved_bytes + needed_bytes(1)


def test_with_little_room_one_thread_reads_and_finds_the_same(tmp_path: Path) -> None:
    tensors = {f"t{number}": torch.rand(300, 700) for number in range(5)}
    tensors["t3"][7, 5] = torch.nan
    save_model(tmp_path / "model", tensors)
    wide, narrow = (
        examine(tmp_path / "model", digests=True, room_bytes=room_bytes, progress=None) for room_bytes in (None, 0)
    )
    assert [check.findings for check in wide.checks] == [check.findings for check in narrow.checks]
    assert wide.shards == narrow.shards
    assert not narrow.ok
