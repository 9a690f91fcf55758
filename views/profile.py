"""Where the time of a run went, as tables: what workers did, by op, by kind of tensor, by stage."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.units import format_bytes, format_count, format_seconds
from .layout import Row, clean, count, heading, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..engine.profile import OpTime, Profile

_BAR = 20
"""Columns of the longest bar."""

_SHOWN = 12
"""Rows of a table; the rest is one row, unless everything is asked for."""

_STAGES = {
    "prepare": "before the first tensor",
    "tensors": "the tensors",
    "flush": "shards on their way to the disk",
    "finish": "index, config, card and manifest",
}
_ACTIVITIES = {
    "read": "reading",
    "check": "looking for NaN",
    "kernels": "kernels",
    "write": "writing",
    "copy": "plain copies",
    "wait": "waiting for work",
    "other": "everything else",
}


def as_json(profile: Profile) -> dict[str, object]:
    """A profile as one JSON object."""
    return asdict(profile)


def page(profile: Profile, width: int | None, *, verbose: bool = False) -> Iterator[Text]:
    """The tables, the most costly rows first; all rows where ``verbose``."""
    total = profile.seconds * profile.workers
    workers = count(profile.workers, "worker")
    yield Text()
    yield heading("Where the time went", f"{workers} × {format_seconds(profile.seconds)}")
    spent = sorted(profile.activities.items(), key=lambda item: -item[1])
    rows = [_row(_ACTIVITIES[name], seconds, total, [_bar(seconds, total)]) for name, seconds in spent if seconds]
    yield from table(rows, width, right=(0, 1))
    yield Text()
    rows = [_op_row(each, total) for each in profile.ops]
    yield from table([_titles("op", "calls", "a second"), *_most(rows, verbose)], width, right=(0, 1, 2, 3))
    yield Text()
    rows = [
        _row(each.name, each.seconds, total, [Text(format_count(each.tensors))])
        for each in profile.kinds[: None if verbose else _SHOWN]
    ]
    rest = profile.kinds[len(rows) :]
    if rest:
        tensors = Text(format_count(sum(each.tensors for each in rest)))
        rows.append(_row(f"{len(rest)} more kinds", sum(each.seconds for each in rest), total, [tensors]))
    yield from table([_titles("tensors of a kind", "tensors"), *rows], width, right=(0, 1, 2))
    yield Text()
    stages = [
        Row(Text(_STAGES[name]), [Text(format_seconds(seconds))])
        for name, seconds in profile.stages.items()
        if name in _STAGES
    ]
    if profile.flush_seconds:
        beside = "the journal waiting for the disk, beside the workers"
        stages.append(Row(Text(beside, "dim"), [Text(format_seconds(profile.flush_seconds), "dim")]))
    yield from table(stages, width, right=(0,))
    if profile.trace is not None:
        yield Text.assemble(
            "  ", (f"trace {clean(profile.trace)}: open it in ui.perfetto.dev or chrome://tracing", "dim")
        )


def _titles(label: str, *more: str) -> Row:
    return Row(Text(label, "bold"), [Text(title, "bold") for title in ("time", "share", *more)])


def _row(label: str, seconds: float, total: float, more: Sequence[Text]) -> Row:
    share = seconds / total if total else 0.0
    return Row(Text(clean(label)), [Text(format_seconds(seconds)), Text(f"{share:.1%}"), *more])


def _op_row(each: OpTime, total: float) -> Row:
    if not each.seconds:
        speed = ""
    elif each.bytes:
        speed = f"{format_bytes(each.bytes / each.seconds)}"
    else:
        speed = f"{format_count(round(each.elements / each.seconds / 1e6))} M"
    return _row(each.name, each.seconds, total, [Text(format_count(each.calls)), Text(speed)])


def _most(rows: Sequence[Row], verbose: bool) -> Sequence[Row]:
    if verbose or len(rows) <= _SHOWN + 1:
        return rows
    return [*rows[:_SHOWN], Row(Text(f"and {len(rows) - _SHOWN} more ops; -v shows all", "dim"))]


def _bar(seconds: float, total: float) -> Text:
    return Text("█" * round(_BAR * seconds / total) if total else "", "green")
