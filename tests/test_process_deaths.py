"""Several processes at one merge, really started: kills, Ctrl-C, and those that a launcher starts."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from processes_support import as_threads, has_ended, launch, linked, reports, start
from resume_support import SHARD_BYTES, assert_no_model, contents, merge

if TYPE_CHECKING:
    from pathlib import Path


# ------------------------------------------------------------------------------------------------ deaths


def kill_one(shared: Path, folder: Path, seed: int, victim: int, processes: int = 2) -> None:
    """Kill one of several processes at a random moment, and go on."""
    draw = random.Random(seed)
    process = start(linked(shared, folder), "--processes", str(processes))
    pids = [report.pid for report in reports(folder / "out", range(processes))]
    time.sleep(draw.random() * 0.5)
    with contextlib.suppress(ProcessLookupError):  # where the machine is slow to come back to us, it is done by now
        os.kill(pids[victim], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert all(has_ended(pid) for pid in pids)
    if process.returncode != 0:
        assert_no_model(folder / "out")
        if victim:
            assert process.returncode == 4, said
            assert f"process {victim} was ended by SIGKILL" in said
            assert "is done and kept; go on with: plait run" in said
            assert "Traceback" not in said
        with as_threads():
            merge(folder, resume=True, processes=draw.choice((1, 2, 4)))
    assert contents(folder / "out") == contents(shared / "expected")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("victim", [0, 1])
def test_killing_a_process_loses_nothing_and_leaves_nobody(shared: Path, tmp_path: Path, victim: int) -> None:
    kill_one(shared, tmp_path, victim, victim)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("seed", range(100, 120))
def test_killing_any_process_loses_nothing(shared: Path, tmp_path: Path, seed: int) -> None:
    kill_one(shared, tmp_path, seed, seed % 3, processes=3)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_ctrl_c_reaches_every_process_once(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared, tmp_path)
    process = start(folder, "--processes", "2")
    pids = [report.pid for report in reports(folder / "out", (0, 1))]
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert [line for line in said.splitlines() if "interrupted" in line] == [
        "error: interrupted; the output is not complete"
    ]
    assert "go on with: plait run recipe.yml out --shard-size 100000 --processes 2 --resume" in said
    assert "Traceback" not in said
    assert all(has_ended(pid) for pid in pids)
    assert not list((folder / "out").glob("plait-process-*"))
    merge(folder, resume=True)
    assert contents(folder / "out") == contents(shared / "expected")


# ------------------------------------------------------------------------------------------------ launched by others


def test_processes_that_a_launcher_started_meet_over_gloo(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared, tmp_path)
    both = launch(folder, "--json", "-q", machines=1)
    (out, said), (other_out, other_said) = (process.communicate(timeout=120) for process in both)
    assert [process.returncode for process in both] == [0, 0], said + other_said
    assert (said, other_out, other_said) == ("", "", "")
    assert [(each["process"], each["machine"]) for each in json.loads(out)["processes"]] == [(0, 0), (1, 0)]
    assert contents(folder / "out") == contents(shared / "expected")


@pytest.mark.slow
def test_accelerate_launch_starts_a_merge(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared, tmp_path)
    launch = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0"
    options = ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "plait", "run", "recipe.yml", "out", "--json"]
    finished = subprocess.run(
        [sys.executable, "-m", *launch.split(), *options, "--shard-size", str(SHARD_BYTES)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert len(json.loads(finished.stdout)["processes"]) == 2
    assert contents(folder / "out") == contents(shared / "expected")
