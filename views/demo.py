"""The demo's table of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from .console import output, print_lines, width_of
from .layout import Row, clean, heading, table

if TYPE_CHECKING:
    from collections.abc import Mapping


def show_scores(scores: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table: a row a model, a column a skill, the share of problems solved exactly."""
    console = output()
    skills = list(next(iter(scores.values())))
    rows = [Row(Text("model", "bold"), [Text(clean(skill), "bold") for skill in skills])]
    for model, shares in scores.items():
        style = "bold green" if model == "merged" else ""
        rows.append(Row(Text(clean(model), style), [Text(f"{shares[skill]:.0%}", style) for skill in skills]))
    lines = [Text(), heading("problems solved exactly")]
    print_lines(console, [*lines, *table(rows, width_of(console), right=range(len(skills)))])
