"""Patterns of layers that repeat, as in an expansion with a copy after every fourth layer: one line for all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine.graph import Program
    from .kinds import Kind
    from .layers import Run

_LONGEST_PATTERN = 6


@dataclass(frozen=True)
class Cycle:
    """Runs that come again and again, each time further on; ``runs`` are those of the first time."""

    runs: tuple[Run, ...]
    last: Run
    times: int

    @property
    def title(self) -> str:
        """All layers, from the first of the first time to the last of the last."""
        first, last = self.runs[0].layers[0], self.last.layers[-1]
        return f"{first.stack}.{first.number}–{last.number}"

    @property
    def tensors(self) -> int:
        """How many tensors it holds."""
        return self.times * sum(run.tensors for run in self.runs)

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes in the output."""
        return self.times * sum(run.size_bytes for run in self.runs)


def fold_cycles(runs: Sequence[Run], kinds: Mapping[Program, Kind]) -> list[Run | Cycle]:
    """Replace patterns that repeat; the shortest pattern that covers most wins."""
    found: list[Run | Cycle] = []
    at = 0
    while at < len(runs):
        times, length = max(
            ((_times(runs, at, length, kinds), length) for length in range(2, _LONGEST_PATTERN + 1)),
            key=lambda option: (option[0] > 1, option[0] * option[1], -option[1]),
        )
        if times > 1:
            found.append(Cycle(tuple(runs[at : at + length]), runs[at + times * length - 1], times))
            at += times * length
        else:
            found.append(runs[at])
            at += 1
    return found


def _times(runs: Sequence[Run], at: int, length: int, kinds: Mapping[Program, Kind]) -> int:
    """How often the pattern of so many runs is there, one after the other, the first time included."""
    times = 1
    while at + (times + 1) * length <= len(runs):
        pairs = [(runs[at + index], runs[at + times * length + index]) for index in range(length)]
        if not all(_alike(run, other, kinds) for run, other in pairs):
            break
        if (
            len(
                {step for run, other in pairs for step in layers_between(run, other)}
                | {times * _step(runs, at, length)}
            )
            != 1
        ):
            break
        times += 1
    return times


def _alike(run: Run, other: Run, kinds: Mapping[Program, Kind]) -> bool:
    return (
        run.layers[0].stack is not None
        and len(run.layers) == len(other.layers)
        and run.layers[0].likeness(kinds) == other.layers[0].likeness(kinds)
    )


def layers_between(run: Run, other: Run) -> set[int]:
    """How far the models' layers of one run are from those of another."""
    pairs = zip(run.layers[0].sources, other.layers[0].sources, strict=True)
    return {after - before for before, after in pairs if before is not None and after is not None}


def _step(runs: Sequence[Run], at: int, length: int) -> int:
    """How far the second time is from the first."""
    return min(layers_between(runs[at], runs[at + length]), default=0)
