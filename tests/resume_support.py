"""Runs that are stopped on purpose, and what has to hold of what they leave."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import plait
import pytest
from checkpoints import write_family
from merge_support import file_bytes, write_recipe
from plait.engine.errors import Interrupted
from plait.loaders.positioned_io import FilePool

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from plait.merge import MergeResult

RECIPE = """\
merge_method: {method}
base_model: family/base
models:
  - {{model: family/ft1, parameters: {{weight: 0.6, density: 0.5}}}}
  - {{model: family/ft2, parameters: {{weight: 0.3, density: 0.5}}}}
dtype: bfloat16
seed: 7
"""

MANIFEST = "plait-manifest.json"
JOURNAL = "plait-journal"
SHARD_BYTES = 100_000

_SLOWLY = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where the tests run in the background
from plait.engine import plan, recorder
from plait.loaders.positioned_io import FilePool
recorder.BATCH_SECONDS = 0.02
plan.FULL_SPEED_TILE_ELEMENTS = {tile_elements}
read = FilePool.read_into
def slow(self, *given):
    time.sleep(0.002)
    read(self, *given)
FilePool.read_into = slow
sys.argv[0] = "plait"
from plait.cli import main
main()
"""


def write_inputs(folder: Path, method: str = "dare_ties") -> Path:
    """A base, two fine-tunes and a recipe that merges them; returns the folder."""
    write_family(folder / "family", "tiny", finetunes=2, shard_bytes=150_000)
    (folder / "family" / "base" / "tokenizer.json").write_text("{}")
    write_recipe(folder / "recipe.yml", RECIPE.format(method=method))
    return folder


def merge(folder: Path, out: str = "out", *, allow_nonfinite: bool = False, **given: Any) -> MergeResult:
    """Merge in this process; options of a run and of a plan alike."""
    options = {name: given.pop(name) for name in ("resume", "overwrite", "progress") if name in given}
    planned = plait.plan(folder / "recipe.yml", **({"shard_size": SHARD_BYTES} | given))
    return planned.run(folder / out, allow_nonfinite=allow_nonfinite, **options)


def contents(out: Path) -> dict[str, bytes]:
    """What a finished folder holds, but for the manifest, which has times."""
    found = file_bytes(out)
    assert MANIFEST in found
    return {name: data for name, data in found.items() if name != MANIFEST}


def assert_no_model(out: Path) -> None:
    """What is there is not taken for a model, and has no process any more."""
    assert not (out / "config.json").exists()
    assert not (out / "model.safetensors.index.json").exists()


def touch(path: Path) -> None:
    """Change a file's time and nothing else."""
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 10**9))


def left_over() -> list[str]:
    """Threads of a run that still live."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("plait")]


@contextlib.contextmanager
def stopping_at_read(number: int, error: BaseException | None = None) -> Iterator[None]:
    """Runs inside the block fail at a read; by default as if someone had pressed Ctrl-C."""
    real, lock, count = FilePool.read_into, threading.Lock(), [0]

    def read_into(self: FilePool, *given: Any) -> None:
        with lock:
            count[0] += 1
            if count[0] == number:
                raise error or KeyboardInterrupt
        real(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FilePool, "read_into", read_into)
        yield


def interrupt(folder: Path, number: int, out: str = "out", **given: Any) -> float:
    """Merge until a read, and stop there; returns what is said to be kept."""
    with stopping_at_read(number), pytest.raises(Interrupted) as stopped:
        merge(folder, out, **given)
    assert left_over() == []
    return stopped.value.kept_share


def slowly(tile_elements: int = 4096) -> list[str]:
    """The command of a merge that takes a second or so."""
    code = _SLOWLY.format(tile_elements=tile_elements)
    return [sys.executable, "-c", code, "run", "recipe.yml", "out", "--shard-size", str(SHARD_BYTES)]


def start(folder: Path, *arguments: str, tile_elements: int = 4096) -> subprocess.Popen[str]:
    """Start a merge in a process of its own that takes a second or so."""
    return subprocess.Popen(
        [*slowly(tile_elements), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop_after(process: subprocess.Popen[str], out: Path, seconds: float, number: signal.Signals) -> tuple[int, str]:
    """Send a signal a while after the process took the folder; returns the exit code and what was said."""
    wait_until_at_work(process, out)
    time.sleep(seconds)
    return _stop(process, number)


def stop_when_something_is_kept(process: subprocess.Popen[str], out: Path, number: signal.Signals) -> tuple[int, str]:
    """Send a signal when all files are begun and the journal says that something is finished, as `stop_after` does."""
    wait_until_at_work(process, out)
    deadline = time.monotonic() + 60
    while process.poll() is None and not _something_is_kept(out):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return _stop(process, number)


def _stop(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def _something_is_kept(out: Path) -> bool:
    with contextlib.suppress(OSError):
        lines = (out / JOURNAL).read_bytes().count(b"\n")
        return lines > 1 and (out / "plait.yml").exists()  # a line behind the head
    return False


def wait_until_at_work(process: subprocess.Popen[str], out: Path) -> None:
    """Return when the process has the lock of the folder, or has ended."""
    deadline = time.monotonic() + 60
    while process.poll() is None and not _is_held_by(process.pid, out / "plait.lock"):
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _is_held_by(pid: int, lock: Path) -> bool:
    with contextlib.suppress(OSError):
        return f'"pid": {pid},' in lock.read_text()
    return False


def finish(folder: Path, tile_elements: int = 4096) -> None:
    """Go on with a merge that another process began, to the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plait.engine.plan.FULL_SPEED_TILE_ELEMENTS", tile_elements)
        merge(folder, resume=True)


def one_of(options: Sequence[int], draw: float) -> int:
    """An option for a number from 0 to 1."""
    return options[int(draw * len(options))]
