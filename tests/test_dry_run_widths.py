"""The page of a dry run fits: any terminal's width, any stream's letters, with colours and without."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plait.views import console, dry_run
from rich.console import Console
from view_support import DARE, FREE_BYTES, LAYERS, SCALED, passthrough

if TYPE_CHECKING:
    from collections.abc import Mapping

    import plait
    from rich.text import Text

FILTERS = "[{filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}, {filter: mlp, value: [1, 0]}, {value: 0.5}]"
RECIPES = {
    "dare": DARE.replace("weight: 0.5", "weight: [0.1, 0.9]") + "    unknown: 1\n",
    "slerp": f"""
        merge_method: slerp
        base_model: BASE
        models: [{{model: FT1}}]
        parameters: {{t: {FILTERS}}}
    """,
    "expansion": passthrough(("BASE", 0, LAYERS), *[("BASE", LAYERS - 1, LAYERS, SCALED)] * 4),
    "franken": passthrough(*[part for _ in range(9) for part in (("FT1", 0, 8), ("FT2", 4, 12))]),
    "panels": "merge_method: tsv\nbase_model: BASE\nmodels: [{model: FT1}, {model: FT2}]\n",
}
ENCODINGS = ("ascii", "cp437", "cp850", "cp1252", "utf-8")


@pytest.fixture
def merges(planned) -> Mapping[str, plait.MergePlan]:
    return {name: planned(recipe) for name, recipe in RECIPES.items()}


def lines_of(merge: plait.MergePlan, width: int | None, *, verbose: bool = False) -> list[Text]:
    return list(dry_run.page(merge, width, free_disk_bytes=FREE_BYTES, verbose=verbose))


def test_no_line_is_wider_than_the_terminal(merges) -> None:
    @settings(max_examples=40)
    @given(st.sampled_from(sorted(RECIPES)), st.integers(40, 200), st.booleans())
    def check(name: str, width: int, verbose: bool) -> None:
        for line in lines_of(merges[name], width, verbose=verbose):
            # A path in a warning is not broken: it has a line of its own.
            assert line.cell_len <= width or " " not in line.plain.strip()
            assert line.plain == line.plain.rstrip()

    check()


def test_even_a_very_narrow_terminal_gets_a_page(merges) -> None:
    for merge in merges.values():
        assert lines_of(merge, 10)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_letter_can_be_written(merges, encoding) -> None:
    for merge in merges.values():
        stream = io.BytesIO()
        text = io.TextIOWrapper(stream, encoding=encoding, newline="\n")
        lines = lines_of(merge, 80)
        console.print_lines(Console(file=text, width=80), lines)
        text.flush()
        shown = stream.getvalue().decode(encoding)
        assert "?" not in shown
        assert [len(line) for line in shown.splitlines()] == [len(line.plain) for line in lines]


def test_a_picture_and_its_legend_have_the_same_letters(merges) -> None:
    """cp437 has some of the letters: all of them are replaced, or none."""
    text = io.TextIOWrapper(io.BytesIO(), encoding="cp437", newline="\n")
    console.print_lines(Console(file=text, width=80), lines_of(merges["dare"], 80))
    text.flush()
    lines = text.buffer.getvalue().decode("cp437").splitlines()
    (at,) = (index for index, line in enumerate(lines) if " in use now" in line)
    assert lines[at].split()[0] in lines[at - 1]
    assert not {"█", "░", "▄"} & set("".join(lines))


def test_an_old_windows_console_gets_plain_letters(merges) -> None:
    stream = io.StringIO()
    console.print_lines(Console(file=stream, width=80, legacy_windows=True), lines_of(merges["dare"], 80))
    assert stream.getvalue().isascii()


def test_a_graph_of_many_parts_is_cut_and_the_bars_show_all(planned) -> None:
    starts = [7, 2, 9, 0, 5, 3, 8, 1, 6, 4] * 3
    merge = planned(passthrough(*[(f"FT{1 + index % 2}", at, at + 1) for index, at in enumerate(starts)]))
    lines = [line.plain for line in lines_of(merge, None)]
    assert len([line for line in lines if line.startswith(("├ ", "└ "))]) == 19
    assert sum(" more, all with -v" in line for line in lines) == 1
    full = "\n".join(line.plain for line in lines_of(merge, None, verbose=True))
    assert all(f"model.layers.{layer}  " in full for layer in range(len(starts)))


def test_colours_are_for_models_and_the_page_says_the_same_without(merges) -> None:
    coloured, plain = io.StringIO(), io.StringIO()
    lines = lines_of(merges["franken"], 80)
    console.print_lines(Console(file=coloured, width=80, force_terminal=True, color_system="truecolor"), lines)
    console.print_lines(Console(file=plain, width=80), lines)
    assert "\x1b[1;36mA" in coloured.getvalue()
    assert "\x1b[1;35mB" in coloured.getvalue()
    stripped = "".join(
        part if index == 0 else part.partition("m")[2] for index, part in enumerate(coloured.getvalue().split("\x1b["))
    )
    assert stripped == plain.getvalue()


def test_without_v_the_page_is_short(merges) -> None:
    for merge in merges.values():
        assert len(lines_of(merge, 80)) <= 60
