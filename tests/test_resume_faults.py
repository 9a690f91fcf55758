"""Faults at any step: disks, inputs, other runs, and kills while a folder is being finished or replaced."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plait
import psutil
import pytest
from merge_support import file_bytes
from plait.engine.errors import InputError, Interrupted, OutputError, UsageError
from plait.loaders.folder import OutputFolder
from plait.loaders.lock import LOCK_FILE
from plait.loaders.positioned_io import FilePool
from resume_support import assert_no_model, contents, interrupt, left_over, merge, stopping_at_read, touch

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.usefixtures("quick_batches")


# ------------------------------------------------------------------------------------------------ the last steps


@pytest.mark.parametrize("step", ["take_from", "write_json", "publish", "remove_journal", "sync"])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_is_killed_while_it_finishes_goes_on(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, step: str, overwrite: bool, after: bool
) -> None:
    merge(inputs, "whole")
    if overwrite:
        merge(inputs, seed=1)
        (inputs / "out" / "notes.txt").write_text("mine")
    before = file_bytes(inputs / "out") if overwrite else {}
    real: Callable[..., Any] = getattr(OutputFolder, step)

    def stop(self: OutputFolder, *given: Any) -> None:
        if after:
            real(self, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(OutputFolder, step, stop)
    with pytest.raises(Interrupted):
        merge(inputs, overwrite=overwrite)
    monkeypatch.setattr(OutputFolder, step, real)
    if step in ("take_from", "write_json") or (step == "publish" and not after):
        if overwrite:
            assert file_bytes(inputs / "out") == before
        elif step != "publish":
            assert not (inputs / "out" / "config.json").exists()
    if step == "remove_journal" and after:
        return  # there is nothing left to go on with
    merge(inputs, resume=True, overwrite=overwrite)
    found = contents(inputs / "out")
    if overwrite:
        assert found.pop("notes.txt") == b"mine"
    assert found == contents(inputs / "whole")
    assert sorted(path.name for path in inputs.iterdir()) == ["family", "out", "recipe.yml", "whole"]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_replacement_that_is_killed_between_its_renames_loses_nothing(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    merge(inputs, "whole")
    merge(inputs, seed=1)
    (inputs / "out" / "notes.txt").write_text("mine")
    real, count = Path.rename, [0]

    def rename(self: Path, target: Path) -> Path:
        count[0] += 1
        if count[0] == at:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(Interrupted):
        merge(inputs, overwrite=True)
    monkeypatch.setattr(Path, "rename", real)
    # One of the two is whole at every moment.
    folders = [inputs / "out", inputs / "out.plait-old"]
    assert any((folder / "config.json").exists() for folder in folders)
    merge(inputs, resume=True, overwrite=True)
    found = contents(inputs / "out")
    assert found.pop("notes.txt") == b"mine"
    assert found == contents(inputs / "whole")
    assert sorted(path.name for path in inputs.iterdir()) == ["family", "out", "recipe.yml", "whole"]


def test_an_interrupted_replacement_goes_on_and_leaves_the_old_folder_alone(inputs: Path) -> None:
    merge(inputs, "whole")
    merge(inputs, seed=1)
    before = file_bytes(inputs / "out")
    interrupt(inputs, 60, overwrite=True)
    assert file_bytes(inputs / "out") == before
    with pytest.raises(UsageError, match="--resume --overwrite"):
        merge(inputs, resume=True)
    assert merge(inputs, resume=True, overwrite=True).resumed is True
    assert contents(inputs / "out") == contents(inputs / "whole")


# ------------------------------------------------------------------------------------------------ one at a time


def lock_of(pid: int, *, host: str | None = None, started: float = 1.0) -> str:
    return json.dumps({"pid": pid, "host": host or socket.gethostname(), "started": started})


def test_a_folder_in_use_is_refused(inputs: Path) -> None:
    (inputs / "out").mkdir()
    own = lock_of(os.getpid(), started=psutil.Process().create_time())
    (inputs / "out" / LOCK_FILE).write_text(own)
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(UsageError, match=f"out is in use by process {os.getpid()}"):
            merge(inputs, **options)
    assert file_bytes(inputs / "out") == {LOCK_FILE: own.encode()}


def test_a_folder_that_is_being_replaced_is_in_use(inputs: Path) -> None:
    merge(inputs)
    (inputs / "out.plait-new").mkdir()
    (inputs / "out.plait-new" / LOCK_FILE).write_text(lock_of(os.getpid(), started=psutil.Process().create_time()))
    with pytest.raises(UsageError, match="in use by process"):
        merge(inputs, overwrite=True)
    assert (inputs / "out" / "config.json").exists()


def test_a_folder_in_use_on_another_machine_is_refused(inputs: Path) -> None:
    (inputs / "out").mkdir()
    (inputs / "out" / LOCK_FILE).write_text(lock_of(1, host="elsewhere"))
    with pytest.raises(UsageError, match=r"process 1 on elsewhere; if that has ended, remove .*plait\.lock"):
        merge(inputs)


def test_a_stale_lock_is_taken_over(inputs: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    # The number of a process that is gone; one that another process has now; a lock that was never finished.
    for held in (lock_of(gone.pid), lock_of(os.getpid()), lock_of(1)[:9]):
        (inputs / "out").mkdir(exist_ok=True)
        (inputs / "out" / LOCK_FILE).write_text(held)
        merge(inputs, overwrite=True)
        assert not list((inputs / "out").glob("plait.lock*"))


# ------------------------------------------------------------------------------------------------ faults


@pytest.mark.skipif(not hasattr(os, "pwrite"), reason="this platform has no pwrite")
@pytest.mark.parametrize("code", ["ENOSPC", "EIO", "EDQUOT"])
def test_a_write_that_fails_ends_the_run_in_order(inputs: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    merge(inputs, "whole")
    real, count = os.pwrite, [0]

    def pwrite(*given: Any) -> int:
        count[0] += 1
        if count[0] > 60:
            number = getattr(errno, code)
            raise OSError(number, os.strerror(number))
        return real(*given)

    monkeypatch.setattr("os.pwrite", pwrite)
    with pytest.raises(OutputError, match=r"partial: cannot be written at") as failed:
        merge(inputs)
    monkeypatch.setattr("os.pwrite", real)
    assert failed.value.kept_share is not None
    assert 0 < failed.value.kept_share < 1
    assert left_over() == []
    assert_no_model(inputs / "out")
    merge(inputs, resume=True)
    assert contents(inputs / "out") == contents(inputs / "whole")


@pytest.mark.parametrize("where", [name for name in ("fdatasync", "fsync") if hasattr(os, name)])
def test_a_disk_that_cannot_keep_anything_ends_the_run(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    merge(inputs, "whole")
    real, count = getattr(os, where), [0]

    def sync(handle: int) -> None:
        count[0] += 1
        if count[0] > 3:
            raise OSError(5, "Input/output error")
        real(handle)

    monkeypatch.setattr(f"os.{where}", sync)
    with pytest.raises(OutputError, match="Input/output error"):
        merge(inputs)
    monkeypatch.setattr(f"os.{where}", real)
    assert left_over() == []
    assert_no_model(inputs / "out")
    merge(inputs, resume=True)
    assert contents(inputs / "out") == contents(inputs / "whole")


def test_an_input_that_vanishes_is_named_and_the_run_goes_on_when_it_is_back(
    inputs: Path,
) -> None:
    merge(inputs, "whole")
    name = inputs / "family" / "ft2"
    planned = plait.plan(inputs / "recipe.yml", shard_size=100_000)
    name.rename(inputs / "away")
    with pytest.raises(InputError, match="ft2") as failed:
        planned.run(inputs / "out")
    assert failed.value.kept_share is not None
    (inputs / "away").rename(name)
    merge(inputs, resume=True)
    assert contents(inputs / "out") == contents(inputs / "whole")


def test_a_short_read_keeps_what_is_done(inputs: Path) -> None:
    merge(inputs, "whole")
    with stopping_at_read(90, InputError("x.safetensors: the file ends early")), pytest.raises(InputError, match="x"):
        merge(inputs)
    assert left_over() == []
    merge(inputs, resume=True)
    assert contents(inputs / "out") == contents(inputs / "whole")


def test_an_input_that_changes_meanwhile_spoils_the_run(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, changed = FilePool.read_into, []

    def read_into(self: FilePool, *given: Any) -> None:
        if not changed:
            changed.append(1)
            touch(min((inputs / "family" / "ft2").glob("*.safetensors")))
        real(self, *given)

    monkeypatch.setattr(FilePool, "read_into", read_into)
    with pytest.raises(InputError, match="changed while Plait was running") as failed:
        merge(inputs)
    assert failed.value.kept_share is None
    assert_no_model(inputs / "out")
    with pytest.raises(InputError, match="changed since the run began"):
        merge(inputs, resume=True)


def test_too_many_shards_for_the_system_are_refused_before_the_work(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plait.engine.host.allow_open_files", lambda count: False)
    with pytest.raises(OutputError, match=r"shards need \d+ open files.*--shard-size"):
        merge(inputs)
    assert file_bytes(inputs / "out") == {}
