"""Figures on a page: heat maps whose figure can be chosen, tables of kinds and of tensors.

What colours tell is a number in the cell, and all of a cell's figures are in a line that pointer and keyboard reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .figures import cosine, nonfinite, percent
from .heat import Scale, heat_maps, scale_between, scale_of
from .layout import count
from .page_parts import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..reports.diff_report import Figures, TensorDiff
    from .heat import HeatMap

_MOST_COLUMNS, _MOST_ROWS = 40, 256
_COLDEST = 0.08
"""Heat of the coldest cell that is not identical: it has a colour, too."""

_FIGURES = (("l", "relative L2"), ("c", "cosine"), ("s", "changed"))
"""What a map can show; the letters are those of the style sheet."""

DETAIL = '<p class="detail" role="status">Point at a cell, or use the arrow keys, to see all its figures.</p>'
"""Where a map's cells tell their figures."""

WIDE = '<div class="wide" tabindex="0" role="group" aria-label="table">'
"""What a table stands in that may be wider than the page; a keyboard can scroll it."""


class Scales(NamedTuple):
    """What heat means: relative L2 and 1 - cosine on logarithmic scales."""

    distance: Scale
    turn: Scale


def scales_of(figures: Iterable[Figures]) -> Scales:
    """The scales that fit what is shown."""
    found = list(figures)
    return Scales(scale_of(found), scale_between(_turn(each) for each in found))


def page_maps(cells: Mapping[tuple[str, int, str], Figures]) -> list[HeatMap]:
    """Heat maps that a page has room for."""
    return heat_maps(cells, most_columns=_MOST_COLUMNS, most_rows=_MOST_ROWS)


def figure_switch(name: str, scales: Scales) -> Iterator[str]:
    """Buttons that choose the figure of the maps below them, and what its colours mean."""
    yield f'<fieldset class="switch" data-figures><legend>{shown(name)}</legend>'
    for letter, title in _FIGURES:
        checked = " checked" if letter == "l" else ""
        yield f'<label><input type="radio" name="{shown(name)}" value="{letter}"{checked}> {title}</label>'
    yield "</fieldset>"
    if not scales.distance.high:
        yield '<p class="legend">Nothing differs.</p>'
        return
    distance, turn = scales
    ramp = '<span class="ramp" aria-hidden="true"></span>'
    yield (
        f'<p class="legend" data-figure="l">Relative L2: {percent(distance.low)} {ramp} '
        f"{percent(distance.high)}, on a logarithmic scale; = is identical.</p>"
    )
    yield (
        f'<p class="legend" data-figure="c" hidden>Cosine: {cosine(1 - turn.low)} {ramp} {cosine(1 - turn.high)}, '
        "by its distance from 1 on a logarithmic scale; = is identical.</p>"
    )
    yield (
        f'<p class="legend" data-figure="s" hidden>Share of the elements that changed: 0% {ramp} 100%; '
        "= is identical.</p>"
    )


def heat_table(each: HeatMap, scales: Scales) -> Iterator[str]:
    """A map as a table that arrow keys walk through."""
    stack = shown(each.stack)
    yield '<div class="wide"><table class="heat" role="grid" data-figure="l">'
    yield f"<caption>By layer of {stack} and kind of tensor</caption>"
    columns = "".join(f'<th scope="col"><span>{shown(column)}</span></th>' for column in each.columns)
    yield f'<thead><tr><th scope="col">layer</th>{columns}</tr></thead><tbody>'
    for row in each.rows:
        label = str(row[0]) if len(row) == 1 else f"{row[0]}–{row[-1]}"
        cells = "".join(
            _heat_cell(each.cells.get((row, column)), f"layer {label}, {column}", scales) for column in each.columns
        )
        yield f'<tr><th scope="row">{label}</th>{cells}</tr>'
    yield "</tbody></table></div>"


