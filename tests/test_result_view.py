"""The summary after a run: what it did beside what was predicted, in 80 columns and in one line each when piped."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace

import pytest
from plait.runs.merge_result import MergeResult
from plait.views import result as view

RESULT = MergeResult(
    output="out/my model",
    recipe_sha256="0" * 64,
    seed=3,
    device="cpu",
    workers=2,
    tensors=290,
    bytes_read=3 << 30,
    bytes_written=1 << 30,
    passes=3,
    predicted_peak_bytes=300 << 20,
    measured_peak_bytes=290 << 20,
    reserved_bytes=250 << 20,
    predicted_seconds=16.0,
    seconds=20.0,
    resumed=False,
    shards=({"name": "model.safetensors", "bytes": 1 << 30, "tensors": 290},),
    warnings=(),
)


def lines_of(result: MergeResult, width: int | None = 80) -> list[str]:
    return [line.plain for line in view.page(result, width, against="models/base")]


def test_a_run_is_told_beside_its_predictions() -> None:
    text = "\n".join(lines_of(RESULT))
    assert (
        text
        == """\
merged 290 tensors into out/my model
  read     3.00 GiB, at most 3 passes over a tensor
  written  1.00 GiB, 1 shard
  time     20.0 s, 16.0 s predicted, 205 MiB/s
  memory   290 MiB at peak, 300 MiB predicted
  seed     3
  device   cpu, 2 workers
  card     out/my model/README.md
  record   out/my model/plait-manifest.json
  next     plait verify 'out/my model'
           plait diff models/base 'out/my model'
           plait report 'out/my model' --html report.html"""
    )


@pytest.mark.skipif(os.name == "nt", reason="its shells have no backslash that goes on below")
def test_inputs_that_a_report_would_not_find_are_mapped_in_a_command_that_can_be_copied() -> None:
    moved = {"org/a": "/far/" + 80 * "x", "./b c": "/far/b"}
    lines = [line.plain for line in view.page(replace(RESULT, output="out"), 60, against="models/base", moved=moved)]
    command = "\n".join(lines[-3:]).replace("\\\n", "")  # as a shell does
    assert shlex.split(command) == [
        *("plait", "report", "out", "--html", "report.html"),
        *("--map", f"org/a={moved['org/a']}", "--map", "./b c=/far/b"),
    ]


def test_warnings_are_folded_into_their_number() -> None:
    text = "\n".join(lines_of(replace(RESULT, warnings=("a long warning", "another"))))
    assert "warnings  2, printed above" in text
    assert "a long warning" not in text


def test_a_run_that_went_on_is_not_held_to_the_time_of_a_whole_one() -> None:
    text = "\n".join(lines_of(replace(RESULT, resumed=True)))
    assert "going on with an interrupted run" in text
    assert "16.0 s" not in text
    assert "300 MiB predicted" in text


def process(number: int, machine: int, seconds: float) -> dict[str, object]:
    return {
        "process": number,
        "machine": machine,
        "host": f"node{machine}",
        "shards": [f"{number}a", f"{number}b"],
        "measured_peak_bytes": (280 + number) << 20,
        "predicted_peak_bytes": 300 << 20,
        "seconds": seconds,
    }


def test_each_of_several_processes_has_a_line() -> None:
    two = replace(RESULT, workers=4, processes=(process(0, 0, 19.0), process(1, 0, 18.0)))
    lines = lines_of(two)
    assert "  device     cpu, 4 workers in 2 processes" in lines
    at = lines.index("  processes  0: 2 shards in 19.0 s, 280 MiB at peak, 300 MiB predicted")
    assert lines[at + 1] == "             1: 2 shards in 18.0 s, 281 MiB at peak, 300 MiB predicted"
    apart = "\n".join(lines_of(replace(two, processes=(process(0, 0, 19.0), process(1, 1, 18.0)))))
    assert "1 on node1: 2 shards in 18.0 s" in apart
    assert "290 MiB at peak, 300 MiB predicted, of the machine that took most" in apart


def test_of_many_processes_the_longest_has_a_line() -> None:
    lines = lines_of(replace(RESULT, processes=tuple(process(number, 0, 50.0 - number) for number in range(16))))
    at = lines.index("  processes  0: 2 shards in 50.0 s, 280 MiB at peak, 300 MiB predicted")
    assert lines[at + 1] == "             took longest of 16; the others are in the record"
    assert lines[at + 2].startswith("  card ")


def test_devices_have_their_peaks() -> None:
    peaks = {"predicted_peak_bytes": 3 << 30, "measured_peak_bytes": 2 << 30}
    lines = lines_of(replace(RESULT, device="cuda:0", devices=({"name": "cuda:0", **peaks},)))
    at = lines.index("  device   cuda:0, 2 workers")
    assert lines[at + 1] == "           cuda:0 2.00 GiB at peak, 3.00 GiB predicted"


@pytest.mark.parametrize("width", [80, 60, None])
def test_lines_fit(width: int | None) -> None:
    lines = lines_of(replace(RESULT, output="out"), width)
    assert all(len(line) <= (width or 1000) for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_nothing_is_divided_by_a_run_of_no_time() -> None:
    assert "0.0 s" in "\n".join(lines_of(replace(RESULT, seconds=0.0)))
