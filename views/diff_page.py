"""A comparison as one web page: nothing is fetched, and what colours and pointing tell stands in tables as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .diff import summary
from .figure_tables import DETAIL, figure_switch, heat_table, kinds_table, page_maps, scales_of, tensors_table
from .layout import count
from .page_parts import THEME_BUTTON, head, script, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..reports.diff_report import DiffReport

_MOST_LISTED = 25


def page(report: DiffReport) -> Iterator[str]:
    """The page's lines; of a model with many tensors they are not held all at once."""
    a, b = shown(report.a), shown(report.b)
    yield from head(f"{report.a} (A) and {report.b} (B) – plait diff", "figures.css", "diff.css")
    yield "<body>"
    yield f"<header><h1><span>{a}</span> (A) and <span>{b}</span> (B)</h1>{THEME_BUTTON}"
    yield "<p>A is the reference. Relative L2 is ‖A-B‖ / ‖A‖; changed is the share of elements that differ.</p>"
    yield "</header>"
    yield "<main>"
    yield from _summary(report)
    scales = scales_of((*report.cells.values(), *report.kinds.values()))
    maps = page_maps(report.cells)
    if maps:
        yield "<section><h2>Layers and kinds of tensors</h2>"
        yield from figure_switch("shown in the map", scales)
        for each in maps:
            yield from heat_table(each, scales)
        yield f"{DETAIL}</section>"
    yield "<section><h2>Kinds of tensors</h2>"
    yield from kinds_table(report.kinds, scales)
    yield "</section>"
    if report.most_changed:
        yield "<section><h2>Most changed</h2>"
        yield from tensors_table(report.most_changed[:_MOST_LISTED], scales, "The tensors that are farthest apart")
        yield "</section>"
    yield '<section><h2>All tensors</h2><p><label>Show names with <input id="search" type="search"></label>'
    yield f' <span id="found" role="status">{count(len(report.tensors), "tensor")}</span></p>'
    yield from tensors_table(report.tensors, scales, "Every tensor that was compared", name="all")
    yield "</section>"
    yield from _missing(report)
    yield "</main>"
    yield script("figures.js", "diff.js")
    yield "</body>"
    yield "</html>"


def _summary(report: DiffReport) -> Iterator[str]:
    yield "<section><h2>Summary</h2><dl>"
    for name, value in summary(report):
        if name:
            yield f"<dt>{shown(name)}</dt>"
        yield f"<dd>{shown(value)}</dd>"
    yield "</dl></section>"


def _missing(report: DiffReport) -> Iterator[str]:
    """What was not compared, in full."""
    for title, names in (
        (f"Only in A ({report.a})", report.only_a),
        (f"Only in B ({report.b})", report.only_b),
        ("In both, not comparable", [f"{each.name}: {each.a} in A, {each.b} in B" for each in report.unlike]),
    ):
        if names:
            yield f"<section><h2>{shown(title)}</h2><details><summary>{count(len(names), 'tensor')}</summary><ul>"
            yield from (f"<li>{shown(name)}</li>" for name in names)
            yield "</ul></details></section>"
