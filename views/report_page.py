"""A finished run as one web page: nothing is fetched, and what pictures tell stands in tables as well."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from ..engine.units import format_bytes, format_seconds
from . import graph_svg
from .charts import Level, Line, binary_steps, over_time
from .figure_tables import (
    DETAIL,
    WIDE,
    figure_switch,
    heat_table,
    kinds_table,
    page_maps,
    scales_of,
    table_head,
    tensors_table,
)
from .figures import cosine, percent
from .graph_document import document
from .kinds import kind_by_program, kinds_of
from .layers import runs
from .legend import Legend
from .page_parts import THEME_BUTTON, head, script, shown
from .report_facts import CARD, facts_of, moved, remarks
from .vectors_page import sign_agreement, task_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..merge import MergePlan
    from ..reports.run_report import Measured, RunReport
    from .layers import Layer

_COLOURS = 8
"""Colours for models that the style sheet has."""


class Marks:
    """A letter on a colour for each input; the letter alone tells them apart."""

    def __init__(self, references: Sequence[str]) -> None:
        legend = Legend(references)
        self._marks = {
            reference: (legend.mark(reference).plain, index % _COLOURS) for index, reference in enumerate(references)
        }

    def __call__(self, reference: str) -> str:
        """The mark of an input, as HTML."""
        letter, colour = self._marks[reference]
        return f'<span class="mark" style="--mark:var(--model-{colour})">{letter}</span>'

    def colour(self, reference: str) -> str:
        """The declaration of an input's colour, for a style attribute."""
        return f"--mark:var(--model-{self._marks[reference][1]})"


def page(report: RunReport) -> Iterator[str]:
    """The page's lines."""
    marks = Marks([each.reference for each in report.manifest.inputs])
    yield from head(f"{report.folder} – plait report", "figures.css", "report.css")
    yield "<body>"
    summary = f": {shown(report.merge.method.summary)}" if report.merge is not None else ""
    yield f"<header><h1><span>{shown(report.folder)}</span></h1>{THEME_BUTTON}"
    yield f"<p>What a run of <strong>{shown(report.method or 'plait')}</strong> did{summary}</p></header>"
    yield "<main>"
    yield from _facts(report)
    yield from _models(report, marks)
    if report.merge is not None:
        yield from _graph(report.merge)
        yield from _layers(report.merge, marks)
    if report.measured is not None:
        yield from _movements(report.measured, report.base, marks)
        yield from task_vectors(report.measured, marks, marks.colour)
        yield from sign_agreement(report.measured, marks)
    yield from _over_time(report)
    if report.recipe is not None:
        yield f'<section><h2>Recipe</h2><pre tabindex="0">{_verbatim(report.recipe)}</pre></section>'
    yield "</main>"
    card = f" Its card is {shown(report.folder)}/README.md." if report.has_card else ""
    yield f"<footer><p>Made by plait {shown(report.manifest.version)}.{card} This page fetches nothing.</p></footer>"
    yield script("figures.js", "report.js")
    yield "</body>"
    yield "</html>"


def _facts(report: RunReport) -> Iterator[str]:
    yield '<section aria-label="summary"><dl class="facts">'
    for fact in facts_of(report):
        if fact.name == CARD:
            continue  # its path is as long as a tile is wide
        note = f'<span class="soft">{shown(fact.note)}</span>' if fact.note else ""
        yield f"<div><dt>{shown(fact.name)}</dt><dd>{shown(fact.value)}{note}</dd></div>"
    yield "</dl>"
    said = remarks(report)
    if said:
        yield '<ul class="remarks">'
        yield from (f'<li class="{sort}"><strong>{sort}</strong> {shown(line)}</li>' for sort, line in said)
        yield "</ul>"
    yield "</section>"


def _models(report: RunReport, marks: Marks) -> Iterator[str]:
    totals = {each.reference: each.total for each in report.measured.movements} if report.measured else {}
    yield f"<section><h2>Inputs</h2>{WIDE}<table><caption>What the result was made of, and how far it is from each"
    yield "</caption>" + table_head("input", "relative L2", "cosine", "changed", "tensors", "size") + "<tbody>"
    for each in report.manifest.inputs:
        total = totals.get(each.reference)
        cells = ["", "", ""]
        if total is not None:
            cells = [percent(total.relative_l2), cosine(total.cosine), percent(total.changed_share)]
        cells.append("" if each.tensors is None else str(each.tensors))
        cells.append("" if each.size_bytes is None else format_bytes(each.size_bytes))
        role = ' <span class="soft">base</span>' if each.reference == report.base else ""
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        yield f'<tr><th scope="row">{marks(each.reference)} {shown(each.reference)}{role}</th>{numbers}</tr>'
    yield "</tbody></table></div></section>"


def _graph(merge: MergePlan) -> Iterator[str]:
    """The recipe as a picture, in a tree of its own: its style is not the page's."""
    yield "<section><h2>The recipe as a graph</h2>"
    yield '<div class="wide picture" tabindex="0" role="group" aria-label="graph"><template shadowrootmode="open">'
    yield from graph_svg.lines(document(merge), inside=True)
    yield "</template></div></section>"


