"""Figures and heat maps in lines of text: a glyph tells how hot, for those who see no colour."""

from __future__ import annotations

from string import ascii_lowercase
from typing import TYPE_CHECKING

from rich.text import Text

from .figures import UNDEFINED, cosine, percent
from .heat import LEVELS, HeatMap, heat_maps
from .layout import Row, clean, shorten, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..reports.diff_report import Figures
    from .heat import Scale

    Cells = Mapping[tuple[str, int, str], Figures]

_CELL = 6
"""Columns of a cell: a glyph and a number of up to five letters."""

_GLYPHS = "░▒▓█"
_STYLES = ("blue", "cyan", "yellow", "bold red")
_SAME = "="
assert len(_GLYPHS) == len(_STYLES) == LEVELS


def maps(cells: Cells, scale: Scale, width: int | None, *, most_rows: int) -> Iterator[Text]:
    """A heat map a stack, from figures by (stack, layer, kind), and below them what the glyphs mean.

    From more than ``most_rows`` layers on neighbours share a line, where there is a width to keep to.
    """
    room = columns_for(cells, width, most_rows)
    for each in heat_maps(cells, most_columns=room, most_rows=None if width is None else most_rows):
        yield Text()
        yield from _map(each, scale, width)
    if cells:
        yield legend(scale, width)


RIGHT = (0, 1, 2)
"""The cells of `figures_row` that are aligned to the right."""


def columns_for(cells: Cells, width: int | None, most_rows: int) -> int | None:
    """How many columns of a map a width has room for; None for any number."""
    return None if width is None else max((width - 2 - _label_width(cells, most_rows)) // (_CELL + 1), 1)


def titles(first: str) -> Row:
    """The head of a table of figures."""
    return Row(Text(first, "bold"), [Text(title, "bold") for title in ("cosine", "rel. L2", "changed")])


def figures_row(name: str, figures: Figures, scale: Scale) -> Row:
    """A name and its cosine, relative L2 and share of changes."""
    distance = cell_text(figures, scale)
    return Row(Text(clean(name)), [Text(cosine(figures.cosine)), distance, Text(percent(figures.changed_share))])


def cell_text(figures: Figures | None, scale: Scale) -> Text:
    """A glyph that says how hot, and the relative L2."""
    if figures is None:
        return Text(" " * _CELL)
    value = figures.relative_l2
    if value is None:
        return Text(_SAME if figures.identical else UNDEFINED, "dim")
    if value == 0:
        return Text(f"{_SAME if figures.identical else _GLYPHS[0]}{percent(value):>5}", "dim")
    level = scale.level(value)
    return Text(f"{_GLYPHS[level]}{percent(value):>5}", _STYLES[level])


def _label_width(cells: Cells, most_rows: int) -> int:
    """Columns of the longest label of a row."""
    layers = max((layer for _, layer, _ in cells), default=0) + 1
    digits = len(str(layers - 1))
    return max(digits if layers <= most_rows else 2 * digits + 1, len("layer"))


def _map(each: HeatMap, scale: Scale, width: int | None) -> Iterator[Text]:
    """What the columns are, with their figures, and below it the map."""
    marks = [column_mark(index) for index in range(len(each.columns))]
    rows = [titles(f"kinds in {clean(each.stack)}")]
    for mark, column in zip(marks, each.columns, strict=True):
        whole = each.whole(column)
        rows.append(figures_row(column, whole, scale))
        rows[-1].guide.append(f"{mark} ", "bold")
    yield from table(rows, width, right=RIGHT)
    yield Text()
    yield from map_rows(each, scale, dict(zip(each.columns, marks, strict=True)))


def map_rows(each: HeatMap, scale: Scale, marks: Mapping[str, str]) -> Iterator[Text]:
    """The map itself: a line for its columns, by their ``marks``, and one a layer or range of layers."""
    labels = [_span(row) for row in each.rows]
    first = max(map(len, (*labels, "layer")))
    yield Text(f"  {'layer':<{first}}" + "".join(f" {marks[column]:>{_CELL}}" for column in each.columns), "bold")
    for label, row in zip(labels, each.rows, strict=True):
        line = Text(f"  {label:>{first}}")
        for column in each.columns:
            cell = cell_text(each.cells.get((row, column)), scale)
            line.append(" " * (1 + _CELL - cell.cell_len)).append_text(cell)
        line.rstrip()
        yield line


def _span(row: range) -> str:
    return str(row[0]) if len(row) == 1 else f"{row[0]}–{row[-1]}"


def column_mark(index: int) -> str:
    """A to z, then aa, ab and so on."""
    higher, lower = divmod(index, len(ascii_lowercase))
    return (column_mark(higher - 1) if higher else "") + ascii_lowercase[lower]


def legend(scale: Scale, width: int | None) -> Text:
    """What the glyphs of a map mean."""
    line = Text("  relative L2: ", "dim")
    line.append(f"{_SAME} identical", "dim")
    if scale.high:
        for glyph, style, edge in zip(_GLYPHS, _STYLES, scale.edges, strict=True):
            line.append("  ").append(f"{glyph} ≤ {percent(edge)}", style)
    return line if width is None else shorten(line, width)
