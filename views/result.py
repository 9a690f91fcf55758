"""Before and after a run: what starts, and what it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from ..engine.units import format_bytes, format_seconds
from .console import messages, output, warn

if TYPE_CHECKING:
    from pathlib import Path

    from ..api import MergePlan, MergeResult


def show_warnings(merge: MergePlan) -> None:
    """Print the plan's warnings to standard error."""
    console = messages()
    for warning in merge.warnings:
        warn(console, warning)


def show_start(merge: MergePlan, out: Path) -> None:
    """Say what is about to happen."""
    show_warnings(merge)
    plan = merge.plan
    messages().print(
        f"[bold]{merge.method.name}[/] of {len(merge.models)} models → {escape(str(out))}: "
        f"{merge.tensors} tensors, read {format_bytes(plan.bytes_read)}, write {format_bytes(plan.bytes_written)}, "
        f"peak memory {format_bytes(plan.predicted_peak_bytes)}, {plan.workers} workers"
    )


def show(result: MergeResult) -> None:
    """Say what was done."""
    console = output()
    moved_bytes = result.bytes_read + result.bytes_written
    rate = format_bytes(moved_bytes / result.seconds) if result.seconds else "–"
    shards = "1 shard" if len(result.shards) == 1 else f"{len(result.shards)} shards"
    console.print(f"[bold green]merged[/] {result.tensors} tensors into {escape(result.output)}, {shards}")
    console.print(
        f"  read {format_bytes(result.bytes_read)}, wrote {format_bytes(result.bytes_written)} "
        f"in {format_seconds(result.seconds)} ({rate}/s)"
    )
    console.print(
        f"  peak memory {format_bytes(result.measured_peak_bytes)}, "
        f"predicted {format_bytes(result.predicted_peak_bytes)}"
    )
    console.print(f"  seed {result.seed}, card {escape(result.output)}/README.md")
