"""Pieces of SVG pictures: text and shapes, and a style for light and dark grounds."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from rich.text import Text

from .layout import clean, shorten
from .palette import colours, model_colours

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CELL = 0.62
"""Width of a letter of the fixed-width type over its size, about; a little more than what most have."""

_TYPE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; font-size: 13px; }
.mono { font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.mono { font-size: 12.5px; }
.small { font-size: 11.5px; }
.title { font-size: 22px; font-weight: 650; }
.head { font-size: 12px; font-weight: 650; letter-spacing: .06em; }
.strong { font-weight: 650; }
.middle { text-anchor: middle; }
.end { text-anchor: end; }
.strand { fill: none; stroke-linecap: round; stroke-linejoin: round; }
.wire { fill: none; stroke-width: 1.5; }
"""


def style(*, inside: bool = False) -> str:
    """Classes for type and colours. ``ink`` fills, ``ink-edge`` draws lines; models are ``model0``, ``model1`` …

    ``inside`` of a page it is light or dark as the page is, else as the system is.
    """
    named = {f"model{number}": colour for number, colour in enumerate(model_colours())} | dict(colours())

    def rules(*index: int) -> str:
        return "\n".join(
            f".{name} {{ fill: {colour}; }} .{name}-edge {{ stroke: {colour}; }}"
            for name, both in named.items()
            if name in _USED or name[:-1] == "model"
            for colour in [both[index[0]] if len(index) == 1 else f"light-dark({both[0]}, {both[1]})"]
        )

    if inside:
        return f"<style>{_TYPE}{rules(0, 1)}\n</style>"
    return f"<style>{_TYPE}{rules(0)}\n@media (prefers-color-scheme: dark) {{\n{rules(1)}\n}}\n</style>"


_USED = ("ground", "sunken", "ink", "soft", "line", "edge", "model-ink")


def shown(text: str) -> str:
    """Text as XML holds it: markup is escaped, and what is not visible is spelled out."""
    return escape(clean(text))


def fitted(text: str, width: float, *, size: float = 12.5) -> str:
    """At most what a width has room for in fixed-width type, by leaving out the middle; not yet escaped."""
    return shortened(text, int(width / (CELL * size)))


def shortened(text: str, columns: int) -> str:
    """At most so many columns, by leaving out the middle; not yet escaped."""
    return shorten(Text(clean(text)), columns).plain


def cells(text: str) -> int:
    """How many columns of a fixed-width type a text takes."""
    return Text(clean(text)).cell_len


def text(x: float, y: float, content: str, classes: str = "ink") -> str:
    """A line of text from a point on its baseline."""
    return f'<text x="{number(x)}" y="{number(y)}" class="{classes}">{shown(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    """A straight line."""
    return f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" class="{classes}"/>'


def box(x: float, y: float, width: float, height: float, classes: str, *, radius: float = 6, more: str = "") -> str:
    """A rectangle with round corners."""
    place = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    return f'<rect {place} rx="{number(radius)}" class="{classes}"{more}/>'


def group(pieces: Iterable[str], *, title: str = "", x: float = 0, y: float = 0, scale: float = 1) -> Iterator[str]:
    """Pieces that belong together, moved; the title is shown where somebody points at them, and read out."""
    smaller = f" scale({scale:.3f})" if scale != 1 else ""
    yield f'<g transform="translate({number(x)} {number(y)}){smaller}">'
    if title:
        yield f"<title>{shown(title)}</title>"
    yield from pieces
    yield "</g>"


def chip(x: float, y: float, mark: str, model: int) -> str:
    """A model's letter on its colour, 18 high, from its upper left corner; `chip_width` wide."""
    width = chip_width(mark)
    letter = (
        f'<text x="{number(x + width / 2)}" y="{number(y + 13)}" class="mono strong middle model-ink">{mark}</text>'
    )
    return box(x, y, width, 18, model_class(model), radius=4) + letter


def model_class(model: int) -> str:
    """The class that fills with a model's colour; with ``-edge`` behind it, the one that draws lines."""
    return f"model{model % len(model_colours())}"


def chip_width(mark: str) -> float:
    """How wide a model's letter is drawn."""
    return 10 + 8 * len(mark)


def number(value: float) -> str:
    """A coordinate, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")
