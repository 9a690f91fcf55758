"""Pictures made of letters: bars over depth, lines over time, a gauge, an axis. Numbers in, letters out, no plan."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BLOCKS = "▁▂▃▄▅▆▇"
"""From the least to the most; nothing at all is a space. None is so high that it touches the line above."""

_TICKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Steps of an axis: layers come in powers of two."""

_TICK_COLUMNS = 6
"""Columns from one number of an axis to the next, at least."""


def block(value: float | None, low: float, high: float) -> str:
    """A bar one column wide for a value between two others; a space for None, half a bar where the two are the same."""
    if value is None:
        return " "
    if high <= low:
        return BLOCKS[len(BLOCKS) // 2 - 1]
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    return BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)]


def bars(values: Sequence[float | None], low: float, high: float, columns: int) -> str:
    """A bar for each value, all of the same width, in at most so many columns; where several share one, the most."""
    return "".join(block(value, low, high) for value in spread(values, columns))


def spread(values: Sequence[float | None], columns: int) -> list[float | None]:
    """Values over columns: each over as many as there is room for, or several in one, where the largest counts."""
    each, folded = cells(len(values), columns)
    if folded == 1:
        return [value for value in values for _ in range(each)]
    groups = (values[at : at + folded] for at in range(0, len(values), folded))
    return [max((value for value in group if value is not None), default=None) for group in groups]


def cells(count: int, columns: int) -> tuple[int, int]:
    """Columns a value takes, and values that share a column; one of the two is 1. A value has four columns at most."""
    if count == 0:
        return 1, 1
    if count > max(columns, 1):
        return 1, -(-count // max(columns, 1))
    return min(columns // count, 4), 1


def axis(count: int, columns: int) -> str:
    """The numbers above `bars` of so many values: 0, some between, and the last where there is room for it."""
    if count == 0:
        return ""
    each, folded = cells(count, columns)
    step = next((step for step in _TICKS if step * each >= _TICK_COLUMNS * folded), _TICKS[-1] * folded)
    last = count - 1
    ticks = [tick for tick in range(0, count, step) if tick == 0 or last - tick >= step / 2] + [last] * (last > 0)
    line = ""
    for tick in ticks:
        at = tick * each // folded
        if tick == 0 or at > len(line):
            line = f"{line:<{at}}{tick}"
    return line


def over_time(moments: Iterable[tuple[float, float]], columns: int) -> list[float]:
    """The most in each of so many equal parts of a time, from (when it ends, how much) in the order of time.

    A moment that lasts no time counts in the part where it ends; parts in which nothing ends have what goes on.
    """
    found = [(max(end, 0.0), value) for end, value in moments]
    total = found[-1][0] if found else 0.0
    most = [0.0] * columns
    if not columns:
        return most
    start = 0.0
    for end, value in found:
        first = int(start / total * columns) if total else 0
        stop = -(-end * columns // total) if total else columns
        for column in range(min(first, columns - 1), min(max(int(stop), first + 1), columns)):
            most[column] = max(most[column], value)
        start = end
    return most


def gauge(parts: Sequence[float], total: float, columns: int) -> list[int]:
    """How many of so many columns each part of a total takes. What is not zero has a column while there are any."""
    if total <= 0:
        return [0] * len(parts)
    taken = [0]
    done = 0.0
    for part in parts:
        done += part
        edge = round(min(done / total, 1.0) * columns)
        taken.append(min(max(edge, taken[-1] + (part > 0)), columns))
    return [stop - start for start, stop in pairwise(taken)]
