"""--profile: the table adds up, the trace is in order, and the output is the same as without."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import plait
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from merge_support import plait as command
from merge_support import save_model, write_recipe
from plait.engine.trace import Track
from plait.views import profile as profile_view
from plait.views import result as result_view

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_support import Said
    from plait.merge import MergeResult

RECIPE = """
    merge_method: {method}
    base_model: base
    models:
      - {{model: ft1, parameters: {{weight: 0.5, density: 0.5}}}}
      - {{model: ft2, parameters: {{weight: 0.4, density: 0.6}}}}
    dtype: bfloat16
"""
COPY = "merge_method: passthrough\nmodels: [{model: ft1}]\n"
TRACE = "plait-trace.json.gz"
SHAPES = {f"model.layers.{layer}.mlp.up_proj.weight": (700, 512) for layer in range(3)} | {"model.norm.weight": (512,)}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for seed, name in enumerate(("base", "ft1", "ft2")):
        torch.manual_seed(seed)
        tensors = {key: (torch.randn(shape) * 0.02).to(torch.bfloat16) for key, shape in SHAPES.items()}
        save_model(tmp_path / name, tensors, {"architectures": ["Some"], "num_hidden_layers": 3})
    return tmp_path


def run(folder: Path, text: str, out: str, **given: Any) -> MergeResult:
    recipe = write_recipe(folder / "recipe.yml", text)
    return plait.plan(recipe, workers=2).run(folder / out, **given)


def trace_of(folder: Path) -> dict[str, Any]:
    with gzip.open(folder / TRACE, "rt", encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


@pytest.mark.parametrize("text", [RECIPE.format(method=method) for method in ("ties", "dare_linear", "tsv")] + [COPY])
def test_the_table_adds_up_and_has_every_op_of_the_plan(models: Path, text: str) -> None:
    result = run(models, text, "out", profile=True)
    profile = result.profile
    assert profile is not None
    assert profile.workers == 2
    total = profile.seconds * profile.workers
    assert sum(profile.activities.values()) == pytest.approx(total)
    assert all(seconds >= 0.0 for seconds in profile.activities.values())
    busy = total - profile.activities["wait"]
    assert sum(each.seconds for each in profile.ops) <= busy
    assert sum(each.seconds for each in profile.kinds) <= busy
    before_the_end = sum(seconds for stage, seconds in profile.stages.items() if stage != "finish")
    assert profile.seconds <= before_the_end <= result.seconds + 0.01
    plan = plait.plan(models / "recipe.yml", workers=2).plan
    nodes = [
        node.op.name
        for program in plan.programs.values()
        if not program.program.is_copy
        for each in program.passes
        for node in (*each.nodes, *each.conclusions)
    ]
    # What no copy could do alone goes through the workers' own memory.
    beside = {"copy", "load", "write"} if not nodes else {"check"}
    assert set(nodes) <= {each.name for each in profile.ops} <= {*nodes, *beside}
    moving = [each for each in profile.ops if each.name in ("load", "write", "copy", "cast")]
    assert moving
    assert all(each.seconds > 0 for each in moving)
    assert any(each.calls > 0 for each in moving)
    assert {each.name: each.tensors for each in profile.kinds} == {
        "model.layers.*.mlp.up_proj.weight": 3,
        "model.norm.weight": 1,
    }
    moved = {each.name: each.bytes for each in profile.ops}
    assert moved.get("load", 0) + moved.get("copy", 0) == result.bytes_read


@pytest.mark.parametrize("text", [RECIPE.format(method="ties"), COPY])
def test_the_trace_has_each_thread_in_order(models: Path, text: str) -> None:
    run(models, text, "out", profile=True)
    trace = trace_of(models / "out")
    threads: dict[int, list[dict[str, Any]]] = {}
    titles = {}
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            threads.setdefault(event["tid"], []).append(event)
        elif event["name"] == "thread_name":
            titles[event["tid"]] = event["args"]["name"]
    assert set(threads) <= set(titles)
    assert sorted(titles.values()) == [f"plait-{worker}: {what}" for worker in (0, 1) for what in ("steps", "tensors")]
    for events in threads.values():
        assert all(event["dur"] >= 0 for event in events)
        for before, after in pairwise(events):
            assert before["ts"] + before["dur"] <= after["ts"] + 1e-6
    named = {event["name"] for events in threads.values() for event in events}
    assert set(SHAPES) <= named
    counters = [event for event in trace["traceEvents"] if event["ph"] == "C"]
    assert {event["name"] for event in counters} == {"memory bytes", "bytes so far"}


def test_a_profile_changes_nothing_of_the_output(models: Path) -> None:
    text = RECIPE.format(method="ties")
    result = run(models, text, "plain")
    assert result.profile is None
    run(models, text, "timed", profile=True)
    names = {path.name for path in (models / "timed").iterdir()}
    assert names - {TRACE} == {path.name for path in (models / "plain").iterdir()}
    for name in names - {TRACE, "plait-manifest.json"}:
        assert (models / "timed" / name).read_bytes() == (models / "plain" / name).read_bytes(), name
    # The trace is no part of the model: nobody checks it, and it goes with the folder that it is of.
    manifest = json.loads((models / "timed" / "plait-manifest.json").read_text())
    assert TRACE not in [file["name"] for file in manifest["files"]]
    report = plait.verify(models / "timed", hash=True)
    assert report.ok
    assert report.warnings == 0
    (models / "timed" / TRACE).unlink()
    assert plait.verify(models / "timed").ok
    run(models, text, "timed", profile=True, overwrite=True)
    run(models, text, "timed", overwrite=True)
    assert not (models / "timed" / TRACE).exists()


def test_a_trace_that_cannot_be_written_is_a_warning(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("plait.engine.trace.gzip.open", refuse)
    result = run(models, COPY, "out", profile=True)
    assert result.profile is not None
    assert result.profile.trace is None
    assert any(TRACE in warning and "No space" in warning for warning in result.warnings)


def test_tables_fit_80_columns_and_json_has_them(models: Path) -> None:
    result = run(models, RECIPE.format(method="ties"), "out", profile=True)
    assert result.profile is not None
    lines = [line.plain for line in profile_view.page(result.profile, 80)]
    assert all(len(line) <= 80 for line in lines if TRACE not in line)
    text = "\n".join(lines)
    for word in ("reading", "kernels", "waiting for work", "load", "model.layers.*.mlp.up_proj.weight", TRACE):
        assert word in text
    everything = "\n".join(line.plain for line in profile_view.page(result.profile, None, verbose=True))
    assert all(each.name in everything for each in result.profile.ops)
    fields = json.loads(json.dumps(result_view.as_json(result)))
    assert fields["profile"]["workers"] == 2
    assert {row["name"] for row in fields["profile"]["ops"]} == {each.name for each in result.profile.ops}


def test_the_command_line_prints_the_tables(models: Path, say: Callable[..., Said]) -> None:
    recipe = write_recipe(models / "recipe.yml", RECIPE.format(method="ties"))
    finished = command("run", recipe, models / "out", "--profile", "--memory", "600MiB", cwd=models)
    assert finished.returncode == 0, finished.stderr
    assert "Where the time went" in finished.stdout
    assert "kernels" in finished.stdout
    assert (models / "out" / TRACE).exists()
    fields = say("run", recipe, models / "out", "--profile", "--json", "--overwrite", "-q").report
    assert fields["measured_peak_bytes"] <= fields["predicted_peak_bytes"]
    assert fields["profile"]["activities"]["kernels"] > 0
    assert fields["profile"]["trace"].endswith(TRACE)


@given(lengths=st.lists(st.floats(1e-6, 1.0), max_size=400), most=st.integers(8, 64))
def test_a_track_keeps_the_longest_in_order_and_no_more_than_it_may(lengths: list[float], most: int) -> None:
    track, now = Track(most), 0.0
    for code, seconds in enumerate(lengths):
        track.add(code, now, now + seconds)
        now += seconds
    kept = list(track.stretches())
    assert len(kept) <= most
    assert [code for code, _, _ in kept] == sorted(code for code, _, _ in kept)
    assert len(kept) + track.left_out == len(lengths)
    if len(lengths) <= most:
        assert len(kept) == len(lengths)
    assert all(seconds >= track.shortest_seconds * 0.999 for _, _, seconds in kept)


@given(count=st.integers(100, 1000))
def test_many_stretches_of_the_same_length_are_thinned_too(count: int) -> None:
    track = Track(32)
    for code in range(count):
        track.add(code, float(code), code + 1.0)
    assert 8 <= len(list(track.stretches())) <= 32
