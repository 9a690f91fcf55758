"""How far apart two models are: a summary, kinds of tensors, a heat map of layers × kinds, the most changed tensors."""

from __future__ import annotations

from string import ascii_lowercase
from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.units import format_bytes, format_count, format_seconds
from .console import output, print_lines, width_of
from .figures import UNDEFINED, cosine, nonfinite, percent
from .heat import LEVELS, HeatMap, heat_maps, scale_of
from .layout import Row, clean, count, facts, shorten, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..diff_report import DiffReport, Figures, StackLayers
    from .heat import Scale

_MOST_ROWS = 48
_MOST_LISTED = 10
_CELL = 6
"""Columns of a cell: a glyph and a number of up to five letters."""

_GLYPHS = "░▒▓█"
_STYLES = ("blue", "cyan", "yellow", "bold red")
_SAME = "="
assert len(_GLYPHS) == len(_STYLES) == LEVELS


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
            [_titles("outside of the layers"), *(_row(*each, scale) for each in outside)], width, right=_RIGHT
        )
    room = None if width is None else max((width - 2 - _label_width(report)) // (_CELL + 1), 1)
    for each in heat_maps(report, most_columns=room, most_rows=None if width is None else _MOST_ROWS):
        yield Text()
        yield from _map(each, scale, width)
    if report.cells:
        yield _legend(scale, width)
    chosen = report.tensors if verbose else report.most_changed[:_MOST_LISTED]
    if chosen:
        title_text = "all tensors" if verbose else "most changed"
        yield Text()
        yield from table(
            [_titles(title_text), *(_row(tensor.name, tensor.figures, scale) for tensor in chosen)], width, right=_RIGHT
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


_RIGHT = (0, 1, 2)


def _titles(first: str) -> Row:
    return Row(Text(first, "bold"), [Text(title, "bold") for title in ("cosine", "rel. L2", "changed")])


def _row(name: str, figures: Figures, scale: Scale) -> Row:
    distance = _cell(figures, scale)
    return Row(Text(clean(name)), [Text(cosine(figures.cosine)), distance, Text(percent(figures.changed_share))])


def _cell(figures: Figures | None, scale: Scale) -> Text:
    """A glyph that says how hot, and the relative L2."""
    if figures is None:
        return Text(" " * _CELL)
    value = figures.relative_l2
    if value is None:
        return Text(_SAME if figures.identical else UNDEFINED, "dim")
    if value == 0:
        return Text(f"{_SAME if figures.identical else _GLYPHS[0]}{percent(value):>5}", "dim")
    level = scale.level(value)
    return Text(f"{_GLYPHS[level]}{percent(value):>5}", _STYLES[level])


def _label_width(report: DiffReport) -> int:
    """Columns of the longest label of a row."""
    layers = max((layer for _, layer, _ in report.cells), default=0) + 1
    digits = len(str(layers - 1))
    return max(digits if layers <= _MOST_ROWS else 2 * digits + 1, len("layer"))


def _map(each: HeatMap, scale: Scale, width: int | None) -> Iterator[Text]:
    """What the columns are, with their figures, and below it the map."""
    marks = [_mark(index) for index in range(len(each.columns))]
    rows = [_titles(f"kinds in {clean(each.stack)}")]
    for mark, column in zip(marks, each.columns, strict=True):
        whole = each.whole(column)
        rows.append(_row(column, whole, scale))
        rows[-1].guide.append(f"{mark} ", "bold")
    yield from table(rows, width, right=_RIGHT)
    yield Text()
    labels = [_span(row) for row in each.rows]
    first = max(map(len, (*labels, "layer")))
    yield Text(f"  {'layer':<{first}}" + "".join(f" {mark:>{_CELL}}" for mark in marks), "bold")
    for label, row in zip(labels, each.rows, strict=True):
        line = Text(f"  {label:>{first}}")
        for column in each.columns:
            cell = _cell(each.cells.get((row, column)), scale)
            line.append(" " * (1 + _CELL - cell.cell_len)).append_text(cell)
        line.rstrip()
        yield line


def _span(row: range) -> str:
    return str(row[0]) if len(row) == 1 else f"{row[0]}–{row[-1]}"


def _mark(index: int) -> str:
    """A to z, then aa, ab and so on."""
    higher, lower = divmod(index, len(ascii_lowercase))
    return (_mark(higher - 1) if higher else "") + ascii_lowercase[lower]


def _legend(scale: Scale, width: int | None) -> Text:
    line = Text("  relative L2: ", "dim")
    line.append(f"{_SAME} identical", "dim")
    if scale.high:
        for glyph, style, edge in zip(_GLYPHS, _STYLES, scale.edges, strict=True):
            line.append("  ").append(f"{glyph} ≤ {percent(edge)}", style)
    return line if width is None else shorten(line, width)
