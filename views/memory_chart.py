"""What a plan holds in memory: a gauge of the bound, and what workers hold over the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.simulate import simulate
from ..engine.units import format_bytes
from .bars import block, gauge, over_time
from .layout import GAP, beside, clean, count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..engine.plan import Plan
    from ..engine.simulate import Moment

_MOST_COLUMNS = 64

_SHADES = "█▓▒░"
"""In use now, arenas, states, slack."""

_FREE = "─"


def memory_chart(plan: Plan, width: int | None, *, first: int) -> Iterator[Text]:
    """The gauge and what its parts are, the line over time and where it is highest. ``first`` columns are left free."""
    columns = _MOST_COLUMNS if width is None else max(min(_MOST_COLUMNS, width - first), 1)
    moments = list(simulate(plan))
    parts = [_gauge(plan, columns)]
    if any(moment.live_bytes + moment.state_bytes for moment in moments):
        held = [(moment.done_bytes, moment.live_bytes + moment.state_bytes) for moment in moments]
        high = plan.workers * plan.arena_bytes + plan.state_bytes
        drawn = "".join(block(value, 0, max(high, 1)) for value in over_time(held, columns))
        parts.append((Text(drawn, "dim"), peak_words(plan, moments)))
    for bar, words in parts:
        yield Text.assemble(" " * first, bar)
        yield from beside(Text(), Text(), words, width, first=first - GAP, columns=0)


def _gauge(plan: Plan, columns: int) -> tuple[Text, str]:
    whole = any(each.wholes for program in plan.programs.values() for each in program.passes)
    kept = "Gram matrices and their decomposition" if whole else "reductions"
    parts = [
        (plan.reserved_bytes, f"{format_bytes(plan.reserved_bytes)} in use now"),
        (plan.workers * plan.arena_bytes, f"{count(plan.workers, 'worker')} × {format_bytes(plan.arena_bytes)}"),
        (plan.state_bytes, f"{format_bytes(plan.state_bytes)} for {kept}"),
        (plan.slack_bytes, f"{format_bytes(plan.slack_bytes)} slack"),
    ]
    sizes = gauge([size_bytes for size_bytes, _ in parts], plan.budget_bytes, columns)
    bar = Text("".join(shade * size for shade, size in zip(_SHADES, sizes, strict=True)))
    bar.append(_FREE * (columns - sum(sizes)), "dim")
    said = [f"{shade} {words}" for shade, (size_bytes, words) in zip(_SHADES, parts, strict=True) if size_bytes]
    return bar, "  ".join(words.replace(" ", "\u00a0", 2) for words in said)


def peak_words(plan: Plan, moments: list[Moment]) -> str:
    """Where workers hold the most: how much, in which tensor, in which of its passes, how far into the work."""
    most = max(moments, key=lambda moment: moment.live_bytes + moment.state_bytes)
    held_bytes = most.live_bytes + most.state_bytes
    index = moments.index(most)
    done_bytes = moments[index - 1].done_bytes if index else 0
    share = done_bytes / max(moments[-1].done_bytes, 1)
    passes = len(plan.programs[plan.island_of(most.output).program].passes)
    which = f", pass {most.pass_index + 1} of {passes}" if passes > 1 else ""
    return f"over the work: at most {format_bytes(held_bytes)}, in {clean(most.output)}{which}, at {share:.0%}"
