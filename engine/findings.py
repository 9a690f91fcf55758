"""What is wrong with a recipe, gathered while it is read, so that every mistake is reported in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import Location, Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Findings:
    """The mistakes and warnings so far. ``strict`` makes mistakes of warnings, ``lenient`` warnings of near misses."""

    def __init__(self, *, strict: bool = False, lenient: bool = False) -> None:
        self.lenient = lenient
        self._strict = strict
        # Keyed by themselves: a part that an alias repeats is reported once.
        self._errors: dict[Problem, None] = {}
        self._warnings: dict[Problem, None] = {}

    def error(self, where: Location, message: str, hint: str = "") -> None:
        """A mistake."""
        self._errors[Problem(where, message, hint)] = None

    def warn(self, where: Location, message: str, hint: str = "") -> None:
        """Something suspicious."""
        self._warnings[Problem(where, message, hint)] = None

    def near_miss(self, where: Location, message: str, hint: str) -> None:
        """A name that is almost a valid one."""
        if self.lenient:
            self.warn(where, f"{message}; it is ignored", hint)
        else:
            self.error(where, message, hint)

    def add(self, problems: Iterable[Problem]) -> None:
        """Mistakes that are already written out."""
        self._errors.update(dict.fromkeys(problems))

    def finish(self) -> tuple[Problem, ...]:
        """The warnings in file order; raises RecipeError if there is any mistake."""
        errors = list(self._errors)
        if self._strict:
            errors += list(self._warnings)
        if errors:
            raise RecipeError(errors)
        return tuple(sorted(self._warnings, key=lambda problem: problem.where))
