"""Time left: replayed runs of mixed work on machines that the time model knows nothing of."""

from __future__ import annotations

import heapq
import random
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_support import InMemory, budgeted, compiled, graph_of, loads, model, program_of
from plait.engine.execute import execute
from plait.engine.forecast import Forecast
from plait.engine.opdef import Tile
from plait.engine.time_model import pass_time
from plait.ops.elementwise import cast, scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plait.engine.plan import Plan, ProgramPlan
    from plait.engine.progress import Progress

LAYERS = 12
WITHIN = 0.10
FACTORS = st.floats(0.2, 5.0)

TIES = """
    merge_method: ties
    base_model: a
    models: [{{model: b, parameters: {{weight: {weight}, density: 0.5}}}}]
    dtype: bfloat16
"""


def plan_with(weight: str, workers: int) -> Plan:
    """Twelve layers through TIES; where the weight is 0 a tensor is a copy of the base's."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (8000, 2048)}
    for layer in range(LAYERS):
        shapes[f"model.layers.{layer}.self_attn.o_proj.weight"] = (2048, 2048)
        shapes[f"model.layers.{layer}.mlp.up_proj.weight"] = (4096, 2048)
        shapes[f"model.layers.{layer}.mlp.down_proj.weight"] = (2048, 4096)
        shapes[f"model.layers.{layer}.input_layernorm.weight"] = (2048,)
    shapes["model.norm.weight"] = (2048,)
    models = (model(name, shapes) for name in "ab")
    return budgeted(compiled(TIES.format(weight=weight), *models).graph, workers=workers, tile_elements=1 << 17)


MIXED = {workers: plan_with("[{filter: mlp, value: 0.5}, {value: 0}]", workers) for workers in (1, 2, 4)}
"""In every layer the matrices of the mlp are merged, in 3 passes, and the rest is copied."""

LATE = {workers: plan_with("[0, 0, 0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]", workers) for workers in (1, 2, 4)}
"""The first half of the layers is copied, the second merged."""


def work_of(plan: Plan) -> Iterator[tuple[ProgramPlan, int, Tile | None, float]]:
    """Every tile of a run and every end of a pass (None), with the seconds that the time model gives it."""
    for position in plan.sequence:
        program = plan.programs[plan.graph.islands[position].program]
        for index, current in enumerate(program.passes):
            if current.optional:
                continue
            expected = pass_time(program, index)
            for tile in current.tiles(program.tile_elements(index)):
                yield program, index, tile, expected.tiles_seconds * tile.elements / current.elements
            yield program, index, None, expected.concluding_seconds


def replay(
    plan: Plan, slower: Callable[[ProgramPlan, int], float], noise: float, seed: int
) -> list[tuple[float, float]]:
    """Run a plan on invented workers; at each moment what is over, and what the forecast says is left, of the whole."""
    dice = random.Random(seed)
    forecast = Forecast(plan)
    free = [(0.0, worker) for worker in range(plan.workers)]
    events: list[tuple[float, Callable[[], None]]] = []
    tiles_over = 0.0
    for program, index, tile, seconds in work_of(plan):
        took = seconds * slower(program, index) * dice.lognormvariate(0.0, noise)
        if tile is None:  # whoever has a pass's last tile does that, too
            events.append((tiles_over + took, partial(forecast.ended, program, index, took)))
            tiles_over = 0.0
            continue
        began, worker = heapq.heappop(free)
        over = began + took
        events.append((began, partial(forecast.begin, worker, began)))
        events.append((over, partial(forecast.tile, worker, program, index, tile.elements, took)))
        tiles_over = max(tiles_over, over)
        heapq.heappush(free, (over, worker))
    events.sort(key=lambda event: event[0])
    end, seen, looks = events[-1][0], [], max(len(events) // 100, 1)
    for count, (now, happen) in enumerate(events, 1):
        happen()
        if count % looks == 0 or count == len(events):
            left = forecast.seconds_left(now)
            if left is not None:
                seen.append((now / end, left / end))
    assert forecast.share == pytest.approx(1.0)
    assert seen[-1][1] == pytest.approx(0.0, abs=1e-6)
    return seen


def errors_after(seen: list[tuple[float, float]], share: float) -> list[float]:
    """How far off the predicted end is, as a part of the run, at every moment after a share of it."""
    return [abs(over + left - 1.0) for over, left in seen if over >= share]


def test_the_work_is_mixed() -> None:
    plan = MIXED[1]
    programs = {plan.programs[island.program] for island in plan.graph.islands}
    assert {program.program.is_copy for program in programs} == {True, False}
    assert max(program.readings for program in programs) >= 3


@settings(max_examples=20, deadline=None)
@given(
    factor=FACTORS,
    noise=st.floats(0.0, 0.3),
    late=st.booleans(),
    workers=st.sampled_from(sorted(MIXED)),
    seed=st.integers(0, 1 << 30),
)
def test_the_end_is_known_after_a_tenth(factor: float, noise: float, late: bool, workers: int, seed: int) -> None:
    # Copies have few tiles, so that there is less to average.
    plan, noise = (LATE[workers], noise / 4) if late else (MIXED[workers], noise)
    seen = replay(plan, lambda *_: factor, noise, seed)
    assert max(errors_after(seen, 0.1)) <= WITHIN


@settings(max_examples=20, deadline=None)
@given(copies=FACTORS, passes=st.lists(FACTORS, min_size=8, max_size=8), seed=st.integers(0, 99))
def test_each_kind_of_work_may_be_wrong_in_its_own_way(copies: float, passes: list[float], seed: int) -> None:
    """A disk five times as slow, a processor twice as fast: every layer is like the first, so it is known by then."""
    seen = replay(MIXED[2], lambda each, index: copies if each.program.is_copy else passes[index], 0.2, seed)
    # The embedding comes first, and may be a tenth of the run on its own; by a fifth every kind of work was there.
    assert max(errors_after(seen, 0.2)) <= WITHIN


def test_a_machine_that_becomes_slower_is_noticed() -> None:
    """Somebody else begins to use it when a third of the work is done; by half of the time the end is known."""
    plan = MIXED[2]
    total, done = sum(seconds for *_, seconds in work_of(plan)), 0.0

    def slower(program: ProgramPlan, index: int) -> float:
        nonlocal done
        tiles = -(-program.passes[index].elements // program.tile_elements(index))
        done += pass_time(program, index).tiles_seconds / tiles
        return 3.0 if done > total / 3 else 1.0

    seen = replay(plan, slower, 0.1, seed=1)
    # A third at one speed and two thirds at a third of it: the change comes after a seventh of the time.
    assert max(errors_after(seen, 1 / 7 + 0.4)) <= WITHIN


def test_bytes_alone_would_be_wrong() -> None:
    """What is copied is over in no time: an estimate by bytes is off by more than is allowed, so the weights matter."""
    plan = LATE[1]
    total_bytes = plan.bytes_read + plan.bytes_written
    total = sum(seconds for *_, seconds in work_of(plan))
    done_bytes = done = worst = 0.0
    for program, index, tile, seconds in work_of(plan):
        done += seconds
        if tile is not None:
            share = tile.elements / program.passes[index].elements
            written = program.program.spec.size_bytes if index == len(program.passes) - 1 else 0
            done_bytes += share * (program.passes[index].bytes_read + written)
        if done >= 0.1 * total:
            worst = max(worst, abs(done * total_bytes / done_bytes / total - 1.0))
    assert worst > WITHIN


def test_what_an_earlier_run_did_is_not_left() -> None:
    plan = MIXED[1]
    whole = Forecast(plan)
    first, second = plan.sequence[:2]
    size = plan.graph.islands[second].spec.elements
    rest = Forecast(plan, {first: (), second: (Tile(size // 2, size),)})
    program = plan.programs[plan.graph.islands[first].program]
    assert whole.seconds_left(1.0) is None
    spared = sum(pass_time(program, index).tiles_seconds for index in range(len(program.passes)))
    last = plan.programs[plan.graph.islands[second].program]
    spared += pass_time(last, len(last.passes) - 1).tiles_seconds / 2
    assert whole.total_seconds - rest.total_seconds == pytest.approx(spared, rel=0.01)


def test_a_run_tells_how_much_is_done_and_left() -> None:
    """out0 is a copy, out1 is scaled; shares never go back and end at one, with nothing left."""
    shape = (1 << 12, 1 << 8)
    scaled = program_of(cast(scale(cast(loads(1, shape)[0], dtype=torch.float32), factor=0.5), dtype=torch.bfloat16))
    graph = graph_of(program_of(loads(1, shape)[0]), scaled)
    memory = InMemory({"a": torch.ones(shape, dtype=torch.bfloat16)}, graph)
    seen: list[Progress] = []
    plan = budgeted(graph, workers=2, tile_elements=1 << 14)
    execute(plan, memory, memory, seen.append, every_seconds=0.001)
    shares = [now.work_share or 0.0 for now in seen]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert seen[-1].seconds_left == pytest.approx(0.0, abs=1e-6)
    assert 0.0 < seen[-1].busy_seconds <= seen[-1].workers * seen[-1].seconds
    assert [tuple(part) for part in seen[-1].parts] == [("1 pass", 1, 1), ("copied", 1, 1)]
