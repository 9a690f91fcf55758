"""What a machine does in a second: what the time model goes by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LOCALITY_NANOSECONDS: Mapping[str, float] = {
    "element": 0.5,
    "row": 2.0,
    "reduce": 1.0,
    "state": 1.0,
    "panel": 0.1,
    "whole": 0.1,
}

OP_NANOSECONDS: Mapping[str, float] = {}
"""Nanoseconds of one worker for each unit of work; an op that is not listed takes what is usual for its locality."""


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second. Bytes count all workers together, ops, steps and tiles one worker.

    ``op_nanoseconds`` is by op for each unit of work (`work_units`); an op that it lacks costs what is usual for its
    locality. ``step_seconds`` is what each op of a tile costs besides, ``tile_seconds`` each tile, ``start_seconds`` a
    run, and ``check_bytes`` is what ``--verify`` reads and hashes.
    """

    read_bytes: float = 2.6e9
    write_bytes: float = 1.1e9
    copy_bytes: float = 1.2e9
    check_bytes: float = 0.7e9
    op_nanoseconds: Mapping[str, float] = field(default_factory=lambda: OP_NANOSECONDS)
    locality_nanoseconds: Mapping[str, float] = field(default_factory=lambda: LOCALITY_NANOSECONDS)
    step_seconds: float = 5e-6
    tile_seconds: float = 4e-5
    start_seconds: float = 0.05


RATES = Rates()
"""Measured by benchmarks/rates.py on two cores of a server, inputs in the page cache."""
