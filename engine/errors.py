"""What can go wrong, sorted by whose turn it is to act; the exit code says so.

2 the command line or the recipe, 3 an input, 4 memory or disk, 130 interrupted, 1 a defect of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .units import clean

if TYPE_CHECKING:
    from collections.abc import Sequence


_LONGEST_FACT = 4000
_MOST_PROBLEMS = 100


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A place in a recipe: file, 1-based line, 1-based column."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a recipe: where, what, and (where there is one) what to write instead."""

    where: Location
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" + (f"; {self.hint}" if self.hint else "")


class PlaitError(Exception):
    """Base of every error a user can cause. Its text is one fact a line and needs no stack trace.

    Facts quote names that others chose: what is not visible in them is escaped, and none of them fills a screen.

    ``kept_share`` is the part of the output that a run has finished and kept, so that it can go on; None where there
    is nothing to go on with, and always where not ``may_go_on``: with the same inputs and options it would fail again.
    """

    exit_code = 1
    may_go_on = True
    kept_share: float | None = None

    def __init__(self, *facts: str) -> None:
        super().__init__("\n".join(_one_line(fact) for fact in facts))


class UsageError(PlaitError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class RecipeError(PlaitError):
    """The recipe is wrong; ``problems`` lists every mistake found, in file order. The text has the first of them."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.where))
        facts = [str(problem) for problem in self.problems[:_MOST_PROBLEMS]]
        if len(self.problems) > len(facts):
            facts.append(f"… and {len(self.problems) - len(facts)} mistakes more")
        super().__init__(*facts)


class InputError(PlaitError):
    """An input is missing, unreadable, or does not fit the others."""

    exit_code = 3


class NonfiniteError(InputError):
    """An input holds NaN or infinity."""

    may_go_on = False


class ChangedError(InputError):
    """An input changed after something had been made of it."""

    may_go_on = False


class PlanError(PlaitError):
    """The budget is too small; ``minimum_bytes`` is the least that works."""

    exit_code = 4

    def __init__(self, message: str, minimum_bytes: int) -> None:
        self.minimum_bytes = minimum_bytes
        super().__init__(message)


class OutputError(PlaitError):
    """The output cannot be written: no space, no permission, an I/O error."""

    exit_code = 4


class ProcessError(PlaitError):
    """Another process of the run failed, or is gone; the exit code is what became of it."""

    def __init__(self, exit_code: int, *facts: str, may_go_on: bool = True) -> None:
        self.exit_code, self.may_go_on = exit_code, may_go_on
        super().__init__(*facts)


def _one_line(fact: str) -> str:
    if len(fact) > _LONGEST_FACT:
        fact = f"{fact[: _LONGEST_FACT // 2]} … {fact[-_LONGEST_FACT // 2 :]}"
    return clean(fact)


class Interrupted(KeyboardInterrupt):
    """A run was stopped from outside after its journal had begun; ``kept_share`` of the output is kept, 0 to 1."""

    def __init__(self, kept_share: float) -> None:
        self.kept_share = kept_share
        super().__init__()
