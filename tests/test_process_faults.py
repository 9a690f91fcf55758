"""Several processes at one merge, of which one runs out of disk or of a device's memory."""

from __future__ import annotations

import errno
import json
import os
import threading
from itertools import chain
from typing import TYPE_CHECKING, Any

import plait
import pytest
from merge_support import file_bytes
from plait.engine.backends import PretendedBackend
from plait.engine.devices import pretended
from plait.engine.errors import OutputError, ProcessError
from plait.runs.job import Job, read_job
from plait.views import result as result_view
from processes_support import as_threads, linked
from resume_support import MANIFEST, SHARD_BYTES, assert_no_model, contents, left_over, merge
from support import CrowdedBackend

if TYPE_CHECKING:
    from pathlib import Path

    from plait.engine.devices import Device

# ------------------------------------------------------------------------------------------------ a full disk


class Full:
    """``os.pwrite`` on a disk that has no room for the shards of one process, after so many writes to them."""

    def __init__(self, folder: Path, shards: list[str], writes: int, code: int) -> None:
        self._write = os.pwrite
        self._paths = [folder / f"{shard}.partial" for shard in shards]
        self._left, self._code = writes, code

    def __call__(self, handle: int, *given: Any) -> int:
        if any(path.exists() and os.path.samestat(path.stat(), os.fstat(handle)) for path in self._paths):
            self._left -= 1
            if self._left < 0:
                raise OSError(self._code, os.strerror(self._code))
        return self._write(handle, *given)


@pytest.mark.skipif(not hasattr(os, "pwrite"), reason="this platform has no pwrite")
@pytest.mark.usefixtures("quick_batches")
@pytest.mark.parametrize(("victim", "code", "afterwards"), [(1, "ENOSPC", 2), (2, "EDQUOT", 1), (0, "ENOSPC", 4)])
def test_a_disk_that_is_full_for_one_process_stops_all_and_loses_nothing(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: int, code: str, afterwards: int
) -> None:
    folder, number = linked(shared, tmp_path), getattr(errno, code)
    planned = plait.plan(folder / "recipe.yml", shard_size=SHARD_BYTES, processes=3).report()["processes"]
    assert isinstance(planned, list)
    shards = planned[victim]["shards"]
    with monkeypatch.context() as patch, as_threads():
        patch.setattr("os.pwrite", Full(folder / "out", shards, 8, number))
        with pytest.raises((OutputError, ProcessError)) as failed:
            merge(folder, processes=3)
    said = str(failed.value)
    assert said.startswith(f"process {victim}: " if victim else str(folder / "out"))
    assert any(f"{shard}.partial: cannot be written at byte" in said for shard in shards)
    assert said.endswith(os.strerror(number))
    assert failed.value.exit_code == 4
    assert failed.value.kept_share is not None
    assert 0 < failed.value.kept_share < 1
    assert left_over() == []
    assert_no_model(folder / "out")
    assert not list((folder / "out").glob("plait-process-*"))
    with as_threads():
        result = merge(folder, processes=afterwards, resume=True)
    assert result.resumed
    assert not any("again" in warning for warning in result.warnings)
    assert contents(folder / "out") == contents(shared / "expected")


# ------------------------------------------------------------------------------------------------ devices


def test_devices_of_every_process_are_told(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes have a device, where the second one runs out of memory; the third has the processor alone."""
    folder = linked(shared, tmp_path)
    planned = plait.plan(folder / "recipe.yml", shard_size=SHARD_BYTES, device=pretended(), processes=3, workers=3)
    (there,) = planned.plan.placement.peaks_bytes
    assert planned.report()["devices"] == [{"name": "pretended:0", "predicted_peak_bytes": 3 * there}]

    def backend_of(_device: Device) -> PretendedBackend:
        return PretendedBackend(there) if threading.current_thread() is threading.main_thread() else CrowdedBackend()

    def on_host(job: Job) -> Job:
        return Job(**{**vars(job), "options": {**job.options, "device": "cpu"}}) if job.number == 2 else job

    monkeypatch.setattr("plait.engine.device_use.backend_of", backend_of)
    with as_threads(on_host):
        result = planned.run(folder / "out")
    assert contents(folder / "out") == contents(shared / "expected")
    processes = result.processes
    assert [[entry["name"] for entry in each["devices"]] for each in processes] == [["pretended:0"]] * 2 + [[]]
    measured = [entry["measured_peak_bytes"] for each in processes for entry in each["devices"]]
    assert all(0 < each <= there for each in measured)
    (whole,) = result.devices
    assert whole == {
        "name": "pretended:0",
        "machine": 0,
        "predicted_peak_bytes": 2 * there,
        "measured_peak_bytes": sum(measured),
    }
    assert result.device == "pretended:0"
    (note,) = chain(*(each["notes"] for each in processes))
    assert note in processes[1]["notes"]
    assert note == "pretended:0 ran out of memory: some of its tiles were computed on the processor"
    assert f"process 1: {note}" in result.warnings
    found = json.loads(file_bytes(folder / "out")[MANIFEST])
    assert (found["devices"], found["processes"]) == (list(result.devices), json.loads(json.dumps(processes)))
    lines = [line.plain.strip() for line in result_view.page(result, None)]
    assert any(line.startswith("pretended:0 ") and "at peak" in line for line in lines)
    assert any(line.startswith("processes  0: ") for line in lines)
    assert len([line for line in lines if line.startswith(("1: ", "2: "))]) == 2


def test_a_device_that_is_described_comes_to_the_other_processes() -> None:
    job = Job("out", "run", 1, ("text", "name", "."), {"device": pretended("pretended:3", 5), "seed": 3}, False)
    assert read_job(job.as_json().decode()) == job
    plain = Job("out", "run", 1, ("text", "name", "."), {"device": "cuda:1"}, True)
    assert read_job(plain.as_json().decode()).options == {"device": "cuda:1"}
