"""The layers of the output over its depth: a bar for each model that gives some, and for each gradient.

A model's bar is as high as the layer it gives is deep in the model. So layers that go on are a slope, layers that are
repeated a step, paler than the rest, and a jump back to earlier layers is a fall.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from .bars import axis, bars, cells, spread
from .layout import beside, clean, shorten
from .parameters import REST, one_value, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..engine.methoddef import Value
    from ..merge import MergePlan
    from .layers import Layer
    from .legend import Legend
    from .parameters import Course, Settings

_MOST_COLUMNS = 64
"""A bar is no wider on a wide screen: an eye follows a line from its label."""

_WORDS = 24
"""Columns for words beside a bar, at least, where lines have a width."""

_LABEL = 26
_MOST_SPANS = 3


class Track(NamedTuple):
    """What one model gives to a stack: for each output layer which of its own, or None. ``again``: the same model."""

    model: str
    again: int
    layers: tuple[int | None, ...]


def layer_map(merge: MergePlan, layers: Sequence[Layer], legend: Legend, width: int | None) -> Iterator[Text]:
    """A part a stack; where there is none, the parameters alone. ``layers`` are all of the output, in its order."""
    stacks: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.stack is not None:
            stacks.setdefault(layer.stack, []).append(layer)
    outside = [layer for layer in layers if layer.stack is None]
    if not stacks:
        yield from _parameters_alone(settings_of(merge, outside), legend, width)
    leading = _leading(merge, list(stacks))
    shown = [stack for stack in stacks if stack in leading]
    for stack in shown:
        if stack is not shown[0]:
            yield Text()
        title = "layers" if len(shown) == 1 else clean(stack)
        settings = settings_of(merge, [*stacks[stack], *(outside if stack == shown[0] else ())])
        yield from _stack_map(merge, title, stack, stacks[stack], settings, legend, width)


def tracks(layers: Sequence[Layer]) -> list[Track]:
    """What each model gives, in the order in which models come; one that gives two layers at a time has two tracks."""
    found: dict[tuple[str, int], list[int | None]] = {}
    for index, layer in enumerate(layers):
        seen: Counter[str] = Counter()
        for model, source in layer.given:
            if source is not None:
                track = found.setdefault((model, seen[model]), [None] * len(layers))
                track[index] = source
                seen[model] += 1
    return [Track(model, again, tuple(track)) for (model, again), track in found.items()]


def spans(layers: Sequence[int | None]) -> str:
    """A model's layers in words: ``0–31``, ``0–7, 4–11``, ``31 (12 times)``; ``8 of 4–39``, ``0–31, 8 again``."""
    parts: list[tuple[int, int, int]] = []  # first, last, times
    before: int | None = None
    for layer in layers:
        if layer is not None and parts and before is not None:
            first, last, times = parts[-1]
            if times == 1 and layer == last + 1:
                parts[-1] = (first, layer, 1)
                before = layer
                continue
            if layer == last == first:
                parts[-1] = (first, last, times + 1)
                continue
        if layer is not None:
            parts.append((layer, layer, 1))
        before = layer
    if len(parts) > _MOST_SPANS:
        given = [layer for layer in layers if layer is not None]
        low, high, different = min(given), max(given), len(set(given))
        some = f"{different} of " if different <= high - low else ""
        return f"{some}{f'{low}–{high}' if high > low else low}" + (
            f", {len(given) - different} again" if len(given) > different else ""
        )
    return ", ".join(
        (f"{first}–{last}" if last != first else f"{first}") + (f" ({times} times)" if times > 1 else "")
        for first, last, times in parts
    )


def _leading(merge: MergePlan, stacks: Sequence[str]) -> set[str]:
    """Stacks that have layers of their own, and not parts of those of another."""
    followers = {stack.prefix for stack in merge.donor.stacks.values() if stack.follows in stacks}
    return set(stacks) - followers


