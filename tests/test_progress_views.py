"""What is seen of a run on the way: lines, a terminal's screen, a notebook's table; and what the callback is told."""

from __future__ import annotations

import io
import sys
from html.parser import HTMLParser
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import plait
import pytest
import torch
from merge_support import save_model, write_recipe
from plait.engine.progress import Part, Progress
from plait.interrupts import LIVE_LINES
from plait.views import notebook, progress
from plait.views.pace import Pace
from rich.console import Console

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
STAGES = ("tensors", "finish", "verify")
COPY = "merge_method: passthrough\nmodels: [{model: a}]\n"


def at(second: float, **given: Any) -> Progress:
    """A run of 100 seconds: 2 MiB a second in, 1 MiB out, one and a half workers."""
    fields = {
        "stages": STAGES,
        "work_share": second / 100,
        "seconds_left": 100 - second,
        "workers": 2,
        "busy_seconds": 1.5 * second,
        "parts": (Part("2 passes", int(second), 90), Part("copied", 10, 10)),
    }
    return Progress(
        int(2 * second * MIB), int(second * MIB), 300 * MIB, int(second) + 10, 100, second, **fields | given
    )


def pace_at(second: float, **given: Any) -> Pace:
    pace = Pace(400 * MIB)
    for moment in range(int(second) + 1):
        pace.take(at(moment), (350 if moment == 3 else 300) * MIB)
    if given:
        pace.take(at(second, **given), 300 * MIB)
    return pace


def test_piped_there_is_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.RunProgress(400 * MIB, lambda: 300 * MIB, enabled=True) as shown:
        for second in range(12):
            shown(at(second))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0] == (
        "  5%  in 10.0 MiB at 2.00 MiB/s, out 5.00 MiB at 1.00 MiB/s, 1 min 35 s left, "
        "memory 300 MiB, peak 300 MiB of 400 MiB"
    )


def test_the_next_stage_is_told_from_its_start(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.RunProgress(None, lambda: 300 * MIB, enabled=True) as shown:
        for second in range(7):
            shown(at(second))
        for second in range(7):
            shown(at(second, stage="verify", work_share=None, seconds_left=None))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("  5%  verify: in 10.0 MiB")
    assert "400 MiB" not in lines[1]


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (at(0.5), None),  # the first tiles say little
        (at(40), 60),
        (Progress(60, 0, 180, 0, 1, 4.0), 8.0),  # by bytes, where a stage does not know: 15 a second
        (Progress(0, 0, 180, 0, 1, 4.0), None),
        (Progress(180, 0, 180, 1, 1, 0.5), None),  # over before anything could be said
    ],
)
def test_time_left(given: Progress, left: float | None) -> None:
    pace = Pace(None)
    pace.take(given, 0)
    assert pace.seconds_left == left
    said = progress.time_left(pace)
    unknown = "done" if given.bytes_read == given.bytes_total else "time left not known yet"
    assert said == unknown if left is None else said.endswith(" left")


def test_rates_are_of_the_last_seconds_and_the_peak_is_of_the_run() -> None:
    pace = Pace(None)
    read_bytes = 0
    for second in range(40):
        read_bytes += 100 if second < 20 else 10
        pace.take(Progress(read_bytes, 0, 10**6, 0, 1, float(second), workers=2, busy_seconds=1.25 * second), second)
    assert pace.read_rate == pytest.approx(10)
    assert pace.write_rate == 0.0
    assert pace.busy_workers == pytest.approx(1.25)
    pace.take(Progress(0, 0, 10**6, 0, 1, 0.0), 5)
    assert (pace.memory_bytes, pace.peak_bytes) == (5, 39)


@pytest.mark.parametrize("width", [80, 60])
def test_a_terminal_has_stages_bytes_memory_workers_and_time(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=True, no_color=True, color_system=None, legacy_windows=False
    )
    monkeypatch.setattr(progress, "messages", lambda: console)
    with progress.RunProgress(400 * MIB, lambda: 300 * MIB, enabled=True) as shown:
        for second in range(31):
            shown(at(second))
    text = file.getvalue()
    last = text[text.rindex(" 30%") - width :]
    assert "1 min 10 s left" in last
    assert "→ tensors  · flush, index, card  · verify" in last
    assert "in 60.0 MiB at 2.00 MiB/s, out 30.0 MiB at 1.00 MiB/s" in last
    assert "memory 300 MiB, peak 300 MiB of 400 MiB" in last
    assert "40 of 100 tensors (2 passes 30/90, copied 10/10), " in last
    assert ("1.5 of 2 workers busy" in last) is (width == 80)


