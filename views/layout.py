"""Text in lines of a given width: names shortened in the middle, columns, trees. A width of None is no limit."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.units import clean as clean
from ..engine.units import format_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GAP = 2
_LEAST_LABEL = 12


@dataclass(frozen=True)
class Row:
    """A line of a table: a label that may be shortened, and cells. Without cells the label has the whole line.

    ``guide`` stands before the label and is never shortened: the branches of a tree.
    """

    label: Text
    cells: Sequence[Text] = ()
    guide: Text = field(default_factory=Text)


def shorten(text: Text, width: int) -> Text:
    """At most ``width`` columns, by leaving out the middle: beginning and end tell names apart."""
    if text.cell_len <= width:
        return text
    if width < 1:
        return Text()
    head, tail = (width - 1) // 2, width - 1 - (width - 1) // 2
    while True:
        end = text[len(text) - tail :] if tail else Text()
        short = Text.assemble(text[:head], "…", end)
        if short.cell_len <= width:
            return short
        # Letters that take two columns: give up one after the other, from the longer side.
        head, tail = (head - 1, tail) if head >= tail else (head, tail - 1)


def wrap(text: str, width: int | None, *, indent: int = 0) -> list[str]:
    """Break between words; words that are longer than a line stay whole. Lines after the first are indented."""
    if width is None or len(text) <= width:
        return [text]
    return textwrap.wrap(
        text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ) or [""]


def table(rows: Sequence[Row], width: int | None, *, right: Iterable[int] = (), indent: int = 2) -> list[Text]:
    """Rows as aligned lines. ``right`` are the cells that are aligned to the right; no line ends in spaces."""
    to_right = frozenset(right)
    columns = max((len(row.cells) for row in rows), default=0)
    widths = [
        max((row.cells[index].cell_len for row in rows if index < len(row.cells)), default=0)
        for index in range(columns)
    ]
    first = max((row.guide.cell_len + row.label.cell_len for row in rows if row.cells), default=0)
    if width is not None:
        room = width - indent - sum(widths) - _GAP * columns
        first = min(first, max(room, _LEAST_LABEL))
    lines = []
    for row in rows:
        line = Text(" " * indent)
        line.append_text(row.guide)
        if not row.cells:
            line.append_text(row.label if width is None else shorten(row.label, width - line.cell_len))
            lines.append(line)
            continue
        room = first - row.guide.cell_len
        label = shorten(row.label, room)
        line.append_text(label)
        line.append(" " * (room - label.cell_len))
        for index, cell in enumerate(row.cells):
            padding = " " * (widths[index] - cell.cell_len)
            line.append(" " * _GAP + (padding if index in to_right else ""))
            line.append_text(cell)
            line.append("" if index in to_right else padding)
        line.rstrip()
        lines.append(line)
    return lines


def facts(pairs: Sequence[tuple[str, str]], width: int | None) -> list[Text]:
    """Names and values below each other; a long value goes on under itself."""
    first = max((len(name) for name, _ in pairs), default=0)
    lines = []
    for name, value in pairs:
        room = None if width is None else max(width - first - 4, 20)
        for index, part in enumerate(wrap(clean(value), room)):
            lines.append(Text.assemble("  ", (f"{name if index == 0 else '':<{first}}", "dim"), "  ", part))
    return lines


def heading(title: str, note: str = "") -> Text:
    """The line above a part of a page."""
    return Text.assemble((title, "bold"), ("  " + note if note else "", "dim"))


def count(number: int, one: str, many: str | None = None) -> str:
    """``1 shard``, ``4 shards``; thousands apart."""
    return format_count(number) + " " + (one if number == 1 else many or one + "s")
