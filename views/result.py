"""Before and after a run: what starts, and what it did."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.units import format_bytes, format_seconds
from .console import messages, output, print_lines, warn, width_of
from .layout import clean, count, facts, wrap
from .verify import as_json as report_as_json
from .verify import page as report_page

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ..merge import MergePlan, MergeResult


def show_warnings(warnings: Iterable[str]) -> None:
    """Print warnings of a plan or of a run to standard error."""
    console = messages()
    for warning in warnings:
        warn(console, warning)


def show_start(merge: MergePlan, out: Path) -> None:
    """Say what is about to happen."""
    show_warnings(merge.warnings)
    plan = merge.plan
    console = messages()
    shares = len(merge.parts.shares)
    processes = f"{count(shares, 'process', 'processes')} with each " if shares > 1 else ""
    line = (
        f"{merge.method.name} of {count(len(merge.models), 'model')} into {clean(str(out))}: "
        f"{count(merge.tensors, 'tensor')}, read {format_bytes(merge.parts.bytes_read)}, "
        f"write {format_bytes(plan.bytes_written)}, peak memory {format_bytes(merge.parts.predicted_peak_bytes)}, "
        f"{processes}{count(plan.workers, 'worker')}"
    )
    print_lines(console, map(Text, wrap(line, width_of(console), indent=2)))


def as_json(result: MergeResult) -> dict[str, object]:
    """A result as one JSON object; ``verification`` where it was asked for."""
    fields = asdict(result)
    del fields["verification"]
    if not result.processes:
        del fields["processes"]
    return fields | ({"verification": report_as_json(result.verification)} if result.verification else {})


def show(result: MergeResult, *, verbose: bool = False) -> None:
    """Say what was done."""
    console = output()
    moved_bytes = result.bytes_read + result.bytes_written
    rate = f" ({format_bytes(moved_bytes / result.seconds)}/s)" if result.seconds else ""
    tensors, shards = count(result.tensors, "tensor"), count(len(result.shards), "shard")
    print_lines(console, [Text.assemble(("merged", "bold green"), f" {tensors} into {clean(result.output)}")])
    moved = f"{format_bytes(result.bytes_read)} read, {format_bytes(result.bytes_written)} written in {shards}"
    peak = f"{format_bytes(result.measured_peak_bytes)} at peak, {format_bytes(result.predicted_peak_bytes)} predicted"
    pairs = [
        ("bytes", moved),
        ("time", f"{format_seconds(result.seconds)}{rate}"),
        ("memory", peak),
        *([("processes", str(len(result.processes)))] if result.processes else []),
        ("seed", str(result.seed)),
        ("card", f"{result.output}/README.md"),
    ]
    print_lines(console, facts(pairs, width_of(console)))
    if result.verification is not None:
        print_lines(console, report_page(result.verification, width_of(console), verbose=verbose))
