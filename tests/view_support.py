"""Recipes over a small family of models, and their page in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait.views import dry_run

if TYPE_CHECKING:
    import plait

LAYERS = 12
FREE_BYTES = 50 << 30


def page(merge: plait.MergePlan, width: int | None = None, **options: bool) -> str:
    """The page of a dry run as text."""
    return "\n".join(line.plain for line in dry_run.page(merge, width, free_disk_bytes=FREE_BYTES, **options))


DARE = """
    merge_method: dare_ties
    base_model: BASE
    models:
      - {model: FT1, parameters: {weight: 0.5, density: 0.6}}
      - {model: FT2, parameters: {weight: 0.4, density: 0.55}}
    dtype: bfloat16
"""
SCALED = "{scale: [{filter: o_proj, value: 0.0}, {filter: down_proj, value: 0.0}, {value: 1.0}]}"


def passthrough(*slices: tuple[str, int, int] | tuple[str, int, int, str]) -> str:
    lines = ["merge_method: passthrough", "dtype: bfloat16", "slices:"]
    for model, start, end, *parameters in slices:
        extra = f", parameters: {parameters[0]}" if parameters else ""
        lines.append(f"  - sources: [{{model: {model}, layer_range: [{start}, {end}]{extra}}}]")
    return "\n".join(lines)