def _heat_cell(figures: Figures | None, where: str, scales: Scales) -> str:
    if figures is None:
        return "<td></td>"
    what = shown(f"{where}: {words(figures)}")
    if figures.identical:
        return f'<td tabindex="-1" title="{what}">=</td>'
    turn, distance = _turn(figures), figures.relative_l2
    heats = (
        ("l", scales.distance.heat(distance) if distance else None),
        ("c", scales.turn.heat(turn) if turn else None),
        ("s", figures.changed_share),
    )
    style = ";".join(f"--{letter}:{_COLDEST + (1 - _COLDEST) * heat:.2f}" for letter, heat in heats if heat is not None)
    texts = percent(distance), _short(figures.cosine), percent(figures.changed_share)
    data = "".join(f' data-{letter}="{text}"' for (letter, _), text in zip(_FIGURES, texts, strict=True))
    return f'<td tabindex="-1" style="{style}"{data} title="{what}">{texts[0]}</td>'


def _turn(figures: Figures) -> float | None:
    """1 - cosine; None where there is none."""
    return None if figures.cosine is None else 1.0 - figures.cosine


def _short(value: float | None) -> str:
    """A cosine for a narrow cell: four digits, cut off."""
    text = cosine(value)
    return text[:-2] if "." in text else text


def words(figures: Figures) -> str:
    """All figures in a line."""
    parts = [
        f"cosine {cosine(figures.cosine)}",
        f"relative L2 {percent(figures.relative_l2)}",
        f"changed {percent(figures.changed_share)} of {count(figures.elements, 'element')}",
        f"largest change {figures.largest_change:.3g}" if figures.numeric else "",
        nonfinite(figures),
    ]
    return ", ".join(filter(None, parts))


def kinds_table(kinds: Mapping[tuple[str | None, str], Figures], scales: Scales) -> Iterator[str]:
    """A line a kind of tensor."""
    yield f"{WIDE}<table><caption>All layers together</caption>"
    yield table_head("kind", "cosine", "relative L2", "changed", "elements", "stack")
    yield "<tbody>"
    for (stack, kind), figures in kinds.items():
        cells = _figure_cells(figures, scales)
        yield f'<tr><th scope="row">{shown(kind)}</th>{cells}<td>{shown(stack or "–")}</td></tr>'
    yield "</tbody></table></div>"


def tensors_table(
    tensors: Iterable[TensorDiff], scales: Scales, caption: str, *, name: str | None = None
) -> Iterator[str]:
    """A line a tensor; a table with a ``name`` can be sorted."""
    marked = f' id="{name}"' if name else ""
    yield f"{WIDE}<table{marked}><caption>{caption}</caption>"
    titles = ("tensor", "shape", "dtype", "cosine", "relative L2", "changed", "elements")
    yield table_head(*titles, sortable=name is not None)
    yield "<tbody>"
    for tensor in tensors:
        dtype = tensor.dtype_a if tensor.dtype_a == tensor.dtype_b else f"{tensor.dtype_a} → {tensor.dtype_b}"
        yield (
            f'<tr><th scope="row">{shown(tensor.name)}</th><td>{list(tensor.shape)}</td><td>{dtype}</td>'
            f"{_figure_cells(tensor.figures, scales)}</tr>"
        )
    yield "</tbody></table></div>"


def _figure_cells(figures: Figures, scales: Scales) -> str:
    """Cosine, relative L2, share of changes, elements; ``data-value`` is what a column is sorted by."""
    value = figures.relative_l2
    heat = f' style="--heat:{_COLDEST + (1 - _COLDEST) * scales.distance.heat(value):.3f}"' if value else ""
    columns = (
        (figures.cosine, cosine(figures.cosine), ""),
        (value, percent(value), heat),
        (figures.changed_share, percent(figures.changed_share), ""),
        (figures.elements, f"{figures.elements:,}".replace(",", "\u202f"), ""),
    )
    return "".join(
        f'<td class="number"{hot} data-value="{"" if number is None else number}">{text}</td>'
        for number, text, hot in columns
    )


def table_head(*titles: str, sortable: bool = False) -> str:
    """The head of a table; one that is ``sortable`` has buttons."""
    texts = (f'<button type="button">{title}</button>' if sortable else title for title in titles)
    return "<thead><tr>" + "".join(f'<th scope="col">{text}</th>' for text in texts) + "</tr></thead>"
