"""Several processes at one merge: the bytes of one, whatever becomes of them on the way."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import plait
import pytest
from merge_support import plait as in_a_process
from merge_support import save_model, tensors_of
from plait.engine.errors import PlanError, ProcessError, UsageError
from plait.engine.units import format_seconds
from plait.loaders.folder import journal_of, journals_of_others
from plait.views.report_facts import Fact, facts_of
from processes_support import as_threads, interrupt, linked
from resume_support import JOURNAL, MANIFEST, SHARD_BYTES, assert_no_model, contents, left_over, merge, write_inputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from plait.runs.job import Job


def manifest(out: Path) -> dict[str, Any]:
    found = json.loads((out / MANIFEST).read_text())
    assert isinstance(found, dict)
    return found


# ------------------------------------------------------------------------------------------------ the same bytes


def test_two_processes_make_the_folder_that_one_makes_in_the_memory_they_get(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared, tmp_path)
    options = ("--shard-size", str(SHARD_BYTES), "--json", "-q", "--processes", 2)
    planned = json.loads(in_a_process("run", "recipe.yml", "--dry-run", *options, cwd=folder).stdout)
    bound_bytes = planned["minimum_memory_bytes"]
    finished = in_a_process("run", "recipe.yml", "out", *options, "--memory", bound_bytes, cwd=folder)
    assert (finished.returncode, finished.stderr) == (0, "")
    report = json.loads(finished.stdout)
    assert contents(folder / "out") == contents(shared / "expected")
    assert report["measured_peak_bytes"] <= report["predicted_peak_bytes"] <= bound_bytes
    assert all(report[figure] == planned[figure] for figure in ("bytes_read", "bytes_written", "shards"))
    found = manifest(folder / "out")
    assert report["processes"] == found["processes"]
    assert [process["process"] for process in found["processes"]] == [0, 1]
    shards = [process["shards"] for process in found["processes"]]
    assert all(shards)
    assert sorted(chain(*shards)) == [shard["name"] for shard in found["shards"]]
    for figure in ("bytes_read", "bytes_written", "measured_peak_bytes", "predicted_peak_bytes", "workers"):
        assert report[figure] == sum(process[figure] for process in found["processes"])
    assert plait.verify(folder / "out").checks == plait.verify(shared / "expected").checks
    longest = format_seconds(max(process["seconds"] for process in found["processes"]))
    assert Fact("processes", "2", f"the longest took {longest}") in facts_of(plait.report(folder / "out"))


@pytest.mark.parametrize("processes", [3, 6, 9])
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
@pytest.mark.parametrize("seed", range(5))
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
@pytest.mark.parametrize("seed", range(3))
def test_tensors_that_several_processes_write_go_on_too(tmp_path: Path, seed: int) -> None:
    """Layers are repeated, so that a tensor is in shards of several processes; and some of it overflows."""
    folder, draw = write_inputs(tmp_path), random.Random(seed)
    sources = [
        f"{{model: family/{name}, layer_range: [{lo}, {hi}]}}"
        for lo, hi in ((0, 3), (1, 4), (0, 2))
        for name in ("ft1", "ft2")
    ]
    slices = ", ".join(f"{{sources: [{sources[index]}, {sources[index + 1]}]}}" for index in (0, 2, 4))
    (folder / "recipe.yml").write_text(
        f"{{merge_method: linear, slices: [{slices}], dtype: float16, "
        "parameters: {weight: 1.0e+6, normalize: false}}"
    )
    plan = plait.plan(folder / "recipe.yml", shard_size=SHARD_BYTES, processes=4)
    parts = [plan.parts.of(shards) for shards in plan.parts.shares]
    assert sum(len(part.sequence) for part in parts) > len(plan.plan.sequence)  # some are in several parts
    expected = merge(folder, "whole")
    assert any("became infinity" in warning for warning in expected.warnings)
    while interrupt(folder, draw.randint(10, 150), processes=draw.choice((1, 2, 4)), resume=True):
        pass
    if (folder / "out" / JOURNAL).exists():
        merge(folder, resume=True)
    assert contents(folder / "out") == contents(folder / "whole")
    assert manifest(folder / "out")["overflows"] == manifest(folder / "whole")["overflows"]


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_an_input_that_one_process_does_not_have_stops_all(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared, tmp_path)

    def before(job: Job) -> Job:
        return replace(job, options={**job.options, "maps": {"family/ft2": str(tmp_path / "nowhere")}})

    with as_threads(before), pytest.raises(ProcessError, match=r"^process 1: --map family/ft2=.*not exist") as refused:
        merge(folder, processes=2)
    assert refused.value.exit_code == 3
    assert_no_model(folder / "out")
    assert left_over() == []
    merge(folder, resume=True)
    assert contents(folder / "out") == contents(shared / "expected")


def test_what_would_fail_again_is_not_to_be_gone_on_with(tmp_path: Path) -> None:
    folder = write_inputs(tmp_path)
    plan = plait.plan(folder / "recipe.yml", shard_size=SHARD_BYTES, processes=2)
    (name, *_) = plan.shards[plan.parts.shares[1][0]].offsets_bytes
    tensors = tensors_of(folder / "family" / "ft1")
    for file in (folder / "family" / "ft1").glob("*.safetensors*"):
        file.unlink()
    tensors[name].view(-1)[0] = float("nan")
    save_model(folder / "family" / "ft1", tensors)
    with as_threads(), pytest.raises(ProcessError, match=rf"^process 1: .*family/ft1.*{name}") as refused:
        merge(folder, processes=2)
    assert (refused.value.exit_code, refused.value.kept_share) == (3, None)
    with as_threads():
        result = merge(folder, processes=2, overwrite=True, allow_nonfinite=True)
    assert any("let through" in warning and name in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda job: {"recipe": (job.recipe[0] + "# more\n", *job.recipe[1:])}, "another recipe than process 0 has"),
        (lambda job: {"options": {**job.options, "seed": 8}}, r"another seed than process 0 has \(8, not 7\)"),
        (lambda job: {"options": {**job.options, "shard_size": 90_000}}, "--shard-size"),
        (
            lambda job: {"options": {**job.options, "maps": {"family/ft2": f"{job.recipe[2]}/family/base"}}},
            "family/ft2 is another model here",
        ),
    ],
)
def test_processes_that_do_not_mean_the_same_run_refuse(
    shared: Path, tmp_path: Path, change: Callable[[Job], dict[str, Any]], message: str
) -> None:
    folder = linked(shared, tmp_path)
    with as_threads(lambda job: replace(job, **change(job))), pytest.raises(ProcessError, match=message) as refused:
        merge(folder, processes=2)
    assert refused.value.exit_code in (2, 3)
    assert_no_model(folder / "out")


def test_more_processes_than_shards_and_none_at_all(shared: Path) -> None:
    plan = plait.plan(shared / "recipe.yml", processes=3)
    assert any("2 of 3 processes have nothing to do" in warning for warning in plan.warnings)
    assert plan.parts.shares == ((0,),)
    with pytest.raises(UsageError, match="0 processes"):
        plait.plan(shared / "recipe.yml", processes=0)


def test_too_little_memory_for_so_many_processes_is_said_of_all(shared: Path) -> None:
    message = r"^--memory 80.0 MiB is too little for 4 processes: the least that works is (\d+)MiB, (\d+)MiB each"
    with pytest.raises(PlanError, match=message) as refused:
        plait.plan(shared / "recipe.yml", shard_size=SHARD_BYTES, memory="80MiB", processes=4)
    plan = plait.plan(shared / "recipe.yml", shard_size=SHARD_BYTES, memory=refused.value.minimum_bytes, processes=4)
    assert plan.parts.predicted_peak_bytes <= refused.value.minimum_bytes
