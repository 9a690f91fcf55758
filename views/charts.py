"""Pictures for pages: histograms on a logarithmic axis, lines over time. Numbers in, SVG out."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_WIDTH, _HEIGHT = 380, 190
"""Units of a picture: about the pixels of a phone's width, so that letters keep their size there."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 10, 24
_TICK_ROOM = 34
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_STEPS = (1, 2, 2.5, 5, 10)


class Line(NamedTuple):
    """A line over time: its name, its values, and how it is drawn, a class of the style sheet."""

    name: str
    values: Sequence[float]
    style: str


class Level(NamedTuple):
    """A horizontal line: what it marks, and where."""

    name: str
    value: float


def histogram(
    positive: Sequence[float], negative: Sequence[float], exponents: range, *, highest: float, title: str
) -> Iterator[str]:
    """Shares of elements by size, those below zero to the left: a bar an octave, from 2^first to 2^(last+1).

    ``highest`` is the share that fills the picture; the style sheet's ``--mark`` colours the bars.
    """
    yield _open(title)
    yield from _shares(highest)
    half = (_WIDTH - _LEFT - _RIGHT) / 2
    middle = _LEFT + half
    gap = 6.0
    each = (half - gap) / max(len(exponents), 1)
    for sign, shares in ((1, positive), (-1, negative)):
        for index, share in enumerate(shares):
            if share <= 0:
                continue
            x = middle + sign * gap + (index * each if sign > 0 else -(index + 1) * each)
            tall = _inner() * min(share / highest, 1.0)
            y = _HEIGHT - _BOTTOM - tall
            yield f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{max(each - 1, 0.5):.1f}" height="{tall:.1f}"/>'
        yield from _decades(exponents, middle + sign * gap, sign * each)
    base = _HEIGHT - _BOTTOM
    yield f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'
    yield f'<line class="axis" x1="{middle:.1f}" x2="{middle:.1f}" y1="{_TOP}" y2="{base}"/>'
    yield f'<text class="tick" x="{middle:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">0</text>'
    yield "</svg>"


def over_time(
    seconds: Sequence[float],
    lines: Sequence[Line],
    levels: Sequence[Level],
    *,
    show: Callable[[float], str],
    steps: Sequence[float],
    title: str,
) -> Iterator[str]:
    """Lines over time, from zero up; ``steps`` are distances that ticks may have, ``show`` writes a value."""
    yield _open(title)
    most = max((*(value for line in lines for value in line.values), *(level.value for level in levels), 1e-9))
    step = next((step for step in steps if most / step <= 4), most)
    high = step * math.ceil(most / step)
    end = seconds[-1] or 1.0
    plain, base = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM

    def place(second: float, value: float) -> str:
        return f"{_LEFT + plain * second / end:.1f},{base - _inner() * value / high:.1f}"

    for number in range(round(high / step) + 1):
        y = base - _inner() * number * step / high
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _tick(_LEFT - 4, y + 3.5, show(number * step), "end")
    for second in _ticks(end):
        anchor = "start" if second == 0 else "end" if second > 0.95 * end else "middle"
        yield _tick(_LEFT + plain * second / end, _HEIGHT - 8, f"{second:g} s", anchor)
    for line in lines:
        points = " ".join(place(second, value) for second, value in zip(seconds, line.values, strict=True))
        if line.style == "area":
            yield f'<polygon class="area" points="{place(seconds[0], 0)} {points} {place(end, 0)}"/>'
        yield f'<polyline class="line {line.style}" points="{points}"/>'
    for level in levels:
        y = base - _inner() * level.value / high
        yield f'<line class="level" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        below = y + 12 if y < _TOP + 12 else y - 4
        name = escape(level.name)
        yield f'<text class="said" x="{_WIDTH - _RIGHT - 2}" y="{below:.1f}" text-anchor="end">{name}</text>'
    yield "</svg>"


def nice_steps(base: float) -> list[float]:
    """Distances of ticks: 1, 2, 2.5, 5, 10 … times powers of ten of a unit."""
    return [base * step * 10.0**power for power in range(8) for step in _STEPS[:-1]]


def binary_steps() -> list[float]:
    """Distances of ticks for bytes: powers of two, up to an exbibyte."""
    return [2.0**power for power in range(60)]


def _open(title: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}" '
        'preserveAspectRatio="xMinYMin meet">'
    )


def _inner() -> int:
    return _HEIGHT - _TOP - _BOTTOM


def _shares(highest: float) -> Iterator[str]:
    """Lines and numbers of an axis of shares."""
    step = next(
        step for step in (10.0**power * part for power in range(-6, 1) for part in _STEPS) if highest / step <= 4
    )
    for number in range(int(highest / step) + 1):
        y = _HEIGHT - _BOTTOM - _inner() * number * step / highest
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _tick(_LEFT - 4, y + 3.5, f"{100 * number * step:g}%", "end")


def _decades(exponents: range, start: float, each: float) -> Iterator[str]:
    """Powers of ten along an axis of octaves, as many as have room."""
    low, high = exponents.start * math.log10(2), exponents.stop * math.log10(2)
    decades = range(math.ceil(low), math.floor(high) + 1)
    octaves = 1 / math.log10(2)
    apart = max(1, math.ceil(_TICK_ROOM / max(abs(each) * octaves, 1e-9)))
    for decade in list(decades)[::-1][::apart]:
        x = start + each * (decade * octaves - exponents.start)
        if abs(x - start) < _TICK_ROOM:  # the zero is there
            continue
        sign = "−" if each < 0 else ""
        y = _HEIGHT - _BOTTOM
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}"/>'
        yield _tick(x, _HEIGHT - 8, f"{sign}10{str(decade).translate(_SUPERSCRIPTS)}", "middle")


def _ticks(end: float) -> list[float]:
    step = next((step for step in nice_steps(0.01) if end / step <= 5), end)
    return [step * number for number in range(int(end / step + 1e-9) + 1)]


def _tick(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
