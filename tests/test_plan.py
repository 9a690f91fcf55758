"""Plans: a budget gives tiles and workers, or the least budget that works, and that one does work."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import torch
from checkpoints import write_family
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from merge_support import budgeted, file_bytes, graph_of, loads, peak_bytes, plait, program_of, write_recipe
from plait.engine.errors import PlanError
from plait.engine.graph import TensorGraph
from plait.engine.plan import COPY_TILE_BYTES, SMALLEST_TILE_ELEMENTS
from plait.engine.simulate import simulated_peak_bytes
from plait.engine.units import MIB
from plait.ops.elect import agree_sum, elect
from plait.ops.elementwise import add, cast, sub
from plait.ops.reduce import abs_sum
from plait.ops.sparsify import drop, match_l1

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_support import Said
    from plait.engine.graph import Node
    from plait.engine.plan import Plan

ROOMY = 1 << 40


def vote(models: int, shape: tuple[int, ...]) -> Node:
    base, *others = [cast(node, dtype=torch.float32) for node in loads(models + 1, shape)]
    deltas = [drop(sub(node, base), density=0.5, ordinal=ordinal) for ordinal, node in enumerate(others)]
    return cast(add(base, agree_sum(elect(*deltas), *deltas)), dtype=torch.bfloat16)


def in_two_passes(shape: tuple[int, ...]) -> Node:
    base, x = [cast(node, dtype=torch.float32) for node in loads(2, shape)]
    delta = sub(x, base)
    kept = drop(delta, density=0.5, ordinal=0)
    return cast(add(base, match_l1(kept, abs_sum(delta), abs_sum(kept))), dtype=torch.bfloat16)


GRAPH = graph_of(*(program_of(node) for node in (vote(3, (4096, 4096)), in_two_passes((1000, 3000)), vote(3, (64,)))))


def tile(plan: Plan) -> int:
    """Elements of a tile of the first, large tensor."""
    return plan.programs[plan.graph.islands[0].program].arenas[0].tile_elements


# ------------------------------------------------------------------------------------------------ budget → tiles


def test_with_room_a_plan_is_as_fast_as_it_gets() -> None:
    plan = budgeted(GRAPH, ROOMY, workers=4)
    assert plan.workers == 4
    assert tile(plan) >= 1 << 17
    # Larger tiles than the cache holds are slower, so more memory is not asked for.
    assert plan.predicted_peak_bytes < 400 * MIB


def test_less_memory_gives_smaller_tiles_then_fewer_workers() -> None:
    full = budgeted(GRAPH, ROOMY, workers=4)
    # The least that is promised has a margin of 4 MiB.
    budgets = range(full.predicted_peak_bytes, full.minimum_bytes - 4 * MIB, -MIB // 8)
    plans = [budgeted(GRAPH, budget, workers=4) for budget in budgets]
    workers = [plan.workers for plan in plans]
    assert workers == sorted(workers, reverse=True)
    assert set(workers) == {1, 2, 3, 4}
    with_all = [tile(plan) for plan in plans if plan.workers == 4]
    assert min(with_all) <= tile(full) // 8


def test_what_the_process_holds_already_counts() -> None:
    alone = budgeted(GRAPH, ROOMY)
    beside = budgeted(GRAPH, ROOMY, reserved_bytes=300 * MIB)
    assert beside.predicted_peak_bytes == alone.predicted_peak_bytes + 300 * MIB


def test_a_peak_that_has_been_is_not_predicted_away() -> None:
    plan = budgeted(GRAPH, ROOMY, peak_so_far_bytes=900 * MIB)
    assert plan.predicted_peak_bytes == 900 * MIB
    with pytest.raises(PlanError):
        budgeted(GRAPH, 800 * MIB, peak_so_far_bytes=900 * MIB)


# Plans take too long to shrink, and numbers need it little.
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    budget=st.integers(1, 600 * MIB),
    workers=st.integers(1, 9),
    reserved=st.sampled_from([0, 50 * MIB, 260 * MIB]),
)
def test_a_plan_keeps_to_its_budget_or_says_what_works(budget: int, workers: int, reserved: int) -> None:
    least_bytes = budgeted(GRAPH, ROOMY, workers=workers, reserved_bytes=reserved).minimum_bytes
    least = budgeted(GRAPH, least_bytes, workers=workers, reserved_bytes=reserved)
    # Named with a margin for what a second process may hold more, but not with a wide one.
    assert 0 < least_bytes - least.predicted_peak_bytes < 6 * MIB or least.workers > 1
    assert tile(least) >= SMALLEST_TILE_ELEMENTS
    if budget < least_bytes - 6 * MIB:
        with pytest.raises(PlanError) as caught:
            budgeted(GRAPH, budget, workers=workers, reserved_bytes=reserved)
        assert caught.value.minimum_bytes == least_bytes
    elif budget >= least_bytes:
        plan = budgeted(GRAPH, budget, workers=workers, reserved_bytes=reserved)
        assert plan.predicted_peak_bytes <= budget
        assert 1 <= plan.workers <= workers
        assert simulated_peak_bytes(plan) <= plan.predicted_peak_bytes - reserved - plan.slack_bytes


def test_the_error_names_the_least_budget_in_whole_mebibytes() -> None:
    with pytest.raises(PlanError) as caught:
        budgeted(GRAPH, 5 * MIB, reserved_bytes=200 * MIB)
    least = caught.value.minimum_bytes
    assert least % MIB == 0
    assert f"--memory 5.00 MiB is too little: the least that works is {least // MIB}MiB" in str(caught.value)
    assert "200 MiB are in use before the first tensor is read" in str(caught.value)


# ------------------------------------------------------------------------------------------------ no budget


def test_without_a_budget_half_of_what_is_free_is_the_bound() -> None:
    plan = budgeted(GRAPH, None, free_bytes=300 * MIB, workers=8)
    assert plan.budget_bytes == 150 * MIB
    assert plan.predicted_peak_bytes <= 150 * MIB
    assert budgeted(GRAPH, None, free_bytes=ROOMY).predicted_peak_bytes < 400 * MIB


def test_too_little_free_memory_is_said_with_the_option_that_helps() -> None:
    with pytest.raises(PlanError, match=r"half of what is free is 5\.00 MiB .*set --memory \d+MiB"):
        budgeted(GRAPH, None, free_bytes=10 * MIB)


# ------------------------------------------------------------------------------------------------ totals


def test_totals_count_every_pass_and_every_name() -> None:
    plan = budgeted(GRAPH, ROOMY, header_bytes=328)
    large, twice, small = 4096 * 4096, 1000 * 3000, 64
    assert plan.bytes_read == 2 * (4 * large + 2 * 2 * twice + 4 * small)
    assert plan.bytes_written == 2 * (large + twice + small) + 328
    assert plan.passes == 2


def test_a_copy_takes_no_large_arena_and_large_steps() -> None:
    plan = budgeted(graph_of(program_of(loads(1, (4096, 4096))[0])), ROOMY)
    (program,) = plan.programs.values()
    assert program.tile_elements(0) == COPY_TILE_BYTES // 2
    assert program.arena_bytes <= 4 * MIB


def test_no_tensors_make_a_plan_too() -> None:
    plan = budgeted(TensorGraph(()), ROOMY)
    assert (plan.bytes_read, plan.bytes_written, plan.passes, plan.sequence) == (0, 0, 0, ())


def test_a_tensor_is_found_by_any_of_its_names() -> None:
    plan = budgeted(GRAPH, ROOMY)
    assert plan.island_of("out1") is plan.graph.islands[1]
    with pytest.raises(KeyError):
        plan.island_of("out9")


# ------------------------------------------------------------------------------------------------ for real


def test_the_least_budget_works_in_a_run_and_the_bytes_are_the_same(tmp_path: Path, say: Callable[..., Said]) -> None:
    write_family(tmp_path / "family", "tiny", finetunes=2)
    recipe = write_recipe(
        tmp_path / "recipe.yml",
        """
        merge_method: dare_ties
        base_model: family/base
        models:
          - {model: family/ft1, parameters: {weight: 0.6, density: 0.5}}
          - {model: family/ft2, parameters: {weight: 0.3, density: 0.4}}
        parameters: {rescale: l1}
        """,
    )
    refused = plait("run", recipe, "never", "--memory", "60MiB", cwd=tmp_path)
    assert refused.returncode == 4
    assert not (tmp_path / "never").exists()
    named = re.search(r"the least that works is (\d+MiB)", refused.stderr)
    assert named
    bounded = plait("run", recipe, "bounded", "--memory", named[1], "--workers", 4, cwd=tmp_path, measured=True)
    assert bounded.returncode == 0, bounded.stderr
    assert peak_bytes(bounded) <= int(named[1].removesuffix("MiB")) * MIB
    assert say("run", recipe, "free", cwd=tmp_path).code == 0
    assert file_bytes(tmp_path / "bounded")["model.safetensors"] == file_bytes(tmp_path / "free")["model.safetensors"]
