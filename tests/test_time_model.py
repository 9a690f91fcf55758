"""The time model: what costs more takes longer, on any machine; and where its figures are shown."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import plait
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from merge_support import budgeted, compiled, graph_of, loads, model, program_of, save_model, write_recipe
from plait.engine.errors import UsageError
from plait.engine.rates import RATES, Rates
from plait.engine.time_model import pass_seconds, pass_time, program_seconds, shared_seconds
from plait.loaders.rates_file import read_rates
from plait.ops.elementwise import add, cast, scale

if TYPE_CHECKING:
    from pathlib import Path

    from plait.engine.graph import Program

SHAPE = (1 << 11, 1 << 11)
ELEMENTS = SHAPE[0] * SHAPE[1]

RECIPE = """
    merge_method: {method}
    base_model: a
    models: [{{model: b, parameters: {{weight: 0.4}}}}]
"""


def copy() -> Program:
    return program_of(loads(1, SHAPE)[0])


def scaled(inputs: int = 1) -> Program:
    """load → cast, of each input, → add → scale → cast → write."""
    wide = [cast(node, dtype=torch.float32) for node in loads(inputs, SHAPE)]
    total = add(*wide) if inputs > 1 else wide[0]
    return program_of(cast(scale(total, factor=0.5), dtype=torch.bfloat16))


def only_bytes(**given: float) -> Rates:
    """A machine on which nothing takes time but to move bytes."""
    nothing = dict.fromkeys(RATES.locality_nanoseconds, 0.0)
    free = Rates(1e30, 1e30, 1e30, 1e30, {}, nothing, 0.0, 0.0, 0.0)
    return replace(free, **given)


def seconds_of(program: Program, rates: Rates = RATES, workers: int = 1) -> float:
    plan = budgeted(graph_of(program), workers=workers)
    return program_seconds(plan, rates)[program]


def test_each_byte_takes_its_time() -> None:
    """4 Mi elements of bfloat16 are 8 MiB; two inputs are read, one output is written."""
    size_bytes = 2 * ELEMENTS
    assert seconds_of(scaled(2), only_bytes(read_bytes=size_bytes)) == pytest.approx(2.0)
    assert seconds_of(scaled(2), only_bytes(write_bytes=size_bytes)) == pytest.approx(1.0)
    assert seconds_of(copy(), only_bytes(copy_bytes=size_bytes)) == pytest.approx(1.0)
    assert seconds_of(copy(), only_bytes(read_bytes=1.0, write_bytes=1.0)) < 1e-9


def test_each_op_takes_its_time() -> None:
    """load → cast → scale → cast → write: the casts are by their name, scale is by its locality."""
    rates = replace(
        only_bytes(),
        op_nanoseconds={"cast": 1000.0},
        locality_nanoseconds={**RATES.locality_nanoseconds, "element": 500.0},
    )
    assert seconds_of(scaled(), rates) == pytest.approx(ELEMENTS * 2.5e-6)


def test_workers_share_the_work_but_not_the_disk() -> None:
    computing = replace(only_bytes(), op_nanoseconds={"cast": 1000.0, "scale": 1000.0})
    assert seconds_of(scaled(), computing, workers=4) == pytest.approx(seconds_of(scaled(), computing) / 4)
    disk = only_bytes(write_bytes=1e6)
    assert seconds_of(scaled(), disk, workers=4) == pytest.approx(seconds_of(scaled(), disk))


def test_a_copy_is_cheaper_than_one_pass_and_that_than_several() -> None:
    a, b = (model(name, {"weight": SHAPE}) for name in "ab")

    def seconds(method: str, base: str = "base_model: a") -> float:
        text = f"merge_method: {method}\n{base}\nmodels: [{{model: b, parameters: {{weight: 0.4, density: 0.5}}}}]"
        plan = budgeted(compiled(text, *((a, b) if base else (b,))).graph)
        return shared_seconds([plan])

    assert seconds("passthrough", base="") < seconds("task_arithmetic") < seconds("dare_ties") < seconds("ties")


@given(factor=st.floats(0.1, 10.0))
def test_a_machine_so_many_times_slower_takes_so_many_times_longer(factor: float) -> None:
    slower = Rates(
        RATES.read_bytes / factor,
        RATES.write_bytes / factor,
        RATES.copy_bytes / factor,
        RATES.check_bytes / factor,
        {name: value * factor for name, value in RATES.op_nanoseconds.items()},
        {name: value * factor for name, value in RATES.locality_nanoseconds.items()},
        RATES.step_seconds * factor,
        RATES.tile_seconds * factor,
        RATES.start_seconds * factor,
    )
    plan = budgeted(graph_of(copy(), scaled(), scaled(3)), workers=2)
    assert shared_seconds([plan], slower) == pytest.approx(factor * shared_seconds([plan]))


def test_the_run_is_the_sum_of_its_tensors_and_each_of_its_passes() -> None:
    plan = budgeted(graph_of(copy(), scaled(), scaled(), scaled(3)), workers=2)
    tensors = program_seconds(plan)
    assert shared_seconds([plan]) == pytest.approx(
        RATES.start_seconds + sum(tensors[island.program] for island in plan.graph.islands)
    )
    assert {program: sum(passes) for program, passes in pass_seconds(plan).items()} == pytest.approx(tensors)
    for program, each in plan.programs.items():
        assert pass_time(each, 0).spread(plan.workers) == pytest.approx(tensors[program])


def test_plan_report_manifest_and_dry_run_say_how_long_it_takes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_model(tmp_path / name, {"weight": torch.ones(512, 512)})
    recipe = write_recipe(tmp_path / "recipe.yml", RECIPE.format(method="ties"))
    plan = plait.plan(recipe)
    assert plan.predicted_seconds == shared_seconds([plan.plan]) > 0
    assert plan.report()["predicted_seconds"] == round(plan.predicted_seconds, 3)
    result = plan.run(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "plait-manifest.json").read_text())
    assert manifest["predicted_seconds"] == result.predicted_seconds == round(plan.predicted_seconds, 3)


def test_measured_rates_of_a_machine_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        save_model(tmp_path / name, {"weight": torch.ones(512, 512)})
    recipe = write_recipe(tmp_path / "recipe.yml", RECIPE.format(method="task_arithmetic"))
    usual = plait.plan(recipe).predicted_seconds
    file = tmp_path / "rates.json"
    file.write_text(json.dumps({"start_seconds": 1000.0, "op_nanoseconds": {"cast": 3}, "of": "something else"}))
    monkeypatch.setenv("PLAIT_RATES", str(file))
    assert plait.plan(recipe).predicted_seconds > 1000.0 > usual
    assert read_rates(str(file)).op_nanoseconds == {**RATES.op_nanoseconds, "cast": 3.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "rates.json"),
        ("{", "not JSON"),
        ('{"read_bytes": 0}', "'read_bytes' is 0"),
        ('{"read_bytes": "fast"}', "above zero"),
        ('{"op_nanoseconds": {"cast": -1}}', "'op_nanoseconds.cast'"),
        ('{"op_nanoseconds": [1]}', "'op_nanoseconds'"),
    ],
)
def test_a_file_of_rates_that_is_none_is_told_of(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "rates.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=said) as error:
        read_rates(str(file))
    assert "PLAIT_RATES" in str(error.value)
