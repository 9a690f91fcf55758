"""What all pages share: a head that forbids fetching, style, scripts. Style and scripts are files in ``assets/``."""

from __future__ import annotations

from html import escape
from importlib import resources
from typing import TYPE_CHECKING

from ..engine.units import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
"""The browser is told to fetch nothing."""

THEME_BUTTON = '<button type="button" class="button" data-theme-toggle aria-pressed="false">Dark</button>'
"""Switches between light and dark; `head` brings the script."""


def asset(name: str) -> str:
    """The text of a file in ``assets/``."""
    return (resources.files("plait.views") / "assets" / name).read_text(encoding="utf-8")


def head(title: str, *styles: str) -> Iterator[str]:
    """A page up to its body. ``title`` is plain text, ``styles`` are assets that come after the shared ``page.css``."""
    yield "<!DOCTYPE html>"
    yield '<html lang="en">'
    yield "<head>"
    yield '<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield f"<title>{shown(title)}</title>"
    for name in ("page.css", *styles):
        yield f"<style>\n{asset(name)}</style>"
    yield script("theme.js")
    yield "</head>"


def script(*names: str) -> str:
    """Assets as one script: what they declare they share."""
    return "<script>\n" + "".join(asset(name) for name in names) + "</script>"


def shown(text: str) -> str:
    """Text for a page: characters that would mean something are escaped, control characters are made visible."""
    return escape(clean(text))
