"""The page of `plait diff`, and the command as a whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from diff_support import LLAMA, drawn, figures, moved, named, page_of, report_of
from merge_support import save_model
from page_support import Page

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_support import Said


# ------------------------------------------------------------------------------------------------ the page


def test_the_page_holds_every_tensor_and_fetches_nothing() -> None:
    cells = {(i, kind): figures((i + 1) / 1000) for i in range(32) for kind in LLAMA}
    report = report_of(cells, [("lm_head.weight", figures(0)), ("ids", figures(None))])
    report = replace(report, only_a=("gone.weight",), only_b=("new.weight",))
    text = page_of(report)
    page = Page(text)
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
    assert all("cosine" in str(value) and "changed 50.0% of 100 elements" in str(value) for value in whole)


def test_the_page_says_which_model_is_the_reference() -> None:
    text = page_of(replace(report_of({}, [("weight", figures(0))]), a="models/base", b="models/<b>"))
    assert "<title>models/base (A) and models/&lt;b&gt; (B) – plait diff</title>" in text
    assert "<h1><span>models/base</span> (A) and <span>models/&lt;b&gt;</span> (B)</h1>" in text
    assert "A is the reference" in text


def test_a_page_of_a_model_without_layers_is_whole_too() -> None:
    assert Page(page_of(report_of({}, [("weight", figures(0))]))).open == []


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


def test_the_command_shows_writes_and_reports(models: Path, say: Callable[..., Said]) -> None:
    shown = command(models, "a", "b", "--html", "page.html", PYTHONIOENCODING="utf-8", NO_COLOR="1")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "\x1b" not in shown.stdout
    assert "self_attn.q_proj.bias" in shown.stdout
    assert Page((models / "page.html").read_text(encoding="utf-8")).open == []
    assert sorted(path.name for path in models.iterdir()) == ["a", "b", "page.html"]
    said = say("diff", "a", "b", "--json", cwd=models).report
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
    models: Path, say: Callable[..., Said], arguments: tuple[str, ...], code: int, said: str
) -> None:
    before = (models / "b" / "config.json").read_bytes()
    told = say("diff", *arguments, cwd=models)
    assert told.code == code
    assert said in told.err
    assert "Traceback" not in told.err
    assert (models / "b" / "config.json").read_bytes() == before
