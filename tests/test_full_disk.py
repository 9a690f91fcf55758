"""A disk that is really full: the run ends in order and goes on when there is room, and what was there stays."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from resume_support import MANIFEST, SHARD_BYTES, assert_no_model, contents, merge, slowly, write_inputs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_IN_A_SMALL_FILE_SYSTEM = """
import json, shutil, subprocess, sys, time
from pathlib import Path
inputs, mount = map(Path, sys.argv[1:3])
command, options = json.loads(sys.argv[3]), sys.argv[4:]
overwrite = "--overwrite" in options
def size(options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", mount], check=True)
def start(*options):
    return subprocess.Popen([*command, *options], cwd=mount, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
def file_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}
size("size=8m")
for name in ("family", "recipe.yml"):
    (mount / name).symlink_to(inputs / name)
if overwrite:
    shutil.copytree(inputs / "old", mount / "out")
before = file_bytes(mount / "out") if overwrite else {}
work = mount / ("out.plait-new" if overwrite else "out")
run = start(*options)
while run.poll() is None and not list(work.glob("*.partial")):
    time.sleep(0.002)
with (mount / "ballast").open("wb", buffering=0) as ballast:
    try:
        while ballast.write(bytes(4096)):
            pass
    except OSError as error:
        full = str(error)
_, said = run.communicate(timeout=60)
report = {"code": run.returncode, "said": said, "full": full, "left": sorted(path.name for path in work.iterdir())}
report["old"] = not overwrite or file_bytes(mount / "out") == before
size("remount,size=24m")
again = start(*(["--overwrite"] if overwrite else []), "--resume")
_, report["said_again"] = again.communicate(timeout=60)
report["code_again"] = again.returncode
for path in (mount / "out").iterdir():
    (inputs / "made" / path.name).write_bytes(path.read_bytes())
print(json.dumps(report))
"""

_LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from plait.cli import main
main()
"""


def run_in_a_small_file_system(inputs: Path, mount: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """In a mount of its own, which only this process sees and which goes with it."""
    mount.mkdir()
    script = [sys.executable, "-c", _IN_A_SMALL_FILE_SYSTEM, str(inputs), str(mount), json.dumps(slowly())]
    return subprocess.run(
        ["unshare", "-Urm", *script, *options],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def mounts_are_refused(folder: Path) -> str | None:
    """Why this machine lets nobody mount a file system; None where it does."""
    if shutil.which("unshare") is None:
        return "there is no unshare here, so no file system of a limited size"
    tried = subprocess.run(
        ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no file system may be mounted here: {tried.stderr.strip()}" if tried.returncode else None


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="new"),
        pytest.param(("--overwrite",), id="overwrite"),
        pytest.param(("--processes", "2"), id="processes", marks=pytest.mark.slow),
    ],
)
def test_a_disk_that_fills_up_ends_the_run_and_it_goes_on_when_there_is_room(
    tmp_path: Path, options: Sequence[str]
) -> None:
    refused = mounts_are_refused(tmp_path)
    if refused is not None:
        pytest.skip(refused)
    inputs = write_inputs(tmp_path / "inputs")
    (inputs / "made").mkdir()
    merge(inputs, "whole")
    if "--overwrite" in options:
        merge(inputs, "old", seed=1)
    done = run_in_a_small_file_system(inputs, tmp_path / "mount", *options)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "No space left on device" in report["full"]
    assert report["code"] == 4
    what, how = [line for line in report["said"].splitlines() if line.startswith("error: ")]
    assert ".partial: cannot be written at byte" in what or "plait-journal cannot be written" in what
    assert what.endswith(": No space left on device")
    assert "% is done and kept; go on with: plait run recipe.yml out" in how
    assert "Traceback" not in report["said"]
    assert "plait-journal" in report["left"]
    assert not {"config.json", "model.safetensors.index.json", "plait.lock"} & set(report["left"])
    assert report["old"]
    assert report["code_again"] == 0, report["said_again"]
    assert contents(inputs / "made") == contents(inputs / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_a_limit_on_the_size_of_files_is_told_and_the_run_goes_on_without_it(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    merge(inputs, "whole")
    arguments = ["run", "recipe.yml", "out", "--shard-size", str(SHARD_BYTES)]
    largest = max(path.stat().st_size for path in (inputs / "whole").glob("*.safetensors"))
    limited = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(largest - 1), *arguments],
        cwd=inputs,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert limited.returncode == 4
    what, how = [line for line in limited.stderr.splitlines() if line.startswith("error: ")]
    assert ".partial: cannot be resized: File too large" in what
    assert how.endswith("--resume")
    assert "Traceback" not in limited.stderr
    assert_no_model(inputs / "out")
    assert merge(inputs, resume=True).resumed
    assert contents(inputs / "out") == contents(inputs / "whole")
    assert (inputs / "out" / MANIFEST).exists()
