"""Memory on the page: the gauge and the line over time are those of the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plait.engine import host
from plait.engine.simulate import simulate, simulated_peak_bytes
from plait.engine.units import format_bytes
from plait.views.bars import BLOCKS
from plait.views.memory_chart import memory_chart
from view_support import DARE, page, passthrough

COLUMNS = 64


def chart(plan, width=None) -> list[str]:
    return [line.plain for line in memory_chart(plan, width, first=0)]


@pytest.mark.parametrize("more_bytes", [100 << 20, 1 << 30, 4 << 30])
def test_the_gauge_is_filled_as_the_bound_is(planned, more_bytes) -> None:
    bound_bytes = host.peak_resident_bytes() + more_bytes  # a process that has run other tests may hold a lot
    plan = replace(planned(DARE, memory=bound_bytes, workers=2).plan, reserved_bytes=200 << 20, peak_so_far_bytes=0)
    gauge = chart(plan)[0]
    assert len(gauge) == COLUMNS
    assert gauge.rstrip("─").count("─") == 0
    share = plan.predicted_peak_bytes / plan.budget_bytes
    # Each of the three parts has a column at least.
    assert abs(len(gauge.rstrip("─")) / COLUMNS - share) <= 3 / COLUMNS
    assert gauge.count("█") == round((200 << 20) / plan.budget_bytes * COLUMNS)


def test_the_parts_of_the_peak_are_named_and_add_up(planned) -> None:
    plan = planned(DARE + "    parameters: {rescale: l1}\n").plan
    assert plan.state_bytes
    words = " ".join(chart(plan)[1].split())
    assert words == (
        f"█ {format_bytes(plan.reserved_bytes)} in use now "
        f"▓ {plan.workers} workers × {format_bytes(plan.arena_bytes)} "
        f"▒ {format_bytes(plan.state_bytes)} for reductions "
        f"░ {format_bytes(plan.slack_bytes)} slack"
    ).replace("1 workers", "1 worker")


def test_the_line_is_highest_where_the_plan_holds_most(planned) -> None:
    plan = planned(DARE, workers=2).plan
    moments = list(simulate(plan))
    most = max(moments, key=lambda moment: moment.live_bytes + moment.state_bytes)
    line, words = chart(plan)[2:4]
    assert len(line) == COLUMNS
    assert f"at most {format_bytes(simulated_peak_bytes(plan))}, in {most.output}, " in words
    before = moments[moments.index(most) - 1].done_bytes if most is not moments[0] else 0
    first = int(before / moments[-1].done_bytes * COLUMNS)
    assert line[first] == max(line, key=BLOCKS.index)
    assert words.endswith(f"at {before / moments[-1].done_bytes:.0%}")


def test_less_memory_is_another_picture(planned) -> None:
    wide, tight = planned(DARE, workers=2).plan, planned(DARE, workers=1).plan
    assert chart(wide) != chart(tight)


def test_the_pass_is_named_where_there_are_several(planned) -> None:
    plan = planned("merge_method: tsv\nbase_model: BASE\nmodels: [{model: FT1}]\n").plan
    most = max(simulate(plan), key=lambda moment: moment.live_bytes + moment.state_bytes)
    passes = len(plan.programs[plan.island_of(most.output).program].passes)
    assert passes > 1
    assert f"in {most.output}, pass {most.pass_index + 1} of {passes}, at " in chart(plan)[3]


def test_a_peak_that_is_behind_us_is_told(planned) -> None:
    merge = planned(passthrough(("BASE", 0, 4)))
    assert "(while planning)" not in page(replace(merge, plan=replace(merge.plan, peak_so_far_bytes=0)))
    behind = replace(merge.plan, peak_so_far_bytes=merge.plan.predicted_peak_bytes + 1)
    assert "(while planning) of " in page(replace(merge, plan=behind))
