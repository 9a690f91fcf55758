"""Going on with an interrupted run: what counts as finished, and what has to be the same."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import plait.runs.identity
import pytest
from merge_support import file_bytes, save_model, tensors_of
from plait.engine.errors import InputError, UsageError
from plait.engine.journal import read_journal
from resume_support import JOURNAL, assert_no_model, contents, interrupt, merge, touch, write_inputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

assert plait.runs.identity


pytestmark = pytest.mark.usefixtures("quick_batches")


# ------------------------------------------------------------------------------------------------ going on


@pytest.mark.parametrize("method", ["dare_ties", "ties", "della", "linear"])
@pytest.mark.parametrize("number", [1, 9, 60])
def test_a_run_goes_on_with_other_tiles_and_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, number: int
) -> None:
    folder = write_inputs(tmp_path, method)
    whole = merge(folder, "whole", workers=1)
    kept = interrupt(folder, number, workers=2)
    assert_no_model(folder / "out")
    assert 0 <= kept < 1
    monkeypatch.setattr("plait.engine.plan.FULL_SPEED_TILE_ELEMENTS", 12288)
    result = merge(folder, resume=True, workers=1)
    assert result.resumed is True
    assert not whole.resumed
    assert contents(folder / "out") == contents(folder / "whole")
    if kept:
        assert result.bytes_written < whole.bytes_written
        assert result.bytes_read < whole.bytes_read


def test_what_is_left_does_not_load(inputs: Path) -> None:
    from transformers import AutoModelForCausalLM

    interrupt(inputs, 100)
    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(inputs / "out")


def test_a_run_may_be_interrupted_again_and_again(inputs: Path) -> None:
    merge(inputs, "whole")
    kept = [interrupt(inputs, 20)]
    for _ in range(3):
        kept += [interrupt(inputs, 20, resume=True)]
    assert kept == sorted(kept)
    merge(inputs, resume=True)
    assert contents(inputs / "out") == contents(inputs / "whole")


def test_a_matrix_in_panels_goes_on_too(tmp_path: Path) -> None:
    folder = write_inputs(tmp_path)
    (folder / "recipe.yml").write_text(
        "{merge_method: iso_c, base_model: family/base, models: [{model: family/ft1}, {model: family/ft2}]}"
    )
    merge(folder, "whole")
    interrupt(folder, 80)
    merge(folder, resume=True)
    assert contents(folder / "out") == contents(folder / "whole")


def test_resume_begins_where_there_is_nothing(inputs: Path) -> None:
    assert merge(inputs, resume=True).resumed is False
    with pytest.raises(UsageError, match=r"out holds no interrupted run; .*--overwrite"):
        merge(inputs, resume=True)


def test_an_interrupted_folder_says_that_it_is_one(inputs: Path) -> None:
    interrupt(inputs, 30)
    with pytest.raises(UsageError, match=r"not empty: it holds an interrupted run; .*--resume.*--overwrite"):
        merge(inputs)


@pytest.mark.parametrize("shards", [100_000, 10**9])
def test_a_shard_that_is_gone_or_cut_is_made_again(tmp_path: Path, shards: int) -> None:
    folder = write_inputs(tmp_path)
    merge(folder, "whole", shard_size=shards)
    for spoil in (lambda path: path.unlink(), lambda path: os.truncate(path, path.stat().st_size - 1)):
        interrupt(folder, 60, shard_size=shards, resume=True)
        spoil(min((folder / "out").glob("*.safetensors*")))
    merge(folder, resume=True, shard_size=shards)
    assert contents(folder / "out") == contents(folder / "whole")


def test_what_is_not_on_disk_as_it_was_is_done_again(inputs: Path) -> None:
    merge(inputs, "whole", shard_size=10**9)
    interrupt(inputs, 150, shard_size=10**9)
    found = read_journal(inputs / "out" / JOURNAL)
    assert found is not None
    assert any(stretch.probe is not None for stretch in found[1][-1].stretches)
    (partial,) = (inputs / "out").glob("*.partial")
    data = bytearray(partial.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[header:] = bytes(len(data) - header)
    partial.write_bytes(data)
    result = merge(inputs, resume=True, shard_size=10**9)
    assert any("done again" in warning for warning in result.warnings)
    assert contents(inputs / "out") == contents(inputs / "whole")


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_last_line_does_not_count(inputs: Path, cut: int) -> None:
    merge(inputs, "whole")
    interrupt(inputs, 100)
    journal = inputs / "out" / JOURNAL
    os.truncate(journal, journal.stat().st_size - cut)
    merge(inputs, resume=True)
    assert contents(inputs / "out") == contents(inputs / "whole")


def test_nan_that_was_let_through_is_still_known(inputs: Path) -> None:
    tensors = tensors_of(inputs / "family" / "ft1")
    name = "model.embed_tokens.weight"
    tensors[name][0, 0] = float("nan")
    for file in (inputs / "family" / "ft1").glob("*.safetensors*"):
        file.unlink()
    save_model(inputs / "family" / "ft1", tensors)
    whole = merge(inputs, "whole", allow_nonfinite=True)
    interrupt(inputs, 150, allow_nonfinite=True)
    assert merge(inputs, resume=True, allow_nonfinite=True).warnings == whole.warnings
    assert contents(inputs / "out") == contents(inputs / "whole")


# ------------------------------------------------------------------------------------------------ the same run


@pytest.mark.parametrize(
    ("options", "change", "kind", "message"),
    [
        ({"seed": 8}, None, UsageError, "the seed was 7 when the run began and is 8 now"),
        ({"shard_size": 90_000}, None, UsageError, "--shard-size"),
        ({"allow_nonfinite": True}, None, UsageError, "--allow-nonfinite was off .* and is on now"),
        (
            {},
            lambda folder: (folder / "recipe.yml").write_text((folder / "recipe.yml").read_text() + "# more\n"),
            UsageError,
            "another recipe",
        ),
        (
            {},
            lambda folder: touch(min((folder / "family" / "ft2").glob("*.safetensors"))),
            InputError,
            r"family/ft2 changed since the run began \(its time of change differs\)",
        ),
    ],
)
def test_another_run_is_told_from_this_one(
    inputs: Path,
    options: dict[str, Any],
    change: Callable[[Path], object] | None,
    kind: type[Exception],
    message: str,
) -> None:
    interrupt(inputs, 60)
    left = file_bytes(inputs / "out")
    if change is not None:
        change(inputs)
    with pytest.raises(kind, match=message) as refused:
        merge(inputs, resume=True, **options)
    assert getattr(refused.value, "kept_share", None) is None
    assert file_bytes(inputs / "out") == left


@pytest.mark.parametrize("name", ["VERSION", "torch.__version__"])
def test_another_version_is_refused(inputs: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    interrupt(inputs, 60)
    monkeypatch.setattr(f"plait.runs.identity.{name}", "0.0.1")
    with pytest.raises(UsageError, match=r"0\.0\.1"):
        merge(inputs, resume=True)


def test_a_journal_without_a_head_is_no_journal(inputs: Path) -> None:
    interrupt(inputs, 60)
    (inputs / "out" / JOURNAL).write_bytes(b"00000000 {}\n")
    with pytest.raises(UsageError, match="the journal is damaged"):
        merge(inputs, resume=True)
    merge(inputs, overwrite=True)


def test_inputs_may_move(inputs: Path) -> None:
    merge(inputs, "whole")
    interrupt(inputs, 60)
    (inputs / "family" / "ft1").rename(inputs / "elsewhere")
    assert merge(inputs, resume=True, maps={"family/ft1": str(inputs / "elsewhere")}).resumed
    assert contents(inputs / "out") == contents(inputs / "whole")
