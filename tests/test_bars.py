"""Pictures made of letters: every number has its place, at any width."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plait.views.bars import BLOCKS, axis, bars, block, cells, gauge, over_time, spread

NUMBERS = st.floats(-1e6, 1e6)
VALUES = st.lists(st.none() | NUMBERS, max_size=200)
COLUMNS = st.integers(1, 200)


def test_a_ramp_is_a_ramp() -> None:
    assert bars(range(7), 0, 6, 7) == BLOCKS == "▁▂▃▄▅▆▇"
    assert bars([0, None, 6], 0, 6, 9) == "▁▁▁   ▇▇▇"
    assert bars([0, 6, None, None, 3, 0], 0, 6, 3) == "▇ ▄"


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_a_higher_value_never_has_a_lower_bar(one: float, other: float, low: float, high: float) -> None:
    low, high = sorted((low, high))
    drawn = [BLOCKS.index(block(value, low, high)) for value in sorted((one, other))]
    assert drawn == sorted(drawn)
    if low < high:
        assert block(low, low, high) == BLOCKS[0]
        assert block(high, low, high) == BLOCKS[-1]


@given(VALUES, COLUMNS)
def test_bars_fit_and_no_value_is_left_out(values: list[float | None], columns: int) -> None:
    drawn = bars(values, -1e6, 1e6, columns)
    assert len(drawn) <= columns
    assert set(drawn) <= {*BLOCKS, " "}
    assert (not drawn.strip()) == all(value is None for value in values)
    assert max((value for value in spread(values, columns) if value is not None), default=None) == max(
        (value for value in values if value is not None), default=None
    )


@given(st.integers(0, 500), COLUMNS)
def test_values_are_all_as_wide(count: int, columns: int) -> None:
    each, folded = cells(count, columns)
    assert 1 in (each, folded)
    assert -(-count // folded) * each <= columns
    assert len(spread([1.0] * count, columns)) == -(-count // folded) * each


@given(st.integers(1, 500), COLUMNS)
def test_the_numbers_of_an_axis_stand_above_their_layers(count: int, columns: int) -> None:
    line = axis(count, columns)
    each, folded = cells(count, columns)
    ticks = line.split()
    assert ticks[0] == "0"
    assert ticks == sorted(set(ticks), key=int)
    assert int(ticks[-1]) < count
    at = 0
    for tick in ticks:
        at = line.index(tick, at)
        assert at == int(tick) * each // folded
        at += len(tick)
    assert len(line) <= columns + len(str(count))


def test_an_axis_ends_with_the_last_layer() -> None:
    assert axis(32, 32) == "0       8       16      24     31"
    assert axis(44, 44) == "0       8       16      24      32         43"
    assert axis(1, 10) == "0"
    assert axis(0, 10) == ""


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e9)), max_size=100), st.integers(1, 80))
def test_no_peak_is_lost_over_time(moments: list[tuple[float, float]], columns: int) -> None:
    moments = sorted(moments)
    line = over_time(moments, columns)
    assert len(line) == columns
    assert max(line) == max((value for _, value in moments), default=0.0)


def test_a_line_over_time_has_each_value_for_its_share() -> None:
    assert over_time([(25, 1.0), (75, 3.0), (100, 2.0)], 4) == [1.0, 3.0, 3.0, 2.0]
    assert over_time([(1, 5.0), (100, 1.0)], 4) == [5.0, 1.0, 1.0, 1.0]
    assert over_time([(0, 7.0)], 3) == [7.0, 7.0, 7.0]
    assert over_time([], 2) == [0.0, 0.0]


@given(st.lists(st.integers(0, 10**12), max_size=6), st.integers(0, 10**12), COLUMNS)
def test_a_gauge_is_full_where_its_parts_fill_it(parts: list[int], rest: int, columns: int) -> None:
    total = sum(parts) + rest
    taken = gauge(parts, total, columns)
    assert len(taken) == len(parts)
    assert sum(taken) <= columns
    if total and not rest:
        assert sum(taken) == columns
    if sum(taken) < columns:
        assert all((columns_of > 0) == (part > 0) for part, columns_of in zip(parts, taken, strict=True))


@pytest.mark.parametrize(("parts", "taken"), [((250, 26, 14), [25, 3, 1]), ((0, 0, 400), [0, 0, 40]), ((), [])])
def test_a_gauge_shows_shares(parts: tuple[int, ...], taken: list[int]) -> None:
    assert gauge(parts, 400, 40) == taken
