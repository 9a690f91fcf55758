"""The demo's table: what each model can do, and how far the merged one is from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from .console import output, print_lines, width_of
from .layout import Row, clean, heading, table

if TYPE_CHECKING:
    from collections.abc import Mapping


def show_scores(scores: Mapping[str, Mapping[str, float]], distances: Mapping[str, float | None]) -> None:
    """Print a table: a row a model, a column a skill, the share of problems solved exactly.

    The last column is the relative L2 distance of the merged model from each that has one in ``distances``.
    """
    console = output()
    skills = list(next(iter(scores.values())))
    rows = [Row(Text("model", "bold"), [Text(clean(skill), "bold") for skill in (*skills, "to merged")])]
    for model, shares in scores.items():
        style = "bold green" if model == "merged" else ""
        distance = distances.get(model)
        cells = [*(f"{shares[skill]:.0%}" for skill in skills), "" if distance is None else f"{distance:.1%}"]
        rows.append(Row(Text(clean(model), style), [Text(cell, style) for cell in cells]))
    lines = [Text(), heading("problems solved exactly, and how far off the merged weights are")]
    print_lines(console, [*lines, *table(rows, width_of(console), right=range(len(skills) + 1))])
