"""The journal alone: intervals, gaps, and lines that are torn anywhere."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plait.engine.errors import OutputError
from plait.engine.journal import Batch, Finished, Journal, Stretch, read_journal

if TYPE_CHECKING:
    from pathlib import Path

ELEMENTS = 64
ranges = st.tuples(st.integers(0, ELEMENTS), st.integers(0, ELEMENTS)).map(sorted)


@given(st.lists(ranges, max_size=12))
def test_finished_stretches_are_joined(added: list[list[int]]) -> None:
    finished, expected = Finished(), set()
    for lo, hi in added:
        finished.add(3, lo, hi)
        expected.update(range(lo, hi))
    found = finished.ranges(3)
    assert {element for lo, hi in found for element in range(lo, hi)} == expected
    assert all(before[1] < after[0] for before, after in pairwise(found))
    assert finished.elements(3) == len(expected)
    assert finished.positions() == ((3,) if expected else ())


@given(st.lists(ranges, max_size=12), st.integers(1, 20), st.integers(ELEMENTS, ELEMENTS + 9))
def test_gaps_cover_what_is_missing_and_start_where_tiles_may(added: list[list[int]], step: int, elements: int) -> None:
    finished = Finished()
    for lo, hi in added:
        finished.add(0, lo, hi)
    done = {element for lo, hi in finished.ranges(0) for element in range(lo, hi)}
    gaps = finished.gaps(0, elements, step)
    covered = [element for gap in gaps for element in range(gap.lo, gap.hi)]
    assert len(covered) == len(set(covered))
    missing = set(range(elements)) - done
    assert missing <= set(covered)
    # Nothing is done again but what shares its step with something missing.
    assert {element // step for element in covered} == {element // step for element in missing}
    assert all(gap.lo % step == 0 and (gap.hi % step == 0 or gap.hi == elements) for gap in gaps)


BATCHES = (
    Batch((Stretch(0, 0, 4096, False, 17), Stretch(5, 8192, 12288, True))),
    Batch((), (("model", "é.weight"),)),
    Batch((Stretch(1, 0, 1, False, 0),)),
)


def test_a_journal_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, {"seed": 7}, BATCHES[:1])
    for batch in BATCHES[1:]:
        journal.append(batch)
    journal.close()
    assert read_journal(path) == ({"seed": 7}, BATCHES)
    data = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends)
        assert read_journal(path) == (({"seed": 7}, BATCHES[: whole - 1]) if whole else None)


def test_a_damaged_line_ends_what_counts(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path, {}, BATCHES).close()
    data = path.read_bytes()
    for index in range(len(data)):
        path.write_bytes(data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :])
        found = read_journal(path)
        assert found is None or found[1] in [BATCHES[:count] for count in range(len(BATCHES))]


def test_a_journal_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="journal cannot be written"):
        Journal(tmp_path / "nowhere" / "journal", {})
