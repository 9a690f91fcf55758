"""Where things are printed: results to standard output, progress and warnings to standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from .layout import clean, wrap

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN_LETTERS = str.maketrans(
    {
        "├": "|",
        "└": "`",
        "│": "|",
        "─": "-",
        "–": "-",
        "…": "~",
        "↓": "v",
        "→": ">",
        "×": "x",
        "Δ": "D",
        "Σ": "S",
        "·": "*",
        "✓": "+",
        "✗": "x",
        "░": ".",
        "▒": ":",
        "▓": "#",
        "█": "@",
        "▁": ".",
        "▂": ",",
        "▃": "-",
        "▄": "=",
        "▅": "+",
        "▆": "o",
        "▇": "#",
        "∞": "~",
        "≤": "<",
        "‖": "|",
        "\u00a0": " ",
    }
)
"""For a stream that cannot show them, such as a pipe or an old console on some systems: one letter each, so columns
stay."""

_DRAWN_WITH = "".join(map(chr, _PLAIN_LETTERS))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line, whose business exit codes are."""
        raise  # rich calls this while it handles a BrokenPipeError


def output() -> Console:
    """The console for results."""
    return _console(stderr=False)


def messages() -> Console:
    """The console for progress, notes and warnings."""
    return _console(stderr=True)


def width_of(console: Console) -> int | None:
    """Columns that a line may take; None where nobody looks at a screen and lines are kept whole."""
    return console.width if console.is_terminal else None


def print_lines(console: Console, lines: Iterable[Text]) -> None:
    """Print lines as they are: nothing is wrapped, padded or read as markup."""
    for line in lines:
        line.plain = showable(console, line.plain)
        # Soft wrapping is rich's word for leaving lines alone.
        console.print(line, soft_wrap=True)


def showable(console: Console, text: str) -> str:
    """The text in letters that the console has, as many of them.

    Where it lacks one of those that pages draw with, all of them are replaced: a picture and its legend stay alike.
    """
    if console.legacy_windows or not _can_show(console, _DRAWN_WITH):
        text = text.translate(_PLAIN_LETTERS)
    return text if _can_show(console, text) else text.encode(console.encoding, "replace").decode(console.encoding)


def warn(console: Console, text: str) -> None:
    """Print one warning."""
    print_lines(console, warning(text, width_of(console)))


def warning(text: str, width: int | None) -> list[Text]:
    """A warning's lines; the later ones are indented."""
    first, *rest = wrap(f"warning: {clean(text)}", width, indent=2)
    label, said = first[:8], first[8:]
    return [Text.assemble((label, "yellow"), said), *map(Text, rest)]


def _can_show(console: Console, text: str) -> bool:
    try:
        text.encode(console.encoding)
    except UnicodeEncodeError:
        return False
    return True


def _console(*, stderr: bool) -> Console:
    return _Console(file=sys.stderr if stderr else sys.stdout, highlight=False)
