"""Several processes at one merge: the bytes of one, whatever becomes of them on the way."""

from __future__ import annotations

import json
import random
import signal
import sys
from itertools import chain
from typing import TYPE_CHECKING, Any

import plait
import pytest
from merge_support import file_bytes
from merge_support import plait as in_a_process
from plait.engine.errors import InputError, OutputError, ProcessError, UsageError
from plait.loaders.folder import journal_of, journals_of_others
from processes_support import as_threads, finish, has_ended, interrupt, reports, start
from resume_support import JOURNAL, MANIFEST, SHARD_BYTES, assert_no_model, contents, left_over, merge, write_inputs

if TYPE_CHECKING:
    from pathlib import Path

KILLED = getattr(signal, "SIGKILL", signal.SIGTERM)


def manifest(out: Path) -> dict[str, Any]:
    found = json.loads((out / MANIFEST).read_text())
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, a recipe, and what comes of it in one process."""
    folder = write_inputs(tmp_path_factory.mktemp("shared"), "ties")
    merge(folder, "expected")
    return folder


def linked(shared: Path, folder: Path) -> Path:
    """The same inputs in another folder."""
    for name in ("family", "recipe.yml"):
        (folder / name).symlink_to(shared / name)
    return folder


# ------------------------------------------------------------------------------------------------ the same bytes


def test_two_processes_make_the_folder_that_one_makes(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared, tmp_path)
    options = ("--shard-size", str(SHARD_BYTES), "--json", "-q")
    finished = in_a_process("run", "recipe.yml", "out", *options, "--processes", 2, cwd=folder)
    assert (finished.returncode, finished.stderr) == (0, "")
    report = json.loads(finished.stdout)
    assert contents(folder / "out") == contents(shared / "expected")
    found = manifest(folder / "out")
    assert report["processes"] == found["processes"]
    assert [process["process"] for process in found["processes"]] == [0, 1]
    shards = [set(process["shards"]) for process in found["processes"]]
    assert all(shards)
    assert sorted(chain(*shards)) == [shard["name"] for shard in found["shards"]]
    for figure in ("bytes_written", "measured_peak_bytes", "predicted_peak_bytes"):
        assert report[figure] == sum(process[figure] for process in found["processes"])
    assert report["bytes_read"] == merge(shared, "again").bytes_read
    assert report["bytes_written"] == sum(shard["bytes"] for shard in report["shards"])
    assert plait.verify(folder / "out").ok


@pytest.mark.parametrize("processes", [2, 3, 6, 9])
def test_any_number_of_processes_makes_the_same(shared: Path, tmp_path: Path, processes: int) -> None:
    folder, seen = linked(shared, tmp_path), []
    with as_threads():
        result = merge(folder, processes=processes, progress=seen.append)
    assert contents(folder / "out") == contents(shared / "expected")
    assert len(result.processes) == min(processes, len(result.shards))
    assert left_over() == []
    final = seen[-1]
    assert (final.share, final.tensors_done) == (1.0, final.tensors_total)
    assert final.bytes_read + final.bytes_written == final.bytes_total


def test_a_folder_is_replaced_by_several_processes_too(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared, tmp_path)
    merge(folder, seed=9)
    (folder / "out" / "notes.txt").write_text("mine")
    assert interrupt(folder, 200, processes=2, overwrite=True)
    with as_threads():
        merge(folder, processes=3, overwrite=True, resume=True)
    found = contents(folder / "out")
    assert found.pop("notes.txt") == b"mine"
    assert found == contents(shared / "expected")
    assert not (folder / "out.plait-new").exists()


# ------------------------------------------------------------------------------------------------ going on


@pytest.mark.usefixtures("quick_batches")
@pytest.mark.parametrize("seed", range(8))
def test_any_mixture_of_interrupted_runs_ends_in_the_same_bytes(shared: Path, tmp_path: Path, seed: int) -> None:
    folder, draw = linked(shared, tmp_path), random.Random(seed)
    for _ in range(draw.randint(1, 4)):
        stopped = interrupt(folder, draw.randint(1, 250), processes=draw.choice((1, 2, 4)), resume=True)
        if not stopped:
            break
        assert_no_model(folder / "out")
        assert not list((folder / "out").glob("plait-process-*"))
    else:
        with as_threads():
            result = merge(folder, processes=draw.choice((1, 2, 4)), resume=True)
        assert result.resumed
    assert contents(folder / "out") == contents(shared / "expected")
    assert left_over() == []


@pytest.mark.usefixtures("quick_batches")
def test_nothing_that_processes_finished_is_done_again(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared, tmp_path)
    whole = merge(folder, "whole")
    assert interrupt(folder, 400, processes=4)
    kept = [journal_of(folder / "out", number) for number in (1, 2, 3)]
    assert journals_of_others(folder / "out") == kept
    result = merge(folder, resume=True)
    assert result.bytes_written < 0.6 * whole.bytes_written
    assert not any("again" in warning for warning in result.warnings)
    assert contents(folder / "out") == contents(shared / "expected")


@pytest.mark.usefixtures("quick_batches")
def test_a_journal_of_an_earlier_run_does_not_count(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared, tmp_path)
    assert interrupt(folder, 250, processes=2)
    stale = journal_of(folder / "out", 1).read_bytes()
    assert interrupt(folder, 1, resume=True)
    for path in (folder / "out").glob("*.safetensors*"):
        path.unlink()
    journal_of(folder / "out", 1).write_bytes(stale)
    merge(folder, resume=True)
    assert contents(folder / "out") == contents(shared / "expected")


@pytest.mark.usefixtures("quick_batches")
@pytest.mark.parametrize("seed", range(4))
def test_tensors_that_several_processes_write_go_on_too(tmp_path: Path, seed: int) -> None:
    """Layers are repeated, so that a tensor is in shards of several processes; and some of it overflows."""
    folder, draw = write_inputs(tmp_path), random.Random(seed)
    models = "[{model: family/ft1, parameters: {weight: 1.0}}, {model: family/ft2, parameters: {weight: 1.0e+7}}]"
    slices = ", ".join(
        f"{{sources: [{{model: family/ft1, layer_range: [{lo}, {hi}]}}, {{model: family/ft2, layer_range: [{lo}, {hi}]}}]}}"
        for lo, hi in ((0, 3), (1, 4), (0, 2))
    )
    assert models
    (folder / "recipe.yml").write_text(
        f"{{merge_method: linear, slices: [{slices}], parameters: {{weight: 1.0e+6, normalize: false}}, dtype: float16}}"
    )
    expected = merge(folder, "whole")
    assert any("became infinity" in warning for warning in expected.warnings)
    while interrupt(folder, draw.randint(10, 150), processes=draw.choice((1, 2, 4)), resume=True):
        pass
    if (folder / "out" / JOURNAL).exists():
        merge(folder, resume=True)
    assert contents(folder / "out") == contents(folder / "whole")
    assert manifest(folder / "out")["overflows"] == manifest(folder / "whole")["overflows"]


# ------------------------------------------------------------------------------------------------ deaths


def kill_one(shared: Path, folder: Path, seed: int) -> None:
    """Kill one of several processes at a random moment, and go on."""
    draw = random.Random(seed)
    process = start(linked(shared, folder), "--processes", str(draw.choice((2, 3))))
    victim = draw.choice(reports(folder / "out", (0, 1)))
    others = [report.pid for report in reports(folder / "out", (0, 1)) if report.pid != victim.pid]
    import os
    import time

    time.sleep(draw.random() * 0.5)
    os.kill(victim.pid, KILLED)
    _, said = process.communicate(timeout=60)
    assert all(has_ended(pid) for pid in others)
    if process.returncode != 0:
        assert_no_model(folder / "out")
        if victim.process:
            assert process.returncode == 4, said
            assert f"process {victim.process} was ended by SIGKILL" in said
            assert "is done and kept; go on with: plait run" in said
            assert "Traceback" not in said
        finish(folder, "--processes", str(draw.choice((1, 2))))
    assert contents(folder / "out") == contents(shared / "expected")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("seed", [1, 2])
def test_killing_a_process_loses_nothing(shared: Path, tmp_path: Path, seed: int) -> None:
    kill_one(shared, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("seed", range(100, 120))
def test_killing_any_process_loses_nothing(shared: Path, tmp_path: Path, seed: int) -> None:
    kill_one(shared, tmp_path, seed)
