"""What `plait diff` shows: on a screen of any width, without colour, through a pipe."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from diff_support import LLAMA, figures, page_of, report_of
from plait.reports.diff_report import StackLayers, Unlike
from plait.views import console as console_view
from plait.views import diff as diff_view
from plait.views.figures import cosine, percent
from plait.views.heat import heat_maps, scale_of
from rich.console import Console

if TYPE_CHECKING:
    from plait.reports.diff_report import DiffReport


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
    (folded,) = heat_maps(report.cells, most_columns=9, most_rows=48)
    assert folded.columns == ("attention", "mlp", "norm", "other")
    assert len(folded.rows) <= 48
    assert [layer for row in folded.rows for layer in row] == list(range(100))
    # 34 rows of three layers and one of the last: together, squares are added.
    one = folded.cells[folded.rows[0], "attention"]
    assert one.elements == 100 * 9 * 3
    assert one.relative_l2 == pytest.approx(((0.03**2 * 2 + 0.01**2) / 3) ** 0.5)
    (whole,) = heat_maps(report.cells, most_columns=None, most_rows=None)
    assert (len(whole.columns), len(whole.rows)) == (21, 100)


def test_biases_join_their_weights_before_kinds_are_grouped() -> None:
    kinds = ["attn.c_attn", "attn.c_attn.bias", "ln_1", "ln_1.bias"]
    (folded,) = heat_maps(report_of({(0, kind): figures() for kind in kinds}).cells, most_columns=2, most_rows=None)
    assert folded.columns == ("attn.c_attn", "ln_1")


def test_heat_reads_without_colour() -> None:
    cells = {(0, "a"): figures(0), (0, "b"): figures(0.001), (0, "c"): figures(0.1), (1, "a"): figures(None)}
    _, first, second = map_rows(report_of(cells))
    assert first.split() == ["0", "=", "0%", "░0.10%", "█10.0%"]
    assert second.split() == ["1", "–"]
    scale = scale_of(cells.values())
    assert [scale.level(value) for value in (0.001, 0.003, 0.03, 0.05, 0.1, 7.0)] == [0, 0, 2, 3, 3, 3]
    assert (scale.heat(0.0001), scale.heat(0.1)) == (0, 1)
    assert scale.heat(0.01) == pytest.approx(0.5)


def test_nearly_the_same_looks_the_same() -> None:
    scale = scale_of([figures(0.1), figures(0.098)])
    assert scale.level(0.1) == scale.level(0.098)


def test_numbers_never_look_rounder_than_they_are() -> None:
    values = (0, 1e-9, 0.0012, 0.00999, 0.09994, 0.09996, 0.5, 0.99949, 0.9999, 1, 2.5, 1e9, float("inf"))
    said = "0% <.01% 0.12% 1.00% 9.99% 10.0% 50.0% 99.9% <100% 100% 250% >9k% ∞"
    assert [percent(value) for value in values] == said.split()
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
    assert "<script>alert" not in page_of(report)
    assert "\x1b" not in page_of(report)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_stream_without_the_letters_gets_others(encoding: str) -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding=encoding, newline="\n"), width=80)
    report = report_of({(0, "a"): figures(0.001), (0, "b"): figures(0.1), (0, "c"): figures(float("inf"))})
    console_view.print_lines(console, diff_view.page(report, 80, verbose=False))
    console.file.flush()
    text = raw.getvalue().decode(encoding)
    assert ".0.10%" in text
    assert "@10.0%" in text
    assert "|A-B| / |A|" in text
