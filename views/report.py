"""What a finished run did, on a screen: facts, layers, heat maps, task vectors, signs, memory and speed over time."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.units import format_bytes, format_seconds
from .bars import block, over_time
from .console import output, print_lines, warning, width_of
from .figures import percent
from .graph_tree import graph_tree
from .heat import heat_maps, scale_of
from .heat_lines import RIGHT, cell_text, column_mark, columns_for, figures_row, legend, map_rows, titles
from .kinds import kind_by_program, kinds_of
from .layer_map import layer_map
from .layers import runs
from .layout import Row, clean, facts, heading, shorten, table, wrap
from .legend import Legend
from .report_facts import facts_of, moved, remarks, size, sizes, vectors_title

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..reports.run_report import Measured, RunReport

_MOST_ROWS = 16
"""Lines of a heat map without ``verbose``: there is a map for each input."""

_MOST_ROWS_VERBOSE = 48
_MOST_LISTED = 10
_MOST_COLUMNS = 60


def show(report: RunReport, *, verbose: bool) -> None:
    """Print a report; ``verbose`` has more of the maps, signs by kind, and the tensors that moved farthest."""
    console = output()
    print_lines(console, page(report, width_of(console), verbose=verbose))


def page(report: RunReport, width: int | None, *, verbose: bool) -> Iterator[Text]:
    """A report in lines of a width."""
    marks = Legend(each.reference for each in report.manifest.inputs)
    title = Text.assemble("what the run did in ", (clean(report.folder), "bold cyan"))
    yield title if width is None else shorten(title, width)
    yield from facts([(fact.name, fact.text) for fact in facts_of(report)], width)
    for sort, line in remarks(report):
        if sort == "warning":
            yield from warning(line, width)
        else:
            yield from map(Text, wrap(f"note: {clean(line)}", width, indent=2))
    yield Text()
    yield from _inputs(report, marks, width)
    if report.merge is not None:
        yield Text()
        kinds = kind_by_program(kinds_of(report.merge.plan.graph.islands))
        folded = runs(report.merge, kinds)
        yield from graph_tree(folded, kinds, marks, width, unfolded=False)
        yield Text()
        yield from layer_map(report.merge, [layer for run in folded for layer in run.layers], marks, width)
    if report.measured is not None:
        yield from _movements(report.measured, marks, width, verbose=verbose)
        yield from _vectors(report.measured, marks, width)
        yield from _signs(report.measured, marks, width, verbose=verbose)
    yield from _moments(report, width)
    if verbose and report.effort is not None:
        effort = report.effort
        peak = (
            f"{format_bytes(effort.measured_peak_bytes)} at peak, {format_bytes(effort.predicted_peak_bytes)} predicted"
        )
        read = f"{format_bytes(effort.bytes_read)} read in {format_seconds(effort.seconds)}"
        yield Text()
        yield from facts([("this report", f"{read}; memory {peak}")], width)


def _inputs(report: RunReport, marks: Legend, width: int | None) -> list[Text]:
    distances = {each.reference: each.total for each in report.measured.movements} if report.measured else {}
    head = ["size", *(("cosine", "rel. L2", "changed") if distances else ()), ""]
    rows = [Row(heading("inputs"), [Text(title, "bold") for title in head], Text("  "))]
    scale = scale_of(distances.values())
    for each in report.manifest.inputs:
        total = distances.get(each.reference)
        cells = [Text(format_bytes(each.size_bytes) if each.size_bytes is not None else "")]
        if distances:
            cells += figures_row("", total, scale).cells if total is not None else [Text()] * 3
        cells.append(Text("base" if each.reference == report.base else ""))
        mark = marks.mark(each.reference)
        mark.append(" ")
        rows.append(Row(Text(clean(each.reference)), cells, mark))
    return table(rows, width, right=range(len(head) - 1))


def _movements(measured: Measured, marks: Legend, width: int | None, *, verbose: bool) -> Iterator[Text]:
    """Kinds of tensors beside each other for all inputs, then a map for each."""
    movements = measured.movements
    scale = scale_of(figures for each in movements for figures in (*each.cells.values(), *each.kinds.values()))
    most_rows = _MOST_ROWS_VERBOSE if verbose else _MOST_ROWS
    drawn = {
        each.reference: heat_maps(
            each.cells,
            most_columns=columns_for(each.cells, width, most_rows),
            most_rows=None if width is None else most_rows,
        )
        for each in movements
    }
    head = [marks.mark(each.reference) for each in movements]
    outside = dict.fromkeys(kind for each in movements for stack, kind in each.kinds if stack is None)
    if outside:
        rows = [Row(Text("outside of the layers", "bold"), head)]
        rows += [
            Row(Text(clean(kind)), [cell_text(each.kinds.get((None, kind)), scale) for each in movements])
            for kind in outside
        ]
        yield Text()
        yield from table(rows, width, right=range(len(head)))
    letters: dict[str, dict[str, str]] = {}
    for heat_map in (found for each in drawn.values() for found in each):
        known = letters.setdefault(heat_map.stack, {})
        for column in heat_map.columns:
            known.setdefault(column, column_mark(len(known)))
    for stack, columns in letters.items():
        rows = [Row(Text(f"kinds in {clean(stack)}", "bold"), head)]
        for column, letter in columns.items():
            own = (next((found for found in each if found.stack == stack), None) for each in drawn.values())
            cells = [cell_text(each.whole(column) if each and column in each.columns else None, scale) for each in own]
            rows.append(Row(Text(clean(column)), cells, Text(f"{letter} ", "bold")))
        yield Text()
        yield from table(rows, width, right=range(len(head)))
    for each in movements:
        yield Text()
        text = Text.assemble(("moved from ", "bold"), marks.mark(each.reference), f" {clean(each.reference)}")
        yield text if width is None else shorten(text, width)
        yield from (Text(f"  {line}") for line in wrap(moved(each), None if width is None else width - 2))
        for heat_map in drawn[each.reference]:
            yield from map_rows(heat_map, scale, letters[heat_map.stack])
        if verbose and each.farthest:
            found = [figures_row(tensor.name, tensor.figures, scale) for tensor in each.farthest[:_MOST_LISTED]]
            yield from table([titles("farthest"), *found], width, right=RIGHT)
    yield legend(scale, width)


def _vectors(measured: Measured, marks: Legend, width: int | None) -> Iterator[Text]:
    vectors = measured.task_vectors
    held = [index for each in vectors for index, number in enumerate(each.total.either) if number]
    if not held:
        return
    yield Text()
    first, *rest = wrap(clean(vectors_title(measured)), width, indent=2)
    yield Text(first, "bold")
    yield from map(Text, rest)
    low, high = min(held), max(held)
    for each in vectors:
        counts = each.total.either[low : high + 1]
        drawn = "".join(block(number or None, 0, max(counts)) for number in counts)
        mark = Text.assemble("  ", marks.mark(each.reference), " ")
        yield Text.assemble(mark, (drawn, marks.style(each.reference)))
        yield from (Text(f"    {line}") for line in wrap(sizes(each.total), None if width is None else width - 4))
    edges = measured.size_edges
    left, right = size(edges[max(low - 1, 0)]), size(edges[min(high, len(edges) - 1)])
    yield Text(f"    {left} to {right}, twice as large from one column to the next", "dim")


def _signs(measured: Measured, marks: Legend, width: int | None, *, verbose: bool) -> Iterator[Text]:
    if not measured.agreements:
        return
    yield Text()
    said = "of the elements that both models move, the share that they move the same way; chance gives 50%"
    first, *rest = wrap(f"sign agreement: {said}", width, indent=2)
    yield Text.assemble((first[:14], "bold"), first[14:])
    yield from map(Text, rest)
    pairs = measured.agreements
    rows = [Row(Text(""), [Text.assemble(marks.mark(each.a), " ", marks.mark(each.b)) for each in pairs])]
    rows.append(Row(Text("all tensors"), [Text(percent(each.total.share)) for each in pairs]))
    for key in dict.fromkeys(key for each in pairs for key in each.kinds) if verbose else ():
        shares = [each.kinds[key].share if key in each.kinds else None for each in pairs]
        rows.append(Row(Text(clean(key[1])), [Text(percent(share)) for share in shares]))
    yield from table(rows, width, right=range(len(pairs)))


def _moments(report: RunReport, width: int | None) -> Iterator[Text]:
    """Memory and throughput over time, a line each."""
    run, samples = report.manifest.run, report.manifest.run.samples
    if len(samples.seconds) < 2:
        return
    columns = _MOST_COLUMNS if width is None else max(min(_MOST_COLUMNS, width - 12), 8)
    end = samples.seconds[-1]
    yield Text()
    yield heading("while it ran", f"{format_seconds(end)} from left to right")
    peak = max(samples.resident_bytes)
    bound = max(peak, run.predicted_peak_bytes or 0)
    predicted = f" of {format_bytes(run.predicted_peak_bytes)} predicted" if run.predicted_peak_bytes else ""
    lines: list[tuple[str, Sequence[float], float, str]] = [
        ("memory", over_time(zip(samples.seconds, samples.resident_bytes, strict=True), columns), bound, predicted)
    ]
    for name, so_far in (("read", samples.bytes_read), ("written", samples.bytes_written)):
        moments = zip(samples.seconds, so_far, strict=True)
        rates = [
            (now, (after - before) / (now - then)) for (then, before), (now, after) in pairwise(moments) if now > then
        ]
        lines.append((name, over_time(rates, columns), max((rate for _, rate in rates), default=0), "/s"))
    for name, values, high, note in lines:
        drawn = "".join(block(value or None, 0, high) for value in values)
        yield Text.assemble("  ", (f"{name:<8}", "dim"), drawn)
        most = peak if name == "memory" else high
        yield Text(f"          at most {format_bytes(most)}{note}", "dim")
