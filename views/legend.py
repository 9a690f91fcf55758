"""A letter and a colour for each model of a merge, so that a graph can name models in one column."""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


class Legend:
    """Letters in the order of the recipe; the letter alone tells models apart, for those who see no colour."""

    def __init__(self, references: Iterable[str]) -> None:
        self._marks = {
            reference: (letter(index), _COLOURS[index % len(_COLOURS)]) for index, reference in enumerate(references)
        }

    def mark(self, reference: str) -> Text:
        """A model's letter."""
        letter, colour = self._marks[reference]
        return Text(letter, f"bold {colour}")

    def style(self, reference: str) -> str:
        """A model's colour."""
        return self._marks[reference][1]

    def marks(self, references: Iterable[str]) -> Text:
        """Several models' letters, in the legend's order: ``A B C``."""
        wanted = set(references)
        return Text(" ").join(self.mark(reference) for reference in self._marks if reference in wanted)


def letter(index: int) -> str:
    """A to Z, then AA, AB and so on."""
    higher, lower = divmod(index, len(ascii_uppercase))
    return (letter(higher - 1) if higher else "") + ascii_uppercase[lower]
