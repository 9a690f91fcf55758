"""How far apart two models are: a summary, kinds of tensors, a heat map of layers × kinds, the most changed tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.units import format_bytes, format_count, format_seconds
from .console import output, print_lines, width_of
from .figures import cosine, nonfinite, percent
from .heat import scale_of
from .heat_lines import RIGHT, figures_row, maps, titles
from .layout import clean, count, facts, shorten, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..reports.diff_report import DiffReport, StackLayers

_MOST_ROWS = 48
_MOST_LISTED = 10


def show(report: DiffReport, *, verbose: bool) -> None:
    """Print a comparison; ``verbose`` lists every tensor."""
    console = output()
    print_lines(console, page(report, width_of(console), verbose=verbose))


def page(report: DiffReport, width: int | None, *, verbose: bool) -> Iterator[Text]:
    """A comparison in lines of a width."""
    title = Text.assemble((clean(report.a), "bold cyan"), " (A) and ", (clean(report.b), "bold cyan"), " (B)")
    yield title if width is None else shorten(title, width)
    yield from facts(summary(report), width)
    scale = scale_of((*report.cells.values(), *report.kinds.values()))
    outside = [(kind, figures) for (stack, kind), figures in report.kinds.items() if stack is None]
    if outside:
        yield Text()
        yield from table(
            [titles("outside of the layers"), *(figures_row(*each, scale) for each in outside)], width, right=RIGHT
        )
    yield from maps(report.cells, scale, width, most_rows=_MOST_ROWS)
    chosen = report.tensors if verbose else report.most_changed[:_MOST_LISTED]
    if chosen:
        title_text = "all tensors" if verbose else "most changed"
        yield Text()
        yield from table(
            [titles(title_text), *(figures_row(tensor.name, tensor.figures, scale) for tensor in chosen)],
            width,
            right=RIGHT,
        )


def summary(report: DiffReport) -> list[tuple[str, str]]:
    """The comparison's main facts: names and values."""
    total = report.total
    same = format_count(sum(tensor.figures.identical for tensor in report.tensors))
    size = f"{count(len(report.tensors), 'tensor')}, {count(total.elements, 'element')}"
    pairs = [
        ("compared", f"{size}; {same} identical"),
        ("cosine", cosine(total.cosine)),
        ("relative L2", f"{percent(total.relative_l2)}  (‖A-B‖ / ‖A‖)"),
        ("changed", f"{percent(total.changed_share)} of the elements"),
    ]
    pairs += [("layers", line) for line in _layers(report.stacks)]
    pairs += [("only in A", line) for line in listed(report.only_a, report.stacks)]
    pairs += [("only in B", line) for line in listed(report.only_b, report.stacks)]
    pairs += [("not compared", f"{each.name}: {each.a} in A, {each.b} in B") for each in report.unlike[:_MOST_LISTED]]
    if len(report.unlike) > _MOST_LISTED:
        pairs.append(("", f"and {len(report.unlike) - _MOST_LISTED} more"))
    spoilt = [tensor for tensor in report.tensors if nonfinite(tensor.figures)]
    pairs += [("not finite", f"{tensor.name}: {nonfinite(tensor.figures)}") for tensor in spoilt[:_MOST_LISTED]]
    if len(spoilt) > _MOST_LISTED:
        pairs.append(("", f"and {count(len(spoilt) - _MOST_LISTED, 'tensor')} more; these elements count in no sum"))
    pairs += [("note", note) for note in report.notes]
    peak = f"{format_bytes(report.measured_peak_bytes)} at peak, {format_bytes(report.predicted_peak_bytes)} predicted"
    pairs.append(("read", f"{format_bytes(report.bytes_read)} in {format_seconds(report.seconds)}; memory {peak}"))
    return _once(pairs)


def listed(names: Sequence[str], stacks: Sequence[StackLayers]) -> list[str]:
    """Names in a few lines: those in layers together, the others one by one, and not too many of these."""
    layers: dict[str, dict[int, int]] = {}
    others = []
    for name in names:
        prefix = next((each.prefix for each in stacks if name.startswith(each.prefix + ".")), None)
        number = name[len(prefix) + 1 :].partition(".")[0] if prefix is not None else ""
        if prefix is not None and number.isdecimal():
            held = layers.setdefault(prefix, {})
            held[int(number)] = held.get(int(number), 0) + 1
        else:
            others.append(name)
    lines = []
    for prefix, held in layers.items():
        low, high = min(held), max(held)
        span = f"{low}" if low == high else f"{low}–{high}"
        lines.append(f"{prefix}.{span}: {count(sum(held.values()), 'tensor')} in {count(len(held), 'layer')}")
    lines += others[:_MOST_LISTED]
    if len(others) > _MOST_LISTED:
        lines.append(f"and {len(others) - _MOST_LISTED} more")
    return lines


def _once(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same pairs, each name in the first line that has it alone."""
    found: list[tuple[str, str]] = []
    before = ""
    for name, value in pairs:
        found.append(("" if name == before else name, value))
        before = name or before
    return found


def _layers(stacks: Sequence[StackLayers]) -> list[str]:
    return [
        f"{stack.prefix}: {stack.layers_a} in A, {stack.layers_b} in B; the first "
        f"{min(stack.layers_a, stack.layers_b)} are compared"
        for stack in stacks
        if stack.layers_a != stack.layers_b and stack.layers_a and stack.layers_b
    ]
