"""Where things are printed: results to standard output, progress and warnings to standard error."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape

MIN_PIPED_COLUMNS = 100


def output() -> Console:
    """The console for results. Piped, it is plain text of a fixed width, so that lines stay whole."""
    return _console(stderr=False)


def messages() -> Console:
    """The console for progress, notes and warnings."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else MIN_PIPED_COLUMNS
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=not stream.isatty())


def warn(console: Console, text: str) -> None:
    """Print one warning."""
    console.print(f"[yellow]warning:[/] {escape(text)}")
