"""The page of methods in the docs: all of it from the declarations, and as committed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from plait import ops as _registered
from plait.engine.methoddef import MethodDef, Param, methods
from plait.engine.trial import Cost, Trial, try_out
from plait.views import method_page, method_words

assert _registered

DOCS = Path(__file__).resolve().parent.parent / "docs"
TRIALS = {name: try_out(method) for name, method in methods().items()}


def test_the_committed_page_is_what_the_methods_declare() -> None:
    committed = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert committed == method_page.page(methods(), TRIALS), "docs/methods.md is out of date: run `make docs`"


@pytest.mark.parametrize("name", methods())
def test_a_section_says_all_that_is_declared(name: str) -> None:
    method, text = methods()[name], method_page.section(methods()[name], TRIALS[name])
    assert method.summary in text
    assert f"\n{method.formula}\n" in text
    assert TRIALS[name].recipe in text
    assert method.paper.partition("arXiv:")[0] in text
    for param in method.params:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{param.name}` |")]
        assert param.help.replace("|", "\\|") in row
        assert all(choice in row for choice in param.choices)
        assert ("required" in row) == param.required


def test_every_method_is_in_the_table_and_has_one_section() -> None:
    page = method_page.page(methods(), TRIALS)
    assert sorted(re.findall(r"^### (\S+)$", page, re.MULTILINE)) == sorted(methods())
    assert re.findall(r"^\| \[(\w+)\]\(#\1\) \|", page, re.MULTILINE) == list(methods())
    for line in page.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (6, 7)  # five columns, or six


def test_a_bar_does_not_end_a_cell_and_a_paper_is_linked() -> None:
    param = Param("bound", "float", "tensor", "|x| at most", default=0.5, low=0.0, high=1.0)
    method = MethodDef("m", "One", None, (param,), "unused", False, 1, 3, "A 2024, B, arXiv:2403.19522", "x")
    text = method_page.section(method, Trial("r\n", Cost(1, "element"), ()))
    assert "| `bound` | float | per tensor | 0.5 | at least 0, at most 1 | \\|x\\| at most |" in text
    assert "A 2024, B, [arXiv:2403.19522](https://arxiv.org/abs/2403.19522)" in text
    assert "- Models: 1 to 3\n" in text


def test_passes_are_said_with_what_changes_them() -> None:
    row, two, whole = Cost(1, "row"), Cost(2, "element"), Cost(1, "whole", 96)
    trial = Trial("", two, (((("a", "true"),), row), ((("b", "l1"),), row), ((("a", "true"), ("c", "false")), whole)))
    assert method_words.passes(trial, quote="`") == (
        "2; 1 (by whole rows) with `a: true` or `b: l1`; "
        "1 (a tensor at once, 96 MiB beside the tiles) with `a: true` and `c: false`"
    )
    much, more = Cost(4, "element", 6), Cost(5, "element", 6)
    assert method_words.passes(Trial("", much, (((("a", "l1"),), more),))) == "4 (6 MiB beside the tiles); 5 with a: l1"
    assert method_words.passes_in_short(trial) == "1 to 2 passes"
    assert method_words.passes_in_short(Trial("", row, ())) == "1 pass"


def test_links_between_the_pages_of_the_docs_lead_somewhere() -> None:
    for path in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        for target, anchor in re.findall(r"\]\(([\w./-]*)(#[\w-]+)?\)", path.read_text(encoding="utf-8")):
            page = (path.parent / target) if target else path
            assert page.exists(), f"{path.name}: {target}"
            if anchor and page.suffix == ".md":
                assert anchor in anchors(page), f"{path.name}: {target}{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in found}
