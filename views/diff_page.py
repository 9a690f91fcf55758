"""A comparison as one web page: nothing is fetched, and what colours and pointing tell stands in tables as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .diff import summary
from .figures import cosine, nonfinite, percent
from .heat import heat_maps, scale_of
from .layout import count
from .page_parts import THEME_BUTTON, head, script, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..diff_report import DiffReport, Figures, TensorDiff
    from .heat import HeatMap, Scale

_MOST_COLUMNS, _MOST_ROWS = 40, 256
_MOST_LISTED = 25


def page(report: DiffReport) -> Iterator[str]:
    """The page's lines; of a model with many tensors they are not held all at once."""
    a, b = shown(report.a), shown(report.b)
    yield from head(f"{report.b} beside {report.a} – plait diff", "diff.css")
    yield "<body>"
    yield f"<header><h1><span>{b}</span> beside <span>{a}</span></h1>{THEME_BUTTON}"
    yield "<p>A is the reference. Relative L2 is ‖A-B‖ / ‖A‖; changed is the share of elements that differ.</p>"
    yield "</header>"
    yield "<main>"
    yield from _summary(report)
    scale = scale_of((*report.cells.values(), *report.kinds.values()))
    maps = heat_maps(report, most_columns=_MOST_COLUMNS, most_rows=_MOST_ROWS)
    if maps:
        yield from _legend(scale)
    for each in maps:
        yield from _heat(each, scale)
    if maps:
        yield '<p id="detail" role="status">Point at a cell, or use the arrow keys, to see all its figures.</p>'
    yield from _kinds(report, scale)
    if report.most_changed:
        yield '<section><h2>Most changed</h2><div class="wide">'
        yield from _tensors(report.most_changed[:_MOST_LISTED], scale, "The tensors that are farthest apart")
        yield "</div></section>"
    yield '<section><h2>All tensors</h2><p><label>Show names with <input id="search" type="search"></label>'
    yield f' <span id="found" role="status">{count(len(report.tensors), "tensor")}</span></p><div class="wide">'
    yield from _tensors(report.tensors, scale, "Every tensor that was compared", name="all")
    yield "</div></section>"
    yield from _missing(report)
    yield "</main>"
    yield script("diff.js")
    yield "</body>"
    yield "</html>"


def _summary(report: DiffReport) -> Iterator[str]:
    yield "<section><h2>Summary</h2><dl>"
    for name, value in summary(report):
        if name:
            yield f"<dt>{shown(name)}</dt>"
        yield f"<dd>{shown(value)}</dd>"
    yield "</dl></section>"


def _legend(scale: Scale) -> Iterator[str]:
    if not scale.high:
        yield '<p class="legend">Nothing differs.</p>'
        return
    yield (
        f'<p class="legend">Relative L2: {percent(scale.low)} <span class="ramp" aria-hidden="true"></span> '
        f"{percent(scale.high)}, on a logarithmic scale; what is identical has no colour.</p>"
    )


def _heat(each: HeatMap, scale: Scale) -> Iterator[str]:
    stack = shown(each.stack)
    yield f'<section><h2>{stack}</h2><div class="wide"><table class="heat" role="grid">'
    yield f"<caption>Relative L2 by layer of {stack} and kind of tensor</caption>"
    columns = "".join(f'<th scope="col"><span>{shown(column)}</span></th>' for column in each.columns)
    yield f'<thead><tr><th scope="col">layer</th>{columns}</tr></thead><tbody>'
    for row in each.rows:
        label = str(row[0]) if len(row) == 1 else f"{row[0]}–{row[-1]}"
        cells = "".join(
            _heat_cell(each.cells.get((row, column)), f"layer {label}, {column}", scale) for column in each.columns
        )
        yield f'<tr><th scope="row">{label}</th>{cells}</tr>'
    yield "</tbody></table></div></section>"


def _heat_cell(figures: Figures | None, where: str, scale: Scale) -> str:
    if figures is None:
        return "<td></td>"
    what = shown(f"{where}: {_words(figures)}")
    value = "=" if figures.identical else percent(figures.relative_l2)
    return f'<td tabindex="-1"{_heat_of(figures, scale)} title="{what}">{value}</td>'


def _heat_of(figures: Figures, scale: Scale) -> str:
    """The attribute that colours a cell; none for what has no heat."""
    value = figures.relative_l2
    return f' style="--heat:{0.08 + 0.92 * scale.heat(value):.3f}"' if value else ""


def _words(figures: Figures) -> str:
    """All figures in a line."""
    parts = [
        f"cosine {cosine(figures.cosine)}",
        f"relative L2 {percent(figures.relative_l2)}",
        f"changed {percent(figures.changed_share)} of {count(figures.elements, 'element')}",
        f"largest change {figures.largest_change:.3g}" if figures.numeric else "",
        nonfinite(figures),
    ]
    return ", ".join(filter(None, parts))


def _kinds(report: DiffReport, scale: Scale) -> Iterator[str]:
    yield '<section><h2>Kinds of tensors</h2><div class="wide"><table><caption>All layers together</caption>'
    yield _head("kind", "stack", "cosine", "relative L2", "changed", "elements")
    yield "<tbody>"
    for (stack, kind), figures in report.kinds.items():
        cells = _figure_cells(figures, scale)
        yield f'<tr><th scope="row">{shown(kind)}</th><td>{shown(stack or "–")}</td>{cells}</tr>'
    yield "</tbody></table></div></section>"


def _tensors(tensors: Iterable[TensorDiff], scale: Scale, caption: str, *, name: str | None = None) -> Iterator[str]:
    marked = f' id="{name}"' if name else ""
    yield f"<table{marked}><caption>{caption}</caption>"
    yield _head("tensor", "shape", "dtype", "cosine", "relative L2", "changed", "elements", sortable=name is not None)
    yield "<tbody>"
    for tensor in tensors:
        dtype = tensor.dtype_a if tensor.dtype_a == tensor.dtype_b else f"{tensor.dtype_a} → {tensor.dtype_b}"
        yield (
            f'<tr><th scope="row">{shown(tensor.name)}</th><td>{list(tensor.shape)}</td><td>{dtype}</td>'
            f"{_figure_cells(tensor.figures, scale)}</tr>"
        )
    yield "</tbody></table>"


def _figure_cells(figures: Figures, scale: Scale) -> str:
    """Cosine, relative L2, share of changes, elements; ``data-value`` is what a column is sorted by."""
    value = figures.relative_l2
    columns = (
        (figures.cosine, cosine(figures.cosine), ""),
        (value, percent(value), _heat_of(figures, scale)),
        (figures.changed_share, percent(figures.changed_share), ""),
        (figures.elements, f"{figures.elements:,}".replace(",", "\u202f"), ""),
    )
    return "".join(
        f'<td class="number"{heat} data-value="{"" if number is None else number}">{text}</td>'
        for number, text, heat in columns
    )


def _head(*titles: str, sortable: bool = False) -> str:
    shown = (f'<button type="button">{title}</button>' if sortable else title for title in titles)
    return "<thead><tr>" + "".join(f'<th scope="col">{title}</th>' for title in shown) + "</tr></thead>"


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
