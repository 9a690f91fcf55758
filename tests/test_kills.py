"""Kills at any moment: nothing that is left loads, and going on gives the bytes of a run that was left alone."""

from __future__ import annotations

import random
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from merge_support import file_bytes
from plait.loaders.writer import INDEX_FILE
from resume_support import (
    JOURNAL,
    assert_no_model,
    contents,
    finish,
    merge,
    one_of,
    start,
    stop_after,
    stop_when_something_is_kept,
    wait_until_at_work,
    write_inputs,
)

if TYPE_CHECKING:
    from pathlib import Path

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT) if sys.platform != "win32" else (signal.SIGTERM,)
METHODS = ("dare_ties", "ties")
SECONDS = 0.8  # about what a slowed run takes once its journal is there

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")


def weights(out: Path) -> dict[str, bytes]:
    """The shards, and whatever may be taken for one."""
    return {name: data for name, data in file_bytes(out).items() if ".safetensors" in name and name != INDEX_FILE}


@pytest.fixture(scope="module", params=METHODS)
def inputs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, a recipe, and what comes of it when nobody interferes."""
    folder = write_inputs(tmp_path_factory.mktemp(request.param), request.param)
    merge(folder, "expected")
    return folder


def kill_and_go_on(inputs: Path, folder: Path, seed: int) -> None:
    """Kill a merge once or several times at random moments, go on, and compare."""
    for name in ("family", "recipe.yml"):
        (folder / name).symlink_to(inputs / name)
    draw, out, resume = random.Random(seed), folder / "out", False
    while True:
        tiles = one_of((4096, 8192, 1 << 19), draw.random())
        process = start(folder, *(["--resume"] if resume else []), tile_elements=tiles)
        code, said = stop_after(process, out, draw.random() * SECONDS, draw.choice(SIGNALS))
        if code == 0:
            break
        if (out / "config.json").exists():
            # Killed on its way out: then it has to be complete.
            left = contents(out)
            assert {**left, **contents(inputs / "expected")} == left
            if JOURNAL not in left:
                left.pop("plait.lock", None)
                assert left == contents(inputs / "expected")
                return
        else:
            assert code in (130, -signal.SIGKILL), said
            if (out / INDEX_FILE).exists():
                # Between index and config: nothing loads without a config, and the weights are all there.
                assert weights(out) == weights(inputs / "expected")
            else:
                assert_no_model(out)
        resume = True
        if draw.random() < 0.7:
            finish(folder, tile_elements=one_of((4096, 8192, 1 << 19), draw.random()))
            break
    assert contents(out) == contents(inputs / "expected")


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_run_goes_on_to_the_same_bytes(inputs: Path, tmp_path: Path, seed: int) -> None:
    kill_and_go_on(inputs, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 200))
def test_any_killed_run_goes_on_to_the_same_bytes(inputs: Path, tmp_path: Path, seed: int) -> None:
    kill_and_go_on(inputs, tmp_path, seed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    folder = write_inputs(tmp_path)
    code, said = stop_when_something_is_kept(start(folder, "--seed", "3"), folder / "out", number)
    assert code == 130
    last = said.splitlines()[-1]
    assert "% is done and kept; go on with: plait run recipe.yml out --shard-size 100000 --seed 3 --resume" in last
    assert "Traceback" not in said
    assert_no_model(folder / "out")
    # The lock went with the process, and what is journalled is not made again.
    assert {path.name for path in (folder / "out").glob("plait*")} == {JOURNAL, "plait.yml"}
    finished = merge(folder, seed=3, resume=True)
    assert finished.resumed is True
    # How far it came depends on the machine; what it says is done is not read again.
    kept_percent = int(re.findall(r"(\d+)% is done", last)[0])
    whole_bytes = merge(folder, "whole", seed=3).bytes_read
    assert finished.bytes_read <= whole_bytes * (1 - kept_percent / 100) + whole_bytes / 10
    assert contents(folder / "out") == contents(folder / "whole")


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    folder = write_inputs(tmp_path)
    process = start(folder)
    wait_until_at_work(process, folder / "out")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert_no_model(folder / "out")
    process.communicate()
    # Its lock, if it had no time to let go of it, is of a process that is gone.
    finish(folder)
    merge(folder, "whole")
    assert contents(folder / "out") == contents(folder / "whole")
