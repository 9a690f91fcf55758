"""What a check of a finished folder finds: facts that each name a file or a tensor, and how bad they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["problem", "warning"]

State: TypeAlias = Literal["fine", "warning", "problem", "skipped"]

MOST_KEPT = 100
"""Findings of one check that are kept in full; the rest is counted. A broken model has as many as it has tensors."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be: ``where`` is a file, a tensor or an input."""

    severity: Severity
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass(frozen=True, slots=True)
class Check:
    """One part of a verification: what was looked at, in a few words, and what was found.

    ``findings`` has the first of them, problems before warnings; ``problems`` and ``warnings`` count all. A check
    that was ``skipped`` says why.
    """

    name: str
    said: str
    findings: tuple[Finding, ...] = ()
    problems: int = 0
    warnings: int = 0
    skipped: bool = False

    @property
    def state(self) -> State:
        """How the check ended."""
        if self.problems:
            return "problem"
        if self.warnings:
            return "warning"
        return "skipped" if self.skipped else "fine"

    @property
    def left_out(self) -> int:
        """Findings that are counted and not kept."""
        return self.problems + self.warnings - len(self.findings)


class Findings:
    """Collects what a check finds."""

    def __init__(self) -> None:
        self._kept: dict[Severity, list[Finding]] = {"problem": [], "warning": []}
        self._counts: dict[Severity, int] = {"problem": 0, "warning": 0}

    def __bool__(self) -> bool:
        return any(self._counts.values())

    def problem(self, where: str, text: str) -> None:
        """Something that makes the model wrong, incomplete or unreadable."""
        self.add("problem", where, text)

    def warning(self, where: str, text: str) -> None:
        """Something that may be meant so."""
        self.add("warning", where, text)

    def add(self, severity: Severity, where: str, text: str) -> None:
        """Either of the two."""
        self._counts[severity] += 1
        if len(self._kept[severity]) < MOST_KEPT:
            self._kept[severity].append(Finding(severity, where, text))

    def check(self, name: str, said: str, *, skipped: bool = False) -> Check:
        """The check that these are the findings of."""
        kept = (*self._kept["problem"], *self._kept["warning"])
        return Check(name, said, kept, self._counts["problem"], self._counts["warning"], skipped=skipped)


def skipped(name: str, why: str) -> Check:
    """A check that was not made."""
    return Check(name, why, skipped=True)