def _stack_map(
    merge: MergePlan,
    title: str,
    stack: str,
    layers: Sequence[Layer],
    settings: Settings,
    legend: Legend,
    width: int | None,
) -> Iterator[Text]:
    every = {str(ref): model for ref, model in merge.models.items()}
    lines: list[_Line] = []
    found = tracks(layers)
    for track in found:
        owner = every[track.model]
        depth = owner.stacks[stack].layers if stack in owner.stacks else owner.layers
        high = max(depth - 1, *(layer for layer in track.layers if layer is not None), 1)
        constants, courses = _sorted_out(settings, track.model, track.again)
        base = ["base"] if track.model == str(merge.recipe.base_model) and not constants and not courses else []
        style = legend.style(track.model)
        words = "  ".join([spans(track.layers), *base, *constants])
        again = [layer in track.layers[:index] for index, layer in enumerate(track.layers)]
        lines.append(_Line(_indented(legend.mark(track.model)), track.layers, 0, high, style, words, again))
        lines += _course_lines(courses, settings, layers, style)
    constants, courses = _sorted_out(settings, None)
    if constants:
        lines.append(_Line(_indented(Text("all")), (), 0, 1, "", "  ".join(constants)))
    lines += _course_lines(courses, settings, layers, "", indent=2)
    lines += _elsewhere(settings, found, legend)
    count = len(layers)
    first = max(len(title), *(line.label.cell_len for line in lines))
    columns = _columns(width, count, first, max(len(line.words) for line in lines))
    each, folded = cells(count, columns)
    taken = -(-count // folded) * each
    numbers = axis(count, columns)
    gap = " " * max(taken + 2 - len(numbers), 1)
    share = f"{folded} a column" if folded > 1 else ""
    notes = [f"{gap}model's layers{', ' * bool(share)}{share}", gap + share, ""]
    note = next(each for each in notes if width is None or first + 2 + len(numbers) + len(each) <= width or not each)
    yield Text.assemble((f"{title:<{first + 2}}", "bold"), (numbers + note.rstrip(), "dim"))
    for line in lines:
        yield from beside(line.label, line.draw(columns), line.words, width, first=first, columns=taken)


class _Line(NamedTuple):
    """A label, what to draw, from the least to the most that a bar may be, and the same in words.

    ``again`` has the values that were there before: they are drawn paler.
    """

    label: Text
    values: Sequence[float | None]
    low: float
    high: float
    style: str
    words: str
    again: Sequence[bool] = ()

    def draw(self, columns: int) -> Text:
        """The bars in at most so many columns."""
        drawn = Text(bars(self.values, self.low, self.high, columns), self.style)
        for at, pale in enumerate(spread([float(each) for each in self.again], columns)):
            if pale:
                drawn.stylize("dim", at, at + 1)
        return drawn


def _columns(width: int | None, count: int, first: int, longest: int) -> int:
    """Columns of the bars: what labels and words leave, and rather one a layer than a long line of words."""
    if width is None:
        return max(count, _MOST_COLUMNS)
    room = width - first - 4
    columns = max(min(room - min(longest, _WORDS), _MOST_COLUMNS), 8)
    return count if columns < count <= room else columns


def _sorted_out(settings: Settings, model: str | None, again: int = 0) -> tuple[list[str], list[tuple[Course, ...]]]:
    """A model's parameters: those with one value, in words, and the courses of the others."""
    constants, courses = [], []
    for name, group in settings.of(model, again):
        value = one_value(group)
        if value is None:
            courses.append(group)
        else:
            constants.append(f"{name}\u00a0{number(value)}")
    return constants, courses


def _labels(group: Sequence[Course]) -> list[str]:
    """What the courses of one parameter are called: the filter tells them apart."""
    if len(group) == 1 and group[0].filter == REST:
        return [group[0].name]
    return [f"{course.name} {clean(course.filter)}" for course in group]


def _course_lines(
    groups: Sequence[tuple[Course, ...]], settings: Settings, layers: Sequence[Layer], style: str, *, indent: int = 4
) -> Iterator[_Line]:
    for group in groups:
        low, high = settings.bounds(group[0].name)
        for label, course in zip(_labels(group), group, strict=True):
            values = course.over(len(layers))
            flat = course.constant is not None and None not in values
            drawn = [] if flat or values.count(None) == len(values) else values
            text = shorten(Text(" " * indent + label), _LABEL)
            yield _Line(text, drawn, low, high, style, course_words(course, len(layers)))


def _indented(mark: Text) -> Text:
    return Text.assemble("  ", mark)


def course_words(course: Course, layers: int) -> str:
    """What a bar says, in numbers: a constant, from the first to the last, and the extremes in between."""
    if course.constant is not None:
        inside = sorted(layer for layer in course.values if layer is not None)
        where = "" if len(inside) == layers else f" in {spans(inside)}" if inside else " outside of the layers"
        return number(course.constant) + where
    found = [(value, layer) for layer, value in enumerate(course.over(layers)) if value is not None]
    if not found:
        return ", ".join(dict.fromkeys(map(number, course.values.values())))
    first, last = found[0][0], found[-1][0]
    low, high = min(found), max(found, key=lambda each: each[0])
    said = f"{number(first)} to {number(last)}" if first != last or low[0] != high[0] else number(first)
    said += f", {number(low[0])} in {low[1]}" if low[0] < min(first, last) else ""
    said += f", {number(high[0])} in {high[1]}" if high[0] > max(first, last) else ""
    outside = course.values.get(None)
    if outside is not None and outside not in (first, last):
        said += f", {number(outside)} outside"
    return said


def _elsewhere(settings: Settings, found: Sequence[Track], legend: Legend) -> Iterator[_Line]:
    """Models that give parameters and no layer, as those that only tensors outside of the layers are made of."""
    shown = {(track.model, track.again) for track in found}
    for model, again in dict.fromkeys((course.model, course.again) for course in settings.courses):
        if model is not None and (model, again) not in shown:
            constants, courses = _sorted_out(settings, model, again)
            said = [*constants, *(f"{group[0].name} not the same everywhere" for group in courses)]
            words = "  ".join([*said, "outside of the layers"])
            yield _Line(_indented(legend.mark(model)), (), 0, 1, "", words)


def _parameters_alone(settings: Settings, legend: Legend, width: int | None) -> Iterator[Text]:
    """The parameters of a model that has no layers."""
    owners = dict.fromkeys((course.model, course.again) for course in settings.courses)
    if owners:
        yield Text("parameters", "bold")
    for model, again in owners:
        label = _indented(legend.mark(model) if model is not None else Text("all"))
        said = [
            f"{name} {', '.join(map(number, course.values.values()))}"
            for _, group in settings.of(model, again)
            for name, course in zip(_labels(group), group, strict=True)
        ]
        yield from beside(label, Text(), "  ".join(said), width, first=label.cell_len, columns=0)


def number(value: Value) -> str:
    """A value as a recipe would write it, to four digits."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return clean(value) if isinstance(value, str) else f"{value:.4g}"
