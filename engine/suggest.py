"""The nearest valid name, for messages about names that are not valid."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# How many letters a name may be off and still be taken for a slip: (longest valid name, edits).
# Names of one or two letters (t, r) are all near each other, so only their case may be off.
_EDITS_BY_LENGTH = ((2, 0), (5, 1), (11, 2))
_MOST_EDITS = 3


def near_miss(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that this one is almost certainly a slip of, or None.

    Case and ``-``, space or ``_`` as the separator never count as a difference in what is meant.
    """
    wanted = _normal(name)
    best: tuple[int, str] | None = None
    for candidate in valid:
        limit = _edits_allowed(len(candidate))
        distance = edit_distance(wanted, _normal(candidate), limit)
        if distance <= limit and (best is None or (distance, candidate) < best):
            best = (distance, candidate)
    return best[1] if best else None


def closest(name: str, valid: Iterable[str]) -> str | None:
    """The most similar valid name, if any is similar at all: for hints, not for verdicts."""
    names = sorted(valid)
    near = near_miss(name, names)
    if near is not None or len(name) > 100:  # nobody means a name that long, and comparing it is slow
        return near
    by_normal = {_normal(candidate): candidate for candidate in names}
    similar = difflib.get_close_matches(_normal(name), list(by_normal), n=1, cutoff=0.6)
    return by_normal[similar[0]] if similar else None


def did_you_mean(name: str | None) -> str:
    """The hint for a nearest name; empty without one."""
    return f"did you mean {name!r}?" if name else ""


def edit_distance(left: str, right: str, limit: int) -> int:
    """Insertions, deletions, replacements and swaps of neighbours between two words; ``limit + 1`` if more."""
    if abs(len(left) - len(right)) > limit:
        return limit + 1
    before: list[int] = []
    previous: list[int] = []
    row = list(range(len(right) + 1))
    for i, letter in enumerate(left, start=1):
        before, previous, row = previous, row, [i]
        for j, other in enumerate(right, start=1):
            cost = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == right[j - 2] and left[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > limit and min(previous) > limit:  # a swap reaches back over one row
            return limit + 1
    return min(row[-1], limit + 1)


def _normal(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def _edits_allowed(length: int) -> int:
    return next((edits for longest, edits in _EDITS_BY_LENGTH if length <= longest), _MOST_EDITS)