@pytest.mark.parametrize("width", [80, 40])
def test_what_is_said_on_an_interruption_has_more_room_than_the_screen_takes_back(width: int) -> None:
    console = Console(width=width, force_terminal=True, legacy_windows=False)
    assert len(console.render_lines(progress.screen(pace_at(30), console))) <= LIVE_LINES


def test_a_terminal_without_the_letters_gets_others() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=file, width=100, force_terminal=True, color_system=None, legacy_windows=False)
    console.print(progress.screen(pace_at(30), console))
    file.flush()
    said = file.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "> tensors  * flush" in said


# ------------------------------------------------------------------------------------------------ notebooks


class Cells(HTMLParser):
    """The text of a table's cells, row by row; every tag has to be closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.rows[-1][-1] += data


def test_the_table_of_a_notebook_has_every_figure_and_escapes_them() -> None:
    html = notebook.table_html([*progress.rows(pace_at(30)), ("<b>", "a & b")], 0.3)
    rows = {row[0]: row[1].strip() for row in Cells(html).rows}
    assert rows == {
        "done": "30%",
        "stage": "→ tensors  · flush, index, card  · verify",
        "tensors": "40 of 100 tensors (2 passes 30/90, copied 10/10)",
        "bytes": "in 60.0 MiB at 2.00 MiB/s, out 30.0 MiB at 1.00 MiB/s",
        "memory": "300 MiB, peak 350 MiB of 400 MiB",
        "workers": "1.5 of 2 workers busy",
        "time": "30.0 s so far, 1 min 10 s left",
        "<b>": "a & b",
    }
    assert "width:30.0%" in html


def test_a_kernel_gets_one_table_that_is_updated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """IPython itself is not installed here: these are the two functions of it that are called."""
    shown: list[str] = []
    updated: list[str] = []

    def display(thing: Any, *, display_id: bool) -> SimpleNamespace:
        assert display_id
        shown.append(thing._repr_html_())
        return SimpleNamespace(update=lambda other: updated.append(other._repr_html_()))

    ipython, inside = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    inside.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", inside)
    with progress.RunProgress(None, lambda: 300 * MIB, enabled=True) as callback:
        for second in range(3):
            callback(at(second))
    assert len(shown) == 1
    assert len(updated) == 3
    assert "2%" in updated[1]
    # The last state stays below the cell.
    assert "100%" in updated[2]
    assert "✓ tensors  ✓ flush, index, card  ✓ verify" in updated[2]
    assert " left" not in updated[2]
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    # A shell on a terminal is none.
    ipython.get_ipython = lambda: SimpleNamespace()  # type: ignore[attr-defined]
    assert notebook.display_of() is None


def test_what_is_on_an_accelerator_is_told_where_something_is() -> None:
    assert "on the device" not in progress.memory(pace_at(30))
    assert progress.memory(pace_at(30, device_bytes=2 << 30)).endswith("of 400 MiB, 2.00 GiB on the device")


def test_work_of_one_stage_has_no_list_of_stages() -> None:
    assert "stage" not in dict(progress.rows(pace_at(30, stages=("tensors",))))


def test_nobody_imports_ipython() -> None:
    assert "IPython" not in sys.modules
    assert notebook.display_of() is None


# ------------------------------------------------------------------------------------------------ the callback


def test_a_callback_is_told_every_stage_in_order(tmp_path: Path) -> None:
    save_model(tmp_path / "a", {f"model.layers.{layer}.w": torch.ones(300, 300) for layer in range(3)})
    seen: list[Progress] = []
    recipe = write_recipe(tmp_path / "recipe.yml", COPY)
    plait.plan(recipe, workers=1).run(tmp_path / "out", progress=seen.append, verify=True)
    stages = [now.stage for now in seen]
    assert list(dict.fromkeys(stages)) == list(STAGES)
    assert stages == sorted(stages, key=STAGES.index)
    assert all(now.stages == STAGES for now in seen)
    assert all(now.resident_bytes > 0 for now in seen)
    tensors = [now for now in seen if now.stage == "tensors"]
    assert tensors[-1].work_share == pytest.approx(1.0)
    assert (tensors[-1].tensors_done, tensors[-1].parts) == (3, (Part("copied", 3, 3),))
    assert all(now.seconds_left is None or now.seconds_left >= 0 for now in seen)
    assert seen[-1].share == 1.0


def test_true_shows_what_the_command_line_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tmp_path / "a", {"model.layers.0.w": torch.ones(300, 300)})
    plan = plait.plan(write_recipe(tmp_path / "recipe.yml", COPY), workers=1)
    plan.run(tmp_path / "quick", progress=True)  # over before the first line is due
    assert capsys.readouterr().err == ""
    plan.run(tmp_path / "silent", progress=False)


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.RunProgress(400 << 20, lambda: 300 << 20, enabled=False) as shown:
        shown(Progress(1, 0, 100, 1, 100, 60.0))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