def _layers(merge: MergePlan, marks: Marks) -> Iterator[str]:
    """For each layer of the result which layer of which input it is made of."""
    folded = runs(merge, kind_by_program(kinds_of(merge.plan.graph.islands)))
    stacks: dict[str, list[Layer]] = {}
    for run in folded:
        for layer in run.layers:
            if layer.stack is not None:
                stacks.setdefault(layer.stack, []).append(layer)
    if not stacks:
        return
    yield "<section><h2>Layers</h2><p>Above, the layers of the result; below each, the layers it was made of.</p>"
    for stack, layers in stacks.items():
        given = [_given(layer) for layer in layers]
        yield f'{WIDE}<table class="layers"><caption>{shown(stack)}</caption><thead><tr><th scope="col">layer</th>'
        yield "".join(f'<th scope="col">{layer.number}</th>' for layer in layers) + "</tr></thead><tbody>"
        for reference in dict.fromkeys(model for each in given for model in each):
            cells = "".join(
                f'<td class="given">{each[reference]}</td>' if reference in each else "<td></td>" for each in given
            )
            yield f'<tr style="{marks.colour(reference)}"><th scope="row">{marks(reference)}</th>{cells}</tr>'
        yield "</tbody></table></div>"
    yield "</section>"


def _given(layer: Layer) -> Mapping[str, str]:
    """For each model the numbers of its layers that a layer is made of."""
    found: dict[str, list[str]] = {}
    for model, number in layer.given:
        if number is not None:
            found.setdefault(model, []).append(str(number))
    return {model: " ".join(numbers) for model, numbers in found.items()}


def _movements(measured: Measured, base: str | None, marks: Marks) -> Iterator[str]:
    """Heat maps of how far the result moved: one input at a time."""
    yield "<section><h2>How far the result moved</h2>"
    yield "<p>From each input it was made of, by layer of the result and kind of tensor. "
    yield "Relative L2 is ‖input − result‖ / ‖input‖; changed is the share of elements that differ.</p>"
    scales = scales_of(
        figures for each in measured.movements for figures in (*each.cells.values(), *each.kinds.values())
    )
    yield '<fieldset class="switch" data-inputs><legend>from</legend>'
    for index, each in enumerate(measured.movements):
        checked = " checked" if index == 0 else ""
        name = f"{marks(each.reference)} {shown(each.reference)}{' (base)' if each.reference == base else ''}"
        yield f'<label><input type="radio" name="input" value="{index}"{checked}> {name}</label>'
    yield "</fieldset>"
    yield from figure_switch("showing", scales)
    for index, each in enumerate(measured.movements):
        yield f'<div data-input="{index}"><h3>From {marks(each.reference)} {shown(each.reference)}</h3>'
        yield f"<p>{shown(moved(each))}</p>"
        for heat_map in page_maps(each.cells):
            yield from heat_table(heat_map, scales)
        yield "<details><summary>By kind of tensor</summary>"
        yield from kinds_table(each.kinds, scales)
        yield "</details>"
        if each.farthest:
            yield "<details><summary>Tensors that moved farthest</summary>"
            yield from tensors_table(each.farthest, scales, "The farthest first")
            yield "</details>"
        yield "</div>"
    yield f"{DETAIL}</section>"


def _over_time(report: RunReport) -> Iterator[str]:
    """Memory and throughput while the run went on."""
    run, samples = report.manifest.run, report.manifest.run.samples
    if len(samples.seconds) < 2:
        return
    rates = [
        (end, (read - read_before) / (end - start), (written - written_before) / (end - start))
        for (start, read_before, written_before), (end, read, written) in pairwise(
            zip(samples.seconds, samples.bytes_read, samples.bytes_written, strict=True)
        )
        if end > start
    ]
    yield '<section><h2>While it ran</h2><div class="pictures">'
    peak = max(samples.resident_bytes)
    predicted = [Level("predicted peak", run.predicted_peak_bytes)] if run.predicted_peak_bytes else []
    said = f"at most {format_bytes(peak)} in the samples"
    yield f'<figure><figcaption>Memory<br><span class="soft">{said}</span></figcaption>'
    yield from over_time(
        samples.seconds,
        [Line("resident memory", samples.resident_bytes, "area")],
        predicted,
        show=_short_bytes,
        steps=binary_steps(),
        title=f"Resident memory over {format_seconds(samples.seconds[-1])}: {said}",
    )
    yield "</figure>"
    if rates:
        mean = (samples.bytes_read[-1] + samples.bytes_written[-1]) / samples.seconds[-1]
        said = f"{format_bytes(mean)}/s on average, read and written"
        yield '<figure><figcaption>Throughput<br><span class="soft">'
        keys = '<span class="key reading"></span> read <span class="key writing"></span> written'
        yield f"{keys}; {said}</span></figcaption>"
        seconds = [end for end, _, _ in rates]
        yield from over_time(
            [0.0, *seconds],
            [
                Line("read", [rates[0][1], *(read for _, read, _ in rates)], "reading"),
                Line("written", [rates[0][2], *(written for _, _, written in rates)], "writing"),
            ],
            [],
            show=lambda value: f"{_short_bytes(value)}/s" if value else "0",
            steps=binary_steps(),
            title=f"Bytes read and written a second: {said}",
        )
        yield "</figure>"
    yield f"</div><details><summary>These moments as a table</summary>{WIDE}<table><caption>Since the start</caption>"
    yield table_head("seconds", "read", "written", "memory") + "<tbody>"
    rows = zip(samples.seconds, samples.bytes_read, samples.bytes_written, samples.resident_bytes, strict=True)
    for second, *sizes in rows:
        cells = "".join(f'<td class="number">{format_bytes(size)}</td>' for size in sizes)
        yield f'<tr><th scope="row">{second:.1f}</th>{cells}</tr>'
    yield "</tbody></table></div></details></section>"


def _short_bytes(value: float) -> str:
    """Bytes of a tick: ``512M``, ``2G``."""
    return format_bytes(value).replace(".00", "").replace(".0", "").replace("iB", "").replace(" ", "\u202f")


def _verbatim(text: str) -> str:
    """A text line by line, control characters made visible."""
    return "\n".join(shown(line.replace("\t", "    ")) for line in text.splitlines())
