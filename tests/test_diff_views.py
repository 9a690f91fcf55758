"""What `plait diff` shows: on a screen of any width, without colour, through a pipe, and as a page."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from plait.cli import main
from plait.diff_report import DiffReport, Figures, StackLayers, TensorDiff, Unlike
from plait.views import console as console_view
from plait.views import diff as diff_view
from plait.views import diff_page
from plait.views.figures import cosine, percent
from plait.views.heat import heat_maps, scale_of
from rich.console import Console
from test_diff import drawn, moved, named, save_model

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def figures(relative_l2: float | None = 0.01, elements: int = 100) -> Figures:
    """Figures of that distance; None for what has no numbers."""
    distance = 0.0 if relative_l2 is None else relative_l2
    changed = elements // 2 if relative_l2 != 0 else 0
    return Figures(elements, changed, relative_l2 is not None, 1.0, 1.0, 1 - distance**2 / 2, distance**2, 0.1, 0, 0)


def report_of(cells: dict[tuple[int, str], Figures], others: Iterable[tuple[str, Figures]] = ()) -> DiffReport:
    tensors = [
        TensorDiff(
            f"model.layers.{layer}.{kind}.weight", "model.layers", layer, f"{kind}.weight", (10, 10), *TWICE, None, of
        )
        for (layer, kind), of in cells.items()
    ]
    tensors += [TensorDiff(name, None, None, name, (10, 10), *TWICE, None, of) for name, of in others]
    layers = max((layer for layer, _ in cells), default=0) + 1
    stacks = (StackLayers("model.layers", layers, layers),)
    return DiffReport("models/a", "models/b", tuple(tensors), (), (), (), stacks, (), 2, 1 << 30, 1.5, 1 << 28, 1 << 28)


TWICE = ("bfloat16", "bfloat16")
LLAMA = [
    *("input_layernorm", "mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "post_attention_layernorm"),
    *(f"self_attn.{letter}_proj" for letter in "kqvo"),
]


def lines(report: DiffReport, width: int | None = 80, *, verbose: bool = False) -> list[str]:
    return [line.plain for line in diff_view.page(report, width, verbose=verbose)]


def map_rows(report: DiffReport, width: int | None = 80) -> list[str]:
    said = lines(report, width)
    start = next(index for index, line in enumerate(said) if line.split()[:2] == ["layer", "a"])
    return said[start : said.index(next(line for line in said[start:] if line.startswith("  relative L2: ")))]


# ------------------------------------------------------------------------------------------------ the screen


def test_a_map_of_a_usual_model_fits_a_screen_and_has_every_number() -> None:
    cells = {(i, kind): figures((i + 1) / 1000 * (j + 1)) for i in range(32) for j, kind in enumerate(LLAMA)}
    header, *rows = map_rows(report_of(cells))
    assert header.split() == ["layer", *"abcdefghi"]
    assert [row.split()[0] for row in rows] == [str(layer) for layer in range(32)]
    for layer, row in enumerate(rows):
        assert re.findall(r"[\d.]+%", row) == [percent(cells[layer, kind].relative_l2) for kind in LLAMA]
    assert max(map(len, lines(report_of(cells)))) <= 80


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("layers", [1, 32, 126])
def test_no_line_is_wider_than_the_screen(width: int, layers: int) -> None:
    kinds = [f"block.module_with_a_long_name_{n}.proj" for n in range(30)]
    report = report_of(
        {(i, kind): figures(0.5) for i in range(layers) for kind in kinds}, [("lm_head" * 20, figures())]
    )
    report = replace(report, only_a=("x" * 100,), unlike=(Unlike("n", "shape", "[1] float32", "[2] float32"),))
    figures_fit = max(width, 60)  # names are shortened; figures are not
    assert [line for line in lines(report, width) if len(line) > figures_fit and "x" * 100 not in line] == []


def test_many_kinds_are_grouped_and_many_layers_share_a_row() -> None:
    kinds = [f"self_attn.part{n}" for n in range(9)] + [f"mlp.part{n}" for n in range(9)] + ["ln_1", "ln_2", "gate"]
    report = report_of({(i, kind): figures(0.01 if i % 2 else 0.03) for i in range(100) for kind in kinds})
    (folded,) = heat_maps(report, most_columns=9, most_rows=48)
    assert folded.columns == ("attention", "mlp", "norm", "other")
    assert len(folded.rows) <= 48
    assert [layer for row in folded.rows for layer in row] == list(range(100))
    # 34 rows of three layers and one of the last: together, squares are added.
    one = folded.cells[folded.rows[0], "attention"]
    assert one.elements == 100 * 9 * 3
    assert one.relative_l2 == pytest.approx(((0.03**2 * 2 + 0.01**2) / 3) ** 0.5)
    (whole,) = heat_maps(report, most_columns=None, most_rows=None)
    assert (len(whole.columns), len(whole.rows)) == (21, 100)


def test_biases_join_their_weights_before_kinds_are_grouped() -> None:
    kinds = ["attn.c_attn", "attn.c_attn.bias", "ln_1", "ln_1.bias"]
    (folded,) = heat_maps(report_of({(0, kind): figures() for kind in kinds}), most_columns=2, most_rows=None)
    assert folded.columns == ("attn.c_attn", "ln_1")


def test_heat_reads_without_colour() -> None:
    cells = {(0, "a"): figures(0), (0, "b"): figures(0.001), (0, "c"): figures(0.1), (1, "a"): figures(None)}
    _, first, second = map_rows(report_of(cells))
    assert first.split() == ["0", "=", "0%", "░0.10%", "█", "10%"]
    assert second.split() == ["1", "–"]
    scale = scale_of(cells.values())
    assert [scale.level(value) for value in (0.001, 0.003, 0.03, 0.05, 0.1, 7.0)] == [0, 0, 2, 3, 3, 3]
    assert (scale.heat(0.0001), scale.heat(0.1)) == (0, 1)
    assert scale.heat(0.01) == pytest.approx(0.5)


def test_nearly_the_same_looks_the_same() -> None:
    scale = scale_of([figures(0.1), figures(0.098)])
    assert scale.level(0.1) == scale.level(0.098)


def test_numbers_never_look_rounder_than_they_are() -> None:
    assert [
        percent(x) for x in (0, 1e-9, 0.0012, 0.00999, 0.0994, 0.09996, 0.5, 0.9999, 1, 2.5, 1e9, float("inf"))
    ] == [
        *("0%", "<.01%", "0.12%", "1.0%", "9.9%", "10%", "50%", ">99%", "100%", "250%", ">9k%", "∞"),
    ]
    assert [cosine(x) for x in (1.0, 0.99999999, 0.5, -1.0, None)] == ["1", "0.999999", "0.500000", "-1", "–"]


def test_the_summary_says_what_was_not_compared() -> None:
    report = report_of({(0, "a"): figures(), (1, "a"): replace(figures(), nonfinite_b=3)})
    missing = tuple(f"model.layers.{layer}.{kind}.weight" for layer in range(2, 6) for kind in ("a", "b"))
    report = replace(
        report,
        only_a=("head.weight", *missing),
        stacks=(StackLayers("model.layers", 6, 2),),
        unlike=(Unlike("norm.weight", "shape", "[3] float32", "[4] float32"),),
        notes=("a note",),
    )
    text = "\n".join(lines(report, None))
    for said in (
        "model.layers: 6 in A, 2 in B; the first 2 are compared",
        "model.layers.2–5: 8 tensors in 4 layers",
        "head.weight",
        "norm.weight: [3] float32 in A, [4] float32 in B",
        "NaN or infinity: 0 in A, 3 in B",
        "a note",
    ):
        assert said in text


def test_verbose_lists_every_tensor() -> None:
    report = report_of({(i, kind): figures(0.01) for i in range(20) for kind in LLAMA})
    said = lines(report, None, verbose=True)
    assert {tensor.name for tensor in report.tensors} <= {line.split()[0] for line in said if line.strip()}
    assert sum("model.layers.19.mlp.up_proj.weight" in line for line in lines(report, None)) == 0


def test_names_are_not_markup_and_no_control_characters() -> None:
    report = report_of({(0, "[red]x[/red]\x1b[31m"): figures()}, [("<script>alert(1)</script>", figures())])
    assert "\x1b" not in "\n".join(lines(report, None))
    assert any("[red]x[/red]" in line for line in lines(report, None))
    assert "<script>alert" not in render(report)
    assert "\x1b" not in render(report)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_stream_without_the_letters_gets_others(encoding: str) -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding=encoding, newline="\n"), width=80)
    report = report_of({(0, "a"): figures(0.001), (0, "b"): figures(0.1), (0, "c"): figures(float("inf"))})
    console_view.print_lines(console, diff_view.page(report, 80, verbose=False))
    console.file.flush()
    text = raw.getvalue().decode(encoding)
    assert ".0.10%" in text
    assert "@  10%" in text
    assert "|A-B| / |A|" in text


# ------------------------------------------------------------------------------------------------ the page


def render(report: DiffReport) -> str:
    return "\n".join(diff_page.page(report))


class _Page(HTMLParser):
    """A page's tags that have to be closed, and its text by table."""

    VOID = frozenset({"meta", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and {"td", "th"} & set(self.open):
            self.cells[-1] += data


def test_the_page_holds_every_tensor_and_fetches_nothing() -> None:
    cells = {(i, kind): figures((i + 1) / 1000) for i in range(32) for kind in LLAMA}
    report = report_of(cells, [("lm_head.weight", figures(0)), ("ids", figures(None))])
    report = replace(report, only_a=("gone.weight",), only_b=("new.weight",))
    text = render(report)
    page = _Page(text)
    assert page.open == []
    assert {tensor.name for tensor in report.tensors} <= set(page.cells)
    assert "gone.weight" in text
    assert "new.weight" in text
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    assert not {name for name, _ in page.attributes} & {"src", "href", "action", "srcset"}
    assert "default-src 'none'" in text
    assert len(text) < 1_000_000
    # A screen reader gets the numbers as cells, the keyboard and the pointer all of them as a line.
    whole = [value for name, value in page.attributes if name == "title"]
    assert len(whole) == len(cells)
    assert all("cosine" in str(value) and "changed 50% of 100 elements" in str(value) for value in whole)


def test_a_page_of_a_model_without_layers_is_whole_too() -> None:
    assert _Page(render(report_of({}, [("weight", figures(0))]))).open == []


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def models(tmp_path: Path) -> Path:
    a = drawn(named())
    save_model(tmp_path / "a", a, {})
    save_model(tmp_path / "b", moved(a), {})
    return tmp_path


def command(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "plait", "diff", *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def test_the_command_shows_writes_and_reports(models: Path) -> None:
    shown = command(models, "a", "b", "--html", "page.html", PYTHONIOENCODING="utf-8", NO_COLOR="1")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "\x1b" not in shown.stdout
    assert "self_attn.q_proj.bias" in shown.stdout
    assert _Page((models / "page.html").read_text(encoding="utf-8")).open == []
    assert sorted(path.name for path in models.iterdir()) == ["a", "b", "page.html"]
    said = json.loads(command(models, "a", "b", "--json").stdout)
    assert set(said) == {
        "a",
        "b",
        "total",
        "stacks",
        "kinds",
        "cells",
        "tensors",
        "only_a",
        "only_b",
        "unlike",
        "notes",
    }
    assert len(said["tensors"]) == 15
    assert len(said["cells"]) == 12


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("a", "missing"), 3, "missing: not found"),
        (("a", "b", "--memory", "20MiB"), 4, "the least that works"),
        (("a", "b", "--html", "a"), 2, "is a folder"),
        (("a", "b", "--html", "no/page.html"), 2, "there is no folder no"),
        (("a", "b", "--html", "b/config.json"), 2, "put the page somewhere else"),
    ],
)
def test_a_mistake_is_a_line(
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    before = (models / "b" / "config.json").read_bytes()
    monkeypatch.chdir(models)
    monkeypatch.setattr(sys, "argv", ["plait", "diff", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == code
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert (models / "b" / "config.json").read_bytes() == before
