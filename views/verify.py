"""What a verification found: a line a check, and below it what is wrong and where."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.units import format_bytes, format_seconds
from .console import output, print_lines, width_of
from .layout import clean, count, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..reports.verification import VerifyReport

_MARKS = {"fine": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red"), "skipped": ("–", "dim")}
_SHOWN = 5
"""Findings of a check that are shown without ``verbose``."""


def as_json(report: VerifyReport) -> dict[str, object]:
    """A report as one JSON object."""
    return {
        "folder": report.folder,
        "ok": report.ok,
        "problems": report.problems,
        "warnings": report.warnings,
        "manifest": report.has_manifest,
        "tensors": report.tensors,
        "bytes_read": report.bytes_read,
        "seconds": report.seconds,
        "checks": [
            {
                "name": check.name,
                "state": check.state,
                "said": check.said,
                "problems": check.problems,
                "warnings": check.warnings,
                "findings": [asdict(finding) for finding in check.findings],
            }
            for check in report.checks
        ],
        "shards": list(report.shards),
    }


def show(report: VerifyReport, *, verbose: bool = False) -> None:
    """Print a report; ``verbose`` shows every finding and the digests."""
    console = output()
    print_lines(console, page(report, width_of(console), verbose=verbose))


def page(report: VerifyReport, width: int | None, *, verbose: bool = False) -> Iterator[Text]:
    """A report in lines of a width."""
    rate = f" ({format_bytes(report.bytes_read / report.seconds)}/s)" if report.seconds else ""
    read = f": {format_bytes(report.bytes_read)} read in {format_seconds(report.seconds)}{rate}"
    title, style = ("verified", "bold green") if report.ok else (verdict(report), "bold red")
    first, *rest = wrap(f"{title} {clean(report.folder)}{read}", width, indent=2)
    yield Text.assemble((first[: len(title)], style), first[len(title) :])
    yield from map(Text, rest)
    names = max(len(check.name) for check in report.checks)
    for check in report.checks:
        mark, style = _MARKS[check.state]
        room = None if width is None else max(width - names - 6, 20)
        for index, part in enumerate(wrap(clean(check.said), room)):
            label = f"{check.name if index == 0 else '':<{names}}"
            yield Text.assemble("  ", (mark if index == 0 else " ", style), " ", label, "  ", part)
        shown = check.findings if verbose else check.findings[:_SHOWN]
        for finding in shown:
            lines = wrap(clean(str(finding)), None if width is None else max(width - 6, 20), indent=2)
            colour = _MARKS[finding.severity][1]
            yield from (Text.assemble("      ", (line, colour)) for line in lines)
        hidden = check.problems + check.warnings - len(shown)
        if hidden:
            yield Text(f"      … and {hidden} more" + ("" if verbose else "; -v shows them"), "dim")
    if verbose:
        for shard in report.shards:
            if shard["sha256"]:
                yield Text(f"  {shard['sha256']}  {clean(str(shard['name']))}")


def verdict(report: VerifyReport) -> str:
    """``2 problems, 1 warning``; ``verified`` where there is neither."""
    parts = [
        count(number, what) for number, what in ((report.problems, "problem"), (report.warnings, "warning")) if number
    ]
    return ", ".join(parts) or "verified"


def failure(report: VerifyReport, *, brief: bool) -> tuple[str, ...]:
    """Lines for an error: how many problems there are; ``brief`` names them, where no page was shown."""
    problems = [finding for check in report.checks for finding in check.findings if finding.severity == "problem"]
    facts = [f"{report.folder}: {finding}" for finding in problems[:_SHOWN]] if brief else []
    return *facts, f"{report.folder}: the verification found {count(report.problems, 'problem')}"
