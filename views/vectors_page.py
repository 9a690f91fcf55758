"""Task vectors on a page: how large their elements are, and how often two models move one the same way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .charts import histogram
from .figure_tables import WIDE, table_head
from .figures import percent
from .layout import count
from .page_parts import shown
from .report_facts import size, sizes, vectors_title

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..reports.run_report import Agreement, Measured, TaskVector

    Mark = Callable[[str], str]

_CHANCE = 0.5

_LEAST_DRAWN = 2e-4
"""Bins at the ends with a smaller share of the elements are in the table and not in the picture."""


def task_vectors(measured: Measured, mark: Mark, colour: Mark) -> Iterator[str]:
    """A histogram a model, all on the same axes, and the same as tables; ``mark`` gives a model's letter."""
    vectors, edges = measured.task_vectors, measured.size_edges
    if not vectors:
        return
    yield "<section><h2>Task vectors</h2>"
    yield f"<p>{shown(vectors_title(measured))}. Sizes double from bar to bar; what fell is to the left.</p>"
    held = _held(vectors, _LEAST_DRAWN) or _held(vectors)
    shares = {each.reference: _shares(each, held) for each in vectors}
    highest = max((share for both in shares.values() for side in both for share in side), default=0.0) or 1.0
    exponents = range(round(math.log2(edges[0])) - 1 + held.start, round(math.log2(edges[0])) - 1 + held.stop)
    yield '<div class="pictures">'
    for each in vectors:
        yield f'<figure style="{colour(each.reference)}">'
        yield f"<figcaption>{mark(each.reference)} {shown(each.reference)}<br>"
        yield f'<span class="soft">{shown(sizes(each.total))}</span></figcaption>'
        title = f"Sizes of the elements of {each.reference}: {sizes(each.total)}"
        if held:
            yield from histogram(*shares[each.reference], exponents, highest=highest, title=title)
        yield "</figure>"
    yield "</div>"
    yield from _counts_table(vectors, _held(vectors), edges)
    yield from _kinds_table(vectors, mark)
    yield "</section>"


def _held(vectors: Sequence[TaskVector], least: float = 0.0) -> range:
    """The bins that hold anything, or more than a share of the elements."""
    found = [
        index
        for each in vectors
        for index, number in enumerate(each.total.either)
        if number > least * each.total.elements
    ]
    return range(min(found), max(found) + 1) if found else range(0)


def _shares(each: TaskVector, held: range) -> tuple[list[float], list[float]]:
    total, elements = each.total, max(each.total.elements, 1)
    return [total.positive[index] / elements for index in held], [total.negative[index] / elements for index in held]


def _counts_table(vectors: Sequence[TaskVector], held: range, edges: Sequence[float]) -> Iterator[str]:
    yield f"<details><summary>These histograms as a table</summary>{WIDE}<table>"
    yield "<caption>Elements by size, those that fell and those that rose</caption>"
    titles = [f"{shown(each.reference)} {way}" for each in vectors for way in ("fell", "rose")]
    yield table_head("size from", "to below", *titles) + "<tbody>"
    zeros = "".join(f'<td class="number" colspan="2">{_number(each.total.zeros)}</td>' for each in vectors)
    yield f'<tr><th scope="row">0</th><td></td>{zeros}</tr>'
    for index in held:
        low = f"{edges[index - 1]:.3g}" if index else "0"
        high = f"{edges[index]:.3g}" if index < len(edges) else "∞"
        cells = "".join(
            f'<td class="number">{_number(side[index])}</td>'
            for each in vectors
            for side in (each.total.negative, each.total.positive)
        )
        yield f'<tr><th scope="row">{low}</th><td>{high}</td>{cells}</tr>'
    yield "</tbody></table></div></details>"


def _kinds_table(vectors: Sequence[TaskVector], mark: Mark) -> Iterator[str]:
    yield f"<details><summary>Median size by kind of tensor</summary>{WIDE}<table>"
    yield "<caption>About the size that half of the elements other than 0 are below, and the share that is 0</caption>"
    yield table_head("kind", *(mark(each.reference) for each in vectors), "stack") + "<tbody>"
    for key in dict.fromkeys(key for each in vectors for key in each.kinds):
        stack, kind = key
        cells = ""
        for each in vectors:
            found = each.kinds.get(key)
            text = f"{size(found.below(0.5))}, {percent(found.zeros / (found.elements or 1))} 0" if found else ""
            cells += f'<td class="number">{text}</td>'
        yield f'<tr><th scope="row">{shown(kind)}</th>{cells}<td>{shown(stack or "–")}</td></tr>'
    yield "</tbody></table></div></details>"


def sign_agreement(measured: Measured, mark: Mark) -> Iterator[str]:
    """A matrix of all pairs of models, and each pair by kind."""
    pairs = measured.agreements
    yield "<section><h2>Sign agreement</h2>"
    if not pairs:
        why = "there is no base model" if measured.relative_to is None else "only one model has a task vector"
        yield f"<p>Not told: {why}.</p></section>"
        return
    yield "<p>Of the elements that both models move, the share that they move the same way. Chance gives 50%: "
    yield "below it models work against each other.</p>"
    if len(pairs) > 1:
        yield from _matrix(pairs, mark)
    yield f'{WIDE}<table class="signs"><caption>By kind of tensor</caption>'
    yield table_head("kind", *(f"{mark(each.a)} and {mark(each.b)}" for each in pairs), "stack") + "<tbody>"
    whole = "".join(_share(each.total.share, count(each.total.both, "element")) for each in pairs)
    yield f'<tr class="whole"><th scope="row">all</th>{whole}<td>–</td></tr>'
    for key in dict.fromkeys(key for each in pairs for key in each.kinds):
        found = (each.kinds.get(key) for each in pairs)
        cells = "".join(_share(each.share, count(each.both, "element")) if each else "<td></td>" for each in found)
        yield f'<tr><th scope="row">{shown(key[1])}</th>{cells}<td>{shown(key[0] or "–")}</td></tr>'
    yield "</tbody></table></div></section>"


def _matrix(pairs: Sequence[Agreement], mark: Mark) -> Iterator[str]:
    models = list(dict.fromkeys(model for each in pairs for model in (each.a, each.b)))
    shares = {frozenset((each.a, each.b)): each.total for each in pairs}
    yield f'{WIDE}<table class="signs"><caption>All tensors</caption>'
    yield table_head("model", *map(mark, models)) + "<tbody>"
    for row in models:
        cells = ""
        for column in models:
            found = shares.get(frozenset((row, column))) if row != column else None
            cells += _share(found.share, count(found.both, "element")) if found else '<td class="number">–</td>'
        yield f'<tr><th scope="row">{mark(row)}<span class="unseen">{shown(row)}</span></th>{cells}</tr>'
    yield "</tbody></table></div>"


def _share(share: float | None, of: str) -> str:
    """A cell with a bar from the middle, where chance is, to the left or to the right."""
    if share is None:
        return f'<td class="number">{percent(None)}</td>'
    low, high = sorted((share, _CHANCE))
    style = f"--from:{100 * low:.1f}%;--to:{100 * high:.1f}%"
    return f'<td class="number share" style="{style}" title="{shown(f"of {of}")}">{percent(share)}</td>'


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")
