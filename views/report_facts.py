"""What the manifest of a finished run says, as names and values: for a screen and for a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..engine.units import format_bytes, format_seconds
from .figures import cosine, percent
from .layout import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..reports.run_report import Measured, Movement, RunReport, Sizes

UNKNOWN = "not recorded"
CARD = "card"

_MOST_LISTED = 5


class Fact(NamedTuple):
    """A name, what there is to say, and what it is to be held against."""

    name: str
    value: str
    note: str = ""

    @property
    def text(self) -> str:
        """Value and note in a line."""
        return f"{self.value}, {self.note}" if self.note else self.value


def facts_of(report: RunReport) -> list[Fact]:
    """What was made, read, written, how long it took, what it held."""
    run, manifest = report.manifest.run, report.manifest
    size_bytes = sum(shard.size_bytes or 0 for shard in manifest.shards)
    tensors = count(run.tensors, "tensor") if run.tensors is not None else UNKNOWN
    said = [_predicted(_seconds, run.predicted_seconds), count(run.workers, "worker") if run.workers else ""]
    found = [
        Fact("method", report.method or UNKNOWN, count(len(manifest.inputs), "input")),
        Fact("result", tensors, f"{format_bytes(size_bytes)} in {count(len(manifest.shards), 'shard')}"),
        Fact("read", _bytes(run.bytes_read), count(run.passes, "pass", "passes") if run.passes else ""),
        Fact("written", _bytes(run.bytes_written), _rate(report)),
        Fact("time", _seconds(run.seconds), "; ".join(filter(None, said))),
        Fact("peak memory", _bytes(run.measured_peak_bytes), _predicted(_bytes, run.predicted_peak_bytes)),
        *_devices(report),
        *_processes(report),
        Fact("seed", UNKNOWN if run.seed is None else str(run.seed)),
    ]
    if report.has_card:
        found.append(Fact(CARD, f"{report.folder}/README.md"))
    return found


def remarks(report: RunReport) -> list[tuple[str, str]]:
    """What is out of the ordinary: a word that says of what sort it is, and a line."""
    run, manifest = report.manifest.run, report.manifest
    found = [("warning", warning) for warning in report.warnings]
    if run.warnings is None or not report.warnings:
        found += [
            ("warning", f"{name}: {count(elements, 'element')} became infinity")
            for name, elements in list(run.overflows.items())[:_MOST_LISTED]
        ]
        found += [
            ("warning", f"{each.reference}: NaN or infinity let through in {count(len(each.nonfinite), 'tensor')}")
            for each in manifest.inputs
            if each.nonfinite
        ]
    if run.resumed:
        found.append(("note", "the run was interrupted and went on: time, bytes and samples are of its last session"))
    found += [("note", note) for note in report.notes]
    if report.measured is not None:
        found += [("note", line) for line in _left_out(report.measured)]
    return found


def moved(movement: Movement) -> str:
    """How far the result is from one input, in a line."""
    total = movement.total
    if movement.identical == movement.tensors:
        return f"identical in {count(movement.tensors, 'tensor')}"
    same = f"; {count(movement.identical, 'tensor')} identical" if movement.identical else ""
    return (
        f"relative L2 {percent(total.relative_l2)}, cosine {cosine(total.cosine)}, "
        f"{percent(total.changed_share)} of the elements changed{same}"
    )


def sizes(found: Sizes) -> str:
    """How large the elements of a task vector are, in a line."""
    median = found.below(0.5)
    share = percent(found.zeros / found.elements) if found.elements else percent(None)
    if median is None:
        return "all elements are 0"
    spoilt = f", {count(found.nonfinite, 'element')} NaN or infinite" if found.nonfinite else ""
    return f"median size {size(median)}, 99% below {size(found.below(0.99))}, {share} are 0{spoilt}"


def size(value: float | None) -> str:
    """About how large: two digits."""
    return percent(None) if value is None else f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e+")


def vectors_title(measured: Measured) -> str:
    """What the histograms are of."""
    if measured.relative_to is not None:
        return f"Each model less {measured.relative_to}: how many elements moved how far"
    return "Each input less the result, as there is no base model: how many elements differ by how much"


def _left_out(measured: Measured) -> Sequence[str]:
    by_name: dict[tuple[str, str], list[str]] = {}
    for each in measured.left_out:
        by_name.setdefault((each.name, each.why), []).append(each.reference)
    lines = [
        f"{name} is not compared with {', '.join(references)}: {why}" for (name, why), references in by_name.items()
    ]
    if len(lines) > _MOST_LISTED:
        lines[_MOST_LISTED:] = [f"and {len(lines) - _MOST_LISTED} more tensors are not compared"]
    return lines


def _bytes(value: float | None) -> str:
    return UNKNOWN if value is None else format_bytes(value)


def _seconds(value: float | None) -> str:
    return UNKNOWN if value is None else format_seconds(value)


def _predicted(show: Callable[[float | None], str], value: float | None) -> str:
    return "" if value is None else f"{show(value)} predicted"


def _devices(report: RunReport) -> Iterator[Fact]:
    for each in report.manifest.run.devices:
        where = f" of machine {each.machine}" if each.machine else ""
        peak = f"{_bytes(each.measured_peak_bytes)} at peak"
        yield Fact(
            "device", each.name + where, ", ".join(filter(None, (peak, _predicted(_bytes, each.predicted_peak_bytes))))
        )


def _processes(report: RunReport) -> Iterator[Fact]:
    found = report.manifest.run.processes
    if found:
        machines = len({each.machine for each in found})
        where = f" on {machines} machines" if machines > 1 else ""
        longest = max((each.seconds for each in found if each.seconds is not None), default=None)
        yield Fact("processes", f"{len(found)}{where}", f"the longest took {_seconds(longest)}")


def _rate(report: RunReport) -> str:
    run = report.manifest.run
    if not run.seconds or run.bytes_read is None or run.bytes_written is None:
        return ""
    return f"{format_bytes((run.bytes_read + run.bytes_written) / run.seconds)}/s read and written"
