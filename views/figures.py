"""Figures of a comparison in a few letters each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..reports.diff_report import Figures

UNDEFINED = "–"


def percent(value: float | None) -> str:
    """A part or a relative distance in at most five letters; what is not zero never looks like it, nor like 100%."""
    if value is None:
        return UNDEFINED
    if math.isinf(value):
        return "∞"
    hundredths = 100 * value
    if hundredths == 0:
        return "0%"
    if hundredths < 0.01:
        return "<.01%"
    if hundredths >= 99.95:
        return "<100%" if value < 1 else f"{hundredths:.0f}%" if hundredths < 9999 else ">9k%"
    return f"{hundredths:.2f}%" if hundredths < 9.995 else f"{hundredths:.1f}%"


def cosine(value: float | None) -> str:
    """Six digits, cut off and not rounded: only what is the same is 1."""
    if value is None:
        return UNDEFINED
    if value in (1.0, -1.0):
        return f"{value:.0f}"
    return f"{math.trunc(value * 1_000_000) / 1_000_000:.6f}"


def nonfinite(figures: Figures) -> str:
    """How many elements are NaN or infinity, nothing where all are finite."""
    if not figures.nonfinite_a and not figures.nonfinite_b:
        return ""
    return f"NaN or infinity: {figures.nonfinite_a} in A, {figures.nonfinite_b} in B"
