"""What a machine does in a second: what the time model goes by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LOCALITY_NANOSECONDS: Mapping[str, float] = {
    "element": 0.429,
    "row": 14.3,
    "reduce": 1.12,
    "state": 20,
    "panel": 0.0546,
    "whole": 0.0452,
}

OP_NANOSECONDS: Mapping[str, float] = {
    "abs_sum": 1.12,
    "add": 0.0553,
    "agree_sum": 0.269,
    "agree_weight": 0.458,
    "agreed_mean": 1.54,
    "aim": 2.13,
    "aim_again": 0.973,
    "boosted_mean": 2.23,
    "boosts": 9070,
    "cast": 0.126,
    "clamp": 0.0732,
    "column_arcs": 24.9,
    "column_dots": 5.33,
    "column_sizes": 1.1,
    "combine": 0.141,
    "combine_columns": 0.67,
    "count_leading": 1.61,
    "count_tails": 0.564,
    "count_window": 1.34,
    "divide": 0.0773,
    "drop": 1.25,
    "drop_ranked": 14.3,
    "elect": 0.822,
    "flattener": 0.392,
    "found_in": 3400,
    "gate": 0.31,
    "geometric_median_coefficients": 91600,
    "gram": 0.929,
    "importance": 0.535,
    "karcher_coefficients": 41300,
    "keep_at_least": 0.429,
    "keep_marked": 0.386,
    "keep_ranked": 0.417,
    "largest": 1.07,
    "left_gram": 0.0452,
    "left_times": 0.0546,
    "line_gram": 0.035,
    "locate": 1.89,
    "marks": 0.527,
    "match_l1": 0.0855,
    "moved_mean": 0.82,
    "multislerp_coefficients": 39300,
    "nonzero_count": 0.237,
    "nuslerp_coefficients": 61100,
    "outlier_threshold": 762,
    "overlap_counts": 1.05,
    "rank_of_share": 23800,
    "row_divergence": 6.13,
    "row_slerp": 13.5,
    "row_stock": 15.4,
    "sample_digits": 1.58,
    "scale": 0.0571,
    "settle": 23,
    "shares": 31600,
    "slerp_coefficients": 50700,
    "stock_coefficients": 71500,
    "strongest": 0.326,
    "sub": 0.0624,
    "tall_sum": 3.2,
    "times": 0.0471,
    "whitened": 0.892,
}
"""Nanoseconds of one worker for each unit of work; an op that is not listed takes what is usual for its locality."""


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second. Bytes count all workers together, ops, steps and tiles one worker.

    ``op_nanoseconds`` is by op for each unit of work (`work_units`); an op that it lacks costs what is usual for its
    locality. ``step_seconds`` is what each op of a tile costs besides, ``tile_seconds`` each tile, ``start_seconds`` a
    run, and ``check_bytes`` is what ``--verify`` reads and hashes.
    """

    read_bytes: float = 2e9
    write_bytes: float = 1e9
    copy_bytes: float = 0.8e9
    check_bytes: float = 0.6e9
    op_nanoseconds: Mapping[str, float] = field(default_factory=lambda: OP_NANOSECONDS)
    locality_nanoseconds: Mapping[str, float] = field(default_factory=lambda: LOCALITY_NANOSECONDS)
    step_seconds: float = 5e-6
    tile_seconds: float = 4e-5
    start_seconds: float = 0.05


RATES = Rates()
"""Ops as benchmarks/rates.py measures them on one core of a server; files as on a disk of some 1 GB a second."""
