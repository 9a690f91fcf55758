"""Nanoseconds a unit of work, by op: what `Rates` starts from. Measured by benchmarks/rates.py, one worker on one core.

Ops that are not listed take what is usual for their locality.
"""

from __future__ import annotations

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
