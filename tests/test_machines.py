"""A merge on several machines: two launched environments on loopback that share a folder, each alone on its machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from plait.engine.units import MIB
from processes_support import as_threads, has_ended, launch, linked, reports
from resume_support import SHARD_BYTES, assert_no_model, contents, merge

if TYPE_CHECKING:
    from pathlib import Path

BOUND_BYTES = 400 * MIB
"""Enough for one process, and too little for two."""


def test_each_machine_has_the_bound_for_itself(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared, tmp_path)
    both = launch(folder, "--json", "-q", "--memory", str(BOUND_BYTES), "--workers", "2", machines=2)
    (out, said), (other_out, other_said) = (process.communicate(timeout=120) for process in both)
    assert [process.returncode for process in both] == [0, 0], said + other_said
    assert (said, other_out, other_said) == ("", "", "")
    assert contents(folder / "out") == contents(shared / "expected")
    report = json.loads(out)
    processes = report["processes"]
    assert [(each["process"], each["machine"], each["workers"]) for each in processes] == [(0, 0, 2), (1, 1, 2)]
    assert report["workers"] == 4
    for each in (report, *processes):
        assert each["measured_peak_bytes"] <= each["predicted_peak_bytes"] <= BOUND_BYTES
    for figure in ("measured_peak_bytes", "predicted_peak_bytes", "reserved_bytes"):
        assert report[figure] == max(each[figure] for each in processes)
    assert sum(each["predicted_peak_bytes"] for each in processes) > BOUND_BYTES
    assert report["bytes_written"] == sum(each["bytes_written"] for each in processes)
    shards = [shard for each in processes for shard in each["shards"]]
    assert sorted(shards) == [shard["name"] for shard in report["shards"]]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_machine_that_is_lost_stops_the_other_and_nothing_is_lost(shared: Path, tmp_path: Path, victim: int) -> None:
    folder = linked(shared, tmp_path)
    both = launch(folder, "--memory", str(BOUND_BYTES), machines=2, pause_seconds=0.02)
    pids = [report.pid for report in reports(folder / "out", (0, 1))]
    assert pids == [process.pid for process in both]
    os.kill(pids[victim], signal.SIGKILL)
    said = [process.communicate(timeout=60)[1] for process in both]
    assert all(has_ended(pid) for pid in pids)
    assert_no_model(folder / "out")
    assert "Traceback" not in said[1 - victim]
    if victim:
        assert both[0].returncode == 4, said[0]
        what, how = [line for line in said[0].splitlines() if line.startswith("error: ")]
        assert what == "error: process 1 is gone; it may have been short of memory"
        assert "is done and kept; go on with: plait run recipe.yml out" in how
    else:
        assert both[1].returncode == 130, said[1]
    with as_threads():
        result = merge(folder, resume=True, processes=3)
    assert result.resumed
    assert contents(folder / "out") == contents(shared / "expected")


@pytest.mark.slow
def test_accelerate_launch_on_each_of_two_machines(shared: Path, tmp_path: Path) -> None:
    folder = linked(shared, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    launcher = f"accelerate.commands.launch --multi_gpu --num_processes 4 --num_machines 2 --main_process_port {port}"
    machine = "--main_process_ip 127.0.0.1 --mixed_precision no --dynamo_backend no --machine_rank"
    merging = f"-m plait run recipe.yml out --json --shard-size {SHARD_BYTES}"
    machines = [
        subprocess.Popen(
            [sys.executable, "-m", *f"{launcher} {machine} {rank} {merging}".split()],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    (out, said), (other_out, other_said) = (machine.communicate(timeout=400) for machine in machines)
    assert [machine.returncode for machine in machines] == [0, 0], said + other_said
    assert other_out == ""
    assert [each["machine"] for each in json.loads(out)["processes"]] == [0, 0, 1, 1]
    assert contents(folder / "out") == contents(shared / "expected")
