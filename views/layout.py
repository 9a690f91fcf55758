"""Text in lines of a given width: names shortened in the middle, columns, trees. A width of None is no limit."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.units import clean as clean
from ..engine.units import format_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

GAP = 2
_LEAST_LABEL = 12
_LEAST_WORDS = 16


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


def table(
    rows: Sequence[Row],
    width: int | None,
    *,
    right: Iterable[int] = (),
    indent: int = 2,
    optional: Sequence[int] = (),
    least_label: int = _LEAST_LABEL,
) -> list[Text]:
    """Rows as aligned lines. ``right`` are the cells that are aligned to the right; no line ends in spaces.

    ``optional`` cells go, the first one first, where labels would have fewer than ``least_label`` columns. Labels are
    shortened to fit, and a line that is too long all the same is cut.
    """
    to_right = frozenset(right)
    columns = max((len(row.cells) for row in rows), default=0)
    widths = [
        max((row.cells[index].cell_len for row in rows if index < len(row.cells)), default=0)
        for index in range(columns)
    ]
    first = max((row.guide.cell_len + row.label.cell_len for row in rows if row.cells), default=0)
    kept = list(range(columns))
    if width is not None:

        def room() -> int:
            return width - indent - sum(widths[index] + GAP for index in kept)

        for index in optional:
            if room() < min(first, least_label):
                kept.remove(index)
        first = min(first, max(room(), _LEAST_LABEL))
    lines = []
    for row in rows:
        line = Text(" " * indent)
        line.append_text(row.guide)
        if not row.cells:
            line.append_text(row.label if width is None else shorten(row.label, width - line.cell_len))
            lines.append(line)
            continue
        space = first - row.guide.cell_len
        label = shorten(row.label, space)
        line.append_text(label)
        line.append(" " * (space - label.cell_len))
        for index in kept:
            cell = row.cells[index]
            padding = " " * (widths[index] - cell.cell_len)
            line.append(" " * GAP + (padding if index in to_right else ""))
            line.append_text(cell)
            line.append("" if index in to_right else padding)
        line.rstrip()
        lines.append(line if width is None else cut(line, width))
    return lines


def cut(text: Text, width: int) -> Text:
    """At most ``width`` columns, by leaving out the end."""
    if text.cell_len <= width:
        return text
    short = text.copy()
    short.truncate(max(width - 1, 0))
    return Text.assemble(short, "…")


def beside(label: Text, picture: Text, words: str, width: int | None, *, first: int, columns: int) -> Iterator[Text]:
    """A label in ``first`` columns, a picture in ``columns``, and words beside it that go on under themselves.

    Without a picture the words have its place; where there is little room for them they stand below. At a hard space
    words are not broken.
    """
    line = Text.assemble(label, " " * (first - label.cell_len))
    at = first + GAP
    if picture.cell_len:
        line = Text.assemble(line, " " * GAP, picture)
        at += columns + GAP
        if width is not None and width - at < min(_LEAST_WORDS, len(words)):
            line.rstrip()
            yield cut(line, width)
            line, at = Text(), first + GAP
    for index, part in enumerate(wrap(words, None if width is None else max(width - at, 8))):
        part = part.replace("\u00a0", " ")
        whole = Text.assemble(line, " " * (at - line.cell_len), part) if index == 0 else Text(" " * at + part)
        whole.rstrip()
        yield whole


def facts(pairs: Sequence[tuple[str, str]], width: int | None, *, style: str = "dim", indent: int = 2) -> list[Text]:
    """Names and values below each other; a long value goes on under itself."""
    first = max((len(name) for name, _ in pairs), default=0)
    lines = []
    for name, value in pairs:
        room = None if width is None else max(width - first - indent - GAP, 12)
        for index, part in enumerate(wrap(clean(value), room)):
            label = (f"{name if index == 0 else '':<{first}}", style)
            lines.append(Text.assemble(" " * indent, label, " " * GAP, part))
    return lines


def heading(title: str, note: str = "") -> Text:
    """The line above a part of a page."""
    return Text.assemble((title, "bold"), ("  " + note if note else "", "dim"))


def count(number: int, one: str, many: str | None = None) -> str:
    """``1 shard``, ``4 shards``; thousands apart."""
    return format_count(number) + " " + (one if number == 1 else many or one + "s")
