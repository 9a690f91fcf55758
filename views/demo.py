"""The demo's table of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .console import output

if TYPE_CHECKING:
    from collections.abc import Mapping


def show_scores(scores: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table: a row a model, a column a skill, the share of problems solved exactly."""
    table = Table(title="problems solved exactly", title_justify="left")
    table.add_column("model")
    for skill in next(iter(scores.values())):
        table.add_column(skill, justify="right")
    for model, shares in scores.items():
        style = "bold green" if model == "merged" else None
        table.add_row(model, *(f"{share:.0%}" for share in shares.values()), style=style)
    output().print(table)
