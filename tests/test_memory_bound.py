"""The promise: a process stays within --memory, and the plan says beforehand how much it will take.

Each run has a process of its own, whose peak the operating system counts. Its tensors are tens of megabytes, so that
one of them held whole would show.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import Shape, write_family
from merge_support import peak_bytes, plait, write_recipe
from plait.engine.units import MIB, parse_size

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = Shape(hidden=1024, intermediate=4096, layers=3, heads=8, kv_heads=4, vocabulary=24000, tied=True)
RECIPES = {
    "dare_ties": """
        merge_method: dare_ties
        base_model: base
        models:
          - {model: ft1, parameters: {weight: 0.6, density: 0.5}}
          - {model: ft2, parameters: {weight: 0.3, density: 0.5}}
        dtype: bfloat16
        """,
    "two_passes": """
        merge_method: dare_linear
        base_model: base
        models:
          - {model: ft1, parameters: {weight: 0.6, density: 0.5}}
          - {model: ft2, parameters: {weight: 0.3, density: 0.5}}
        parameters: {rescale: l1}
        dtype: float32
        """,
    "iso_c": """
        merge_method: iso_c
        base_model: base
        slices:
          - sources:
              - {model: base, layer_range: [0, 1]}
              - {model: ft1, layer_range: [0, 1]}
              - {model: ft2, layer_range: [0, 1]}
        dtype: bfloat16
        """,
    "copy": """
        merge_method: passthrough
        slices: [{sources: [{model: ft1, layer_range: [0, 3]}]}, {sources: [{model: ft1, layer_range: [2, 3]}]}]
        """,
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two fine-tunes of 140 MB each, and the recipes."""
    folder = tmp_path_factory.mktemp("family")
    write_family(folder, SHAPE, finetunes=2)
    for name, text in RECIPES.items():
        write_recipe(folder / f"{name}.yml", text)
    return folder


def report_of(stdout: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stdout)
    return found


@pytest.mark.parametrize(
    ("recipe", "budget", "workers"),
    [
        ("dare_ties", "300MiB", 2),
        ("dare_ties", "2GiB", 4),
        ("two_passes", "300MiB", 2),
        ("copy", "300MiB", 2),
        ("iso_c", "450MiB", 2),
    ],
)
def test_the_peak_is_within_the_prediction_and_that_within_the_budget(
    family: Path, tmp_path: Path, recipe: str, budget: str, workers: int
) -> None:
    options = ("--memory", budget, "--workers", workers, "--json")
    finished = plait("run", f"{recipe}.yml", tmp_path / "out", *options, cwd=family, measured=True)
    assert finished.returncode == 0, finished.stderr
    result = report_of(finished.stdout)
    # What the process measures itself is what the system saw; reporting comes a little after measuring.
    assert result["measured_peak_bytes"] == pytest.approx(peak_bytes(finished), rel=0.01)
    assert peak_bytes(finished) <= result["predicted_peak_bytes"] <= parse_size(budget)
    assert result["predicted_peak_bytes"] <= 1.15 * peak_bytes(finished)
    assert result["reserved_bytes"] < result["measured_peak_bytes"]


def test_the_dry_run_says_what_the_run_does(family: Path, tmp_path: Path) -> None:
    options = ("--workers", 2, "--shard-size", "60MB", "--json", "--memory")
    dry = plait("run", "two_passes.yml", "--dry-run", *options, "290MiB", cwd=family)
    # Not where one size of tiles only just fits: there a few pages more make another plan.
    options = (*options, report_of(dry.stdout)["predicted_peak_bytes"] + 6 * MIB)
    dry = plait("run", "two_passes.yml", "--dry-run", *options, cwd=family)
    run = plait("run", "two_passes.yml", tmp_path / "out", *options, cwd=family)
    assert (dry.returncode, run.returncode) == (0, 0), dry.stderr + run.stderr
    planned, done = report_of(dry.stdout), report_of(run.stdout)
    for key in ("bytes_read", "bytes_written", "tensors", "passes", "shards"):
        assert planned[key] == done[key], key
    assert done["passes"] == 2
    assert len(done["shards"]) > 3
    assert planned["predicted_peak_bytes"] == pytest.approx(done["predicted_peak_bytes"], rel=0.02)
    written = sum(file.stat().st_size for file in (tmp_path / "out").glob("*.safetensors"))
    assert done["bytes_written"] == written
    everything = sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert everything <= planned["disk_needed_bytes"] <= everything + (2 << 20)
    assert planned["minimum_memory_bytes"] <= parse_size("300MiB")
