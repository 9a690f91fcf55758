"""What a run finds out before it computes anything: where it may write, how much memory is free, what it will copy."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
from command_support import each_of
from merge_support import file_bytes
from plait.engine.errors import InputError, PlanError
from resume_support import contents, interrupt, merge, write_inputs
from test_full_disk import mounts_are_refused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_DROPPED = "-dac_override,-dac_read_search"


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Models and a recipe."""
    return write_inputs(tmp_path)


def refused(runs: Sequence[Sequence[str]], cwd: Path, under: Sequence[str]) -> list[str]:
    """The one line of each of these runs, which end with 4."""
    found = []
    for said in each_of([["run", "recipe.yml", "-q", *each] for each in runs], cwd, under):
        assert said.code == 4, said.err
        found += [line for line in said.err.splitlines() if not line.startswith("warning")]
    return found


# ------------------------------------------------------------------------------------------------ where it may write


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no such modes")
def test_a_folder_that_may_not_be_written_to(inputs: Path) -> None:
    # A superuser may write anywhere, unless that privilege is given up.
    plain: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("a superuser may write anywhere, and there is no setpriv to give that up")
        plain = ["setpriv", "--bounding-set", _DROPPED, "--inh-caps", _DROPPED]
    locked = inputs / "locked"
    (locked / "empty").mkdir(parents=True)
    merge(inputs, "locked/old")
    before = file_bytes(locked / "old")
    for folder in (locked / "empty", locked):
        folder.chmod(0o555)
    try:
        assert refused([["locked/new"], ["locked/empty"], ["locked/old", "--overwrite"]], inputs, plain) == [
            "error: locked/new cannot be made: Permission denied",
            "error: locked/empty/plait.lock cannot be written: Permission denied",
            "error: locked/old.plait-new cannot be made: Permission denied",
        ]
    finally:
        for folder in (locked, locked / "empty"):
            folder.chmod(0o755)
    assert file_bytes(locked / "old") == before
    assert file_bytes(locked / "empty") == {}


def test_a_file_system_that_is_read_only(inputs: Path) -> None:
    (inputs / "disk").mkdir()
    reason = mounts_are_refused(inputs / "disk")
    if reason is not None:
        pytest.skip(reason)
    script = 'mount -t tmpfs tmpfs disk && mkdir disk/empty && mount -o remount,ro disk && exec "$@"'
    assert refused([["disk/a/b"], ["disk/empty"]], inputs, ["unshare", "-Urm", "sh", "-c", script, "sh"]) == [
        "error: disk/a/b cannot be made: Read-only file system",
        "error: disk/empty/plait.lock cannot be written: Read-only file system",
    ]


def test_an_interrupted_run_goes_on_through_a_link_to_its_folder(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait.engine.recorder.BATCH_SECONDS", 0.005)
    monkeypatch.setattr("plait.engine.plan.FULL_SPEED_TILE_ELEMENTS", 4096)
    merge(inputs, "whole")
    (inputs / "link").symlink_to("out")
    interrupt(inputs, 60, "link")
    assert (inputs / "out" / "plait-journal").exists()
    assert merge(inputs, "link", resume=True).resumed
    assert (inputs / "link").is_symlink()
    assert contents(inputs / "out") == contents(inputs / "whole")
    # A replacement: the folder beside the one that the link leads to is gone on with.
    merge(inputs, "link", seed=1, overwrite=True)
    interrupt(inputs, 60, "link", overwrite=True)
    assert (inputs / "out.plait-new" / "plait-journal").exists()
    assert merge(inputs, "link", resume=True, overwrite=True).resumed
    assert (inputs / "link").is_symlink()
    assert contents(inputs / "out") == contents(inputs / "whole")
    # And a link to that folder itself, under whose name it then stays.
    interrupt(inputs, 60, overwrite=True)
    (inputs / "other").symlink_to("out.plait-new")
    assert merge(inputs, "other", resume=True).resumed
    assert contents(inputs / "other") == contents(inputs / "whole")


# ------------------------------------------------------------------------------------------------ memory


def test_less_free_memory_than_the_plan_needs_is_said(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait.engine.host.free_memory_bytes", lambda: 1000)
    with pytest.raises(
        PlanError, match=r"of memory more than it holds now, and 1000 B are free; .* --memory"
    ) as failed:
        merge(inputs, memory="16GiB")
    assert failed.value.kept_share is None
    assert file_bytes(inputs / "out") == {}


# ------------------------------------------------------------------------------------------------ files to copy


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "generation_config.json", "modeling_own.py"])
def test_a_file_of_the_donor_that_leads_nowhere_is_named_before_the_work(inputs: Path, name: str) -> None:
    base = inputs / "family" / "base"
    (base / name).unlink(missing_ok=True)
    (base / name).symlink_to("../blobs/gone")
    with pytest.raises(InputError, match=f"{name}: cannot be read: it is a link to .*gone, which is not there"):
        merge(inputs)
    assert not (inputs / "out").exists()
    (inputs / "family" / "blobs").mkdir()
    (inputs / "family" / "blobs" / "gone").write_text("{}")
    merge(inputs)
    assert (inputs / "out" / name).read_text() == "{}"
    assert not (inputs / "out" / name).is_symlink()
