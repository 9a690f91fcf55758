"""The document of a graph that several processes make, maybe on devices: the totals of the dry run, and its page."""

from __future__ import annotations

import re
from typing import Any

from browser_support import opened
from graph_support import RECIPES, planned
from plait.engine.devices import pretended
from plait.engine.units import format_bytes
from plait.views.graph_document import document


def test_of_several_processes_it_has_the_figures_of_a_machine(view_family) -> None:
    merge = planned(view_family, RECIPES["ties"], shard_size=300_000, processes=3, workers=6)
    report, found = merge.report(), document(merge)
    totals, processes = found["totals"], found["processes"]
    assert totals == {name: report[name] for name in totals if name in report} | {
        name: totals[name] for name in ("workers", "budget_bytes", "arena_bytes", "state_bytes", "slack_bytes")
    }
    assert processes == report["processes"]
    assert [each["process"] for each in processes] == [0, 1, 2]
    assert sorted(shard for each in processes for shard in each["shards"]) == [each["name"] for each in found["shards"]]
    for figure in ("bytes_read", "bytes_written", "predicted_peak_bytes", "reserved_bytes", "workers"):
        assert totals[figure] == sum(each[figure] for each in processes)
    working_bytes = totals["workers"] * totals["arena_bytes"] + totals["state_bytes"] + totals["slack_bytes"]
    # The process of the tests may have held more before than it holds now.
    assert totals["predicted_peak_bytes"] >= totals["reserved_bytes"] + working_bytes
    assert totals["predicted_peak_bytes"] <= totals["budget_bytes"]
    assert found["devices"] == [{"name": "cpu", "predicted_peak_bytes": totals["predicted_peak_bytes"]}]


def test_of_several_machines_it_has_what_each_may_take(view_family) -> None:
    options = {"shard_size": 300_000, "memory": "6GiB", "workers": 1}
    apart = planned(view_family, RECIPES["ties"], processes=4, processes_here=2, **options)
    totals = document(apart)["totals"]
    assert totals["workers"] == 2
    assert totals["budget_bytes"] == 6 << 30
    assert totals["minimum_memory_bytes"] == 2 * apart.plan.minimum_bytes
    assert totals["predicted_peak_bytes"] == 2 * apart.plan.predicted_peak_bytes
    assert [each["machine"] for each in apart.report()["processes"]] == [0, 0, 1, 1]
    assert "4 processes on 2 machines, each with 1 workers" in apart.summary()


def test_devices_are_those_of_the_placement(view_family) -> None:
    options = {"shard_size": 300_000, "workers": 4}
    plain = document(planned(view_family, RECIPES["slerp"], **options))
    assert [each["name"] for each in plain["devices"]] == ["cpu"]
    assert {each["device"] for each in plain["programs"]} == {"cpu"}
    merge = planned(view_family, RECIPES["slerp"], device=pretended(), processes=2, **options)
    (peak_bytes,) = merge.plan.placement.peaks_bytes
    found = document(merge, expand=True)
    cpu, device = found["devices"]
    assert cpu == {"name": "cpu", "predicted_peak_bytes": found["totals"]["predicted_peak_bytes"]}
    assert [device] == merge.report()["devices"] == [{"name": "pretended:0", "predicted_peak_bytes": 2 * peak_bytes}]
    # Dot products are the processor's, the sum that they weigh is the device's; copies stay.
    on_device = {program["device"] for program in found["programs"] if len(program["passes"]) > 1}
    assert on_device == {"pretended:0, cpu"}
    launched = planned(view_family, RECIPES["slerp"], device=pretended(), processes=2, processes_here=2, **options)
    assert launched.report()["devices"] == [{"name": "pretended:0", "predicted_peak_bytes": peak_bytes}]


def test_the_page_shows_one_process_of_those_that_are_alike(browser: Any, view_family) -> None:
    merge = planned(view_family, RECIPES["ties"], shard_size=300_000, processes=2, workers=2, memory="3GiB")
    merge.write_graph(view_family / "two.html")
    with opened(browser, view_family / "two.html") as page:
        page.locator("#overview").click()
        shown = page.locator("#panel").inner_text()
        labels = page.locator("#timeline .label").all_inner_texts()
        floor = page.evaluate("() => plaitPage.timeline.floor")
    assert re.search(r"processes\s+2", shown)
    assert f"cpu, peak {format_bytes(merge.parts.predicted_peak_bytes)}" in shown
    assert any(label.startswith("bound 1.50 GiB") and label.endswith("each of 2 processes") for label in labels)
    assert f"predicted peak {format_bytes(merge.plan.predicted_peak_bytes)}" in labels
    assert floor == merge.plan.reserved_bytes
