"""A live table in a notebook: HTML that is shown once and then updated, no widget and nothing to install.

IPython is never imported here: whoever runs a kernel has done so already, and nobody else pays for looking.
"""

from __future__ import annotations

import sys
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Handle(Protocol):
    """What was shown and can be shown anew: IPython's DisplayHandle."""

    def update(self, obj: object, /) -> None:
        """Show something else in its place."""


class Display(Protocol):
    """IPython's ``display``."""

    def __call__(self, obj: object, /, *, display_id: bool) -> Handle | None:
        """Show something below the cell that runs."""


def display_of() -> Display | None:
    """The way to show something below the cell that runs, None where no kernel does."""
    # A terminal's IPython has a shell, too, and its output is a terminal's.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    display: Any = getattr(sys.modules.get("IPython.display"), "display", None)
    return display  # type: ignore[no-any-return]


class Fragment:
    """HTML as notebooks take it, with a text for those that show none."""

    def __init__(self, html: str, text: str) -> None:
        self._html, self._text = html, text

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return self._text


class NotebookTable:
    """A table below a cell, the same one from the first state to the last."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._handle: Handle | None = None

    def show(self, rows: Sequence[tuple[str, str]], share: float) -> None:
        """Show the figures by name, and a bar for the share that is done, 0 to 1."""
        fragment = Fragment(table_html(rows, share), "\n".join(f"{name}: {value}" for name, value in rows))
        if self._handle is None:
            self._handle = self._display(fragment, display_id=True)
        else:
            self._handle.update(fragment)


def table_html(rows: Sequence[tuple[str, str]], share: float) -> str:
    """The table; colours are the notebook's own, so that light and dark both do."""
    percent = max(0.0, min(share, 1.0)) * 100
    bar = (
        f'<div role="progressbar" aria-valuenow="{percent:.0f}" aria-valuemin="0" aria-valuemax="100" '
        'style="background:rgba(128,128,128,.25);border-radius:3px;width:24em;max-width:100%">'
        f'<div style="width:{percent:.1f}%;height:.6em;background:#2e8b57;border-radius:3px"></div></div>'
    )
    cells = [("done", f"{percent:.0f}% {bar}"), *((escape(name), escape(value)) for name, value in rows)]
    lines = "".join(
        f'<tr><th scope="row" style="text-align:left">{name}</th><td style="text-align:left">{value}</td></tr>'
        for name, value in cells
    )
    return f'<table style="font-variant-numeric:tabular-nums">{lines}</table>'
