"""Before and after a run: what starts, and what it did."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ..engine.units import format_bytes, format_seconds
from .console import messages, output, print_lines, warn, width_of
from .layout import GAP, clean, count, facts, wrap
from .profile import as_json as profile_as_json
from .profile import page as profile_page
from .verify import as_json as report_as_json
from .verify import page as report_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ..merge import MergePlan, MergeResult

_MOST_PROCESSES = 8
"""Processes that have a line each."""


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
    parts = merge.parts
    workers = count(plan.workers, "worker")
    workers = f"{parts.words} with {workers} each" if parts.words else workers
    peak = f"{format_bytes(parts.predicted_peak_bytes)}{parts.of_each}"
    line = (
        f"{merge.method.name} of {count(len(merge.models), 'model')} into {clean(str(out))}: "
        f"{count(merge.tensors, 'tensor')}, read {format_bytes(parts.bytes_read)}, "
        f"write {format_bytes(plan.bytes_written)}, peak memory {peak}, {workers}"
    )
    print_lines(console, map(Text, wrap(line, width_of(console), indent=2)))


def as_json(result: MergeResult) -> dict[str, object]:
    """A result as one JSON object; ``verification`` where it was asked for."""
    fields = asdict(replace(result, verification=None, profile=None))
    del fields["verification"], fields["profile"]
    if not result.processes:
        del fields["processes"]
    if result.profile is not None:
        fields["profile"] = profile_as_json(result.profile)
    return fields | ({"verification": report_as_json(result.verification)} if result.verification else {})


def show(
    result: MergeResult,
    *,
    against: str | None = None,
    moved: Mapping[str, str] | None = None,
    verbose: bool = False,
) -> None:
    """Say what was done, and how to compare it with ``against``, a model folder.

    ``moved`` are the inputs that a report does not find by itself: reference to folder.
    """
    console = output()
    width = width_of(console)
    print_lines(console, page(result, width, against=against, moved=moved))
    if result.verification is not None:
        print_lines(console, report_page(result.verification, width, verbose=verbose))
    if result.profile is not None:
        print_lines(console, profile_page(result.profile, width, verbose=verbose))


def page(
    result: MergeResult,
    width: int | None,
    *,
    against: str | None = None,
    moved: Mapping[str, str] | None = None,
) -> Iterator[Text]:
    """What was read and written, what it took beside what was predicted, and what to do with it."""
    tensors, out = count(result.tensors, "tensor"), clean(result.output)
    went_on = ", going on with an interrupted run" if result.resumed else ""
    yield Text.assemble(("merged", "bold green"), f" {tensors} into {out}{went_on}")
    shards = count(len(result.shards), "shard")
    passes = f"at most {count(result.passes, 'pass', 'passes')} over a tensor"
    commands, places = _next(result, against, moved or {})
    pairs = [
        ("read", f"{format_bytes(result.bytes_read)}, {passes}"),
        ("written", f"{format_bytes(result.bytes_written)}, {shards}"),
        ("time", _time(result)),
        ("memory", _memory(result)),
        ("seed", str(result.seed)),
        ("device", _device(result)),
        *(("", line) for line in _devices(result)),
        *(("" if index else "processes", line) for index, line in enumerate(_processes(result))),
        *([("warnings", f"{len(result.warnings)}, printed above")] if result.warnings else []),
        ("card", f"{result.output}/README.md"),
        ("record", f"{result.output}/plait-manifest.json"),
        *(("" if index else "next", command) for index, command in enumerate(commands)),
    ]
    yield from facts(pairs, width)
    # Not broken where a line ends: that would end the command.
    indent = " " * (2 + max(len(name) for name, _ in pairs) + GAP)
    yield from (Text(f"{indent}  {place}") for place in places)


def _next(result: MergeResult, against: str | None, moved: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What one may want to do now, to be copied; and what the last command goes on with, a line each.

    A name that a shell would take apart is quoted.
    """
    out = shlex.quote(result.output)
    verify = [f"plait verify {out}"] if result.verification is None else []
    diff = [f"plait diff {shlex.quote(_from_here(against))} {out}"] if against is not None else []
    report = f"plait report {out} --html report.html"
    maps = [f"--map {shlex.quote(f'{ref}={_from_here(folder)}')}" for ref, folder in moved.items()]
    if os.name == "nt":  # no shell there takes a backslash for "goes on below"
        report, maps = " ".join([report, *maps]), []
    *before, last = [report, *maps]
    report, *places = [*(f"{part} \\" for part in before), last]
    return [*verify, *diff, report], places


def _from_here(path: str) -> str:
    """A path below the working directory without that."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _device(result: MergeResult) -> str:
    processes = f" in {len(result.processes)} processes" if result.processes else ""
    return f"{result.device}, {count(result.workers, 'worker')}{processes}"


def _memory(result: MergeResult) -> str:
    of_each = ", of the machine that took most" if _machines(result) > 1 else ""
    return _beside(result.measured_peak_bytes, result.predicted_peak_bytes, "at peak", format_bytes) + of_each


def _devices(result: MergeResult) -> Iterator[str]:
    """What was taken of each device's memory."""
    several = _machines(result) > 1
    for each in result.devices:
        where = f" of machine {each['machine']}" if several else ""
        yield f"{each['name']}{where} {_peak(each)}"


def _processes(result: MergeResult) -> Iterator[str]:
    """What each of several processes did: all of them, or the one that took longest where there are many."""
    shown: Sequence[Mapping[str, Any]] = result.processes
    if len(shown) > _MOST_PROCESSES:
        shown = (max(shown, key=lambda each: float(each["seconds"])),)
    several = _machines(result) > 1
    for each in shown:
        where = f" on {each['host']}" if several else ""
        shards = count(len(each["shards"]), "shard")
        yield f"{each['process']}{where}: {shards} in {format_seconds(each['seconds'])}, {_peak(each)}"
    if len(shown) < len(result.processes):
        yield f"took longest of {len(result.processes)}; the others are in the record"


def _machines(result: MergeResult) -> int:
    return len({each["machine"] for each in result.processes})


def _peak(facts: Mapping[str, Any]) -> str:
    return _beside(facts["measured_peak_bytes"], facts["predicted_peak_bytes"], "at peak", format_bytes)


def _time(result: MergeResult) -> str:
    moved_bytes = result.bytes_read + result.bytes_written
    rate = f", {format_bytes(moved_bytes / result.seconds)}/s" if result.seconds else ""
    # An interrupted run's prediction is of the whole.
    if result.resumed:
        return f"{format_seconds(result.seconds)}{rate}"
    return _beside(result.seconds, result.predicted_seconds, "", format_seconds) + rate


def _beside(measured: float, predicted: float, what: str, form: Callable[[float], str]) -> str:
    """A figure beside its prediction."""
    said = f"{form(measured)}{' ' + what if what else ''}"
    return f"{said}, {form(predicted)} predicted" if predicted else said
