"""Cutting: programs into passes, passes into tiles, for every locality; and that no cut changes a result.

The ops are not registered: a plan and a run ask only what an op declares.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from merge_support import InMemory, budgeted, graph_of, loads, plan_of, program_of, run_in_memory
from plait.engine.execute import execute
from plait.engine.graph import Node, TensorSpec
from plait.engine.memory import state_bytes, value_bytes
from plait.engine.opdef import REDUCE_BLOCK_ELEMENTS, GraphError, OpDef, Tile
from plait.engine.panels import PANEL_LINES
from plait.engine.simulate import simulate, simulated_peak_bytes
from plait.engine.tiling import TILE_ALIGN_ELEMENTS, cut
from plait.ops.elementwise import add, cast, scale, sub
from plait.ops.reduce import abs_sum
from plait.ops.sparsify import drop, match_l1
from tiling_ops import F32, below_row_maximum, fading, largest, minus, normalized, over_largest, unfaded, values, wide

# ------------------------------------------------------------------------------------------------ passes


def test_elements_need_one_pass_cut_anywhere() -> None:
    (only,) = cut(program_of(scale(wide((9, 50_000)), factor=0.5)))
    assert only.granularity == "element"
    assert only.tile_elements(10_000) == 2 * TILE_ALIGN_ELEMENTS
    assert only.tile_elements(1) == TILE_ALIGN_ELEMENTS


def test_rows_are_not_cut() -> None:
    (only,) = cut(program_of(below_row_maximum(wide((9, 50_000)))))
    assert only.granularity == "row"
    assert [only.tile_elements(target) for target in (1, 50_000, 149_999, 150_000)] == [
        50_000,
        50_000,
        100_000,
        150_000,
    ]


@pytest.mark.parametrize("shape", [(50_000, 9), (9, 50_000)])
def test_what_a_whole_matrix_says_takes_panels_of_its_longer_side(shape: tuple[int, int]) -> None:
    r"""
    pass 1:  load ── cast ── fading ─┐
    pass 2:  load ── cast ───────────┴─ minus ── write
    """
    first, second = cut(program_of(unfaded(shape)))
    assert (first.granularity, second.granularity) == ("panel", "panel")
    assert ([node.op.name for node in first.wholes], second.wholes) == (["fading"], ())
    panel = PANEL_LINES * 9
    assert [first.tile_elements(target) for target in (1, 2 * panel - 1, 2 * panel)] == [panel, panel, 2 * panel]
    # The state has no place in an arena: it is the tensor's, and the plan says what it takes.
    assert value_bytes(first.wholes[0], first, panel) == 0
    assert state_bytes((first, second)) == (4096, 4096)


def test_a_tile_of_panels_is_made_of_parts_of_rows_where_lines_are_columns() -> None:
    tall, flat = (cut(program_of(unfaded(shape)))[0] for shape in [(1000, 3), (3, 1000)])
    tile = Tile(256 * 3, 512 * 3)
    assert list(tall.ranges(tile)) == [Tile(768, 1536)]
    assert list(flat.ranges(tile)) == [Tile(256, 512), Tile(1256, 1512), Tile(2256, 2512)]


def test_panels_go_with_neither_rows_nor_blocks() -> None:
    shape = (40, 9_000)
    rows = below_row_maximum(wide(shape))
    with pytest.raises(GraphError, match="no rows and no blocks"):
        cut(program_of(minus(rows, fading(rows, width=40, columns=True), width=40, columns=True)))


def test_a_reduction_ends_a_pass_and_its_values_are_computed_again() -> None:
    r"""
    pass 1:  load ── cast ── largest ─┐
    pass 2:  load ── cast ────────────┴─ over ── write
    """
    first, second = cut(program_of(normalized(wide((300_000,)))))
    assert [node.op.name for node in first.nodes] == ["load", "cast", "largest"]
    assert [node.op.name for node in second.nodes] == ["load", "cast", "over_largest", "write"]
    assert first.tile_elements(100_000) == REDUCE_BLOCK_ELEMENTS
    assert second.tile_elements(100_000) % TILE_ALIGN_ELEMENTS == 0


def test_reductions_of_reductions_take_a_pass_each() -> None:
    once = normalized(wide((300_000,)))
    passes = cut(program_of(normalized(scale(once, factor=0.5))))
    assert [[node.op.name for node in each.targets] for each in passes] == [["largest"], ["largest"], ["write"]]


def test_reductions_that_do_not_wait_for_each_other_share_a_pass() -> None:
    x, base = [cast(node, dtype=F32) for node in loads(2, (200_000,))]
    delta = sub(x, base)
    kept = drop(delta, density=0.5, ordinal=0)
    passes = cut(program_of(add(base, match_l1(kept, abs_sum(delta), abs_sum(kept)))))
    assert [len(each.reductions) for each in passes] == [2, 0]


def test_a_rows_only_pass_does_not_bind_the_others() -> None:
    rows = below_row_maximum(wide((40, 9_000)))
    first, second = cut(program_of(over_largest(wide((40, 9_000)), largest(rows))))
    assert (first.granularity, second.granularity) == ("row", "element")
    # Blocks are whole rows, as many as the usual block has room for, and a row pass's tiles are whole blocks.
    assert first.block_elements == 7 * 9_000
    assert [first.tile_elements(target) for target in (1, 125_999, 126_000)] == [63_000, 63_000, 126_000]
    assert second.block_elements == REDUCE_BLOCK_ELEMENTS
    (first, _) = cut(program_of(over_largest(wide((4, 90_000)), largest(below_row_maximum(wide((4, 90_000)))))))
    assert (first.block_elements, first.tile_elements(1)) == (90_000, 90_000)


# ------------------------------------------------------------------------------------------------ tiles


@given(
    shape=st.lists(st.integers(0, 300), max_size=3).map(tuple),
    target=st.integers(1, 1 << 18),
    op=st.sampled_from([below_row_maximum, minus, scale]),
)
def test_tiles_cover_a_tensor_without_gaps(shape: tuple[int, ...], target: int, op: OpDef) -> None:
    assume(op is not minus or (len(shape) == 2 and 0 not in shape))
    node = scale(wide(shape), factor=0.5) if op is scale else op(wide(shape))
    (only,) = cut(program_of(node))
    size = only.tile_elements(target)
    tiles = list(only.tiles(size))
    assert len(tiles) == only.tile_count(size)
    assert tiles[0].lo == 0
    assert tiles[-1].hi == only.spec.elements
    assert all(one.hi == two.lo for one, two in pairwise(tiles))
    ranges = sorted(part for tile in tiles for part in only.ranges(tile) if part.elements)
    assert sum(part.elements for part in ranges) == only.spec.elements
    assert all(one.hi == two.lo for one, two in pairwise(ranges))
    if only.granularity == "row" and only.spec.elements:
        assert all(tile.lo % only.spec.row_elements == tile.hi % only.spec.row_elements == 0 for tile in tiles)


def test_tiles_start_where_pages_of_the_file_do() -> None:
    (only,) = cut(program_of(scale(wide((1 << 20,)), factor=0.5)))
    tiles = list(only.tiles(only.tile_elements(100_000)))
    assert len(tiles) > 5
    assert all(tile.lo * torch.bfloat16.itemsize % 4096 == 0 for tile in tiles)


# ------------------------------------------------------------------------------------------------ runs

SHAPE = (70, 3_001)
TARGETS = [1, 4096, 9_003, REDUCE_BLOCK_ELEMENTS, 1 << 18]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("target", TARGETS)
def test_a_row_op_sees_whole_rows(target: int, workers: int) -> None:
    x = values(SHAPE)
    program = program_of(below_row_maximum(wide(SHAPE), row=SHAPE[-1]))
    expected = x.float() - x.float().amax(1, keepdim=True)
    assert torch.equal(run_in_memory(program, [x], target_elements=target, workers=workers), expected)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", [SHAPE, SHAPE[::-1]])
def test_a_whole_op_sees_all_lines_in_their_order(shape: tuple[int, int], target: int, workers: int) -> None:
    x = values(shape)
    found = run_in_memory(program_of(unfaded(shape)), [x], target_elements=target, workers=workers)
    lines, sums = x.float() if shape[0] > shape[1] else x.float().mT, torch.zeros(min(shape))
    for line in lines:
        sums = sums * 0.5 + line
    expected = lines - sums
    assert torch.equal(found, expected if shape[0] > shape[1] else expected.mT)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("target", TARGETS)
def test_reductions_in_a_row_wait_for_each_other(target: int, workers: int) -> None:
    x = values(SHAPE)
    once = normalized(wide(SHAPE))
    program = program_of(normalized(scale(once, factor=0.5)))
    first = x.float() / x.float().abs().amax()
    expected = (first * 0.5) / (first * 0.5).abs().amax()
    assert torch.equal(run_in_memory(program, [x], target_elements=target, workers=workers), expected)


@pytest.mark.parametrize("shape", [(), (0,), (0, 7), (1,)])
def test_scalars_and_empty_tensors_run_too(shape: tuple[int, ...]) -> None:
    x = values(shape)
    found = run_in_memory(program_of(scale(wide(shape), factor=0.5)), [x], target_elements=4096, workers=2)
    assert found.shape == shape
    assert torch.equal(found, x.float() * 0.5)


def test_many_tensors_of_several_passes_run_side_by_side() -> None:
    shapes = [(1, 3), (SHAPE), (100_000,), (5, 40_000), (2, 2)] * 4
    programs = [program_of(normalized(wide(shape))) for shape in shapes]
    graph = graph_of(*programs)
    # Every island reads the leaf called a: a tensor as large as the largest serves them all.
    x = values((300_000,))
    memory = InMemory({"a": x}, graph)
    execute(plan_of(graph, target_elements=4096, workers=4), memory, memory)
    for index, shape in enumerate(shapes):
        part = x[: TensorSpec(shape, F32).elements].float().reshape(shape)
        assert torch.equal(memory.result(f"out{index}"), part / part.abs().amax())


# ------------------------------------------------------------------------------------------------ simulation


def replayed(node: Node, workers: int) -> list[tuple[int, int]]:
    """Threads and bytes done after each pass."""
    plan = plan_of(graph_of(program_of(node)), target_elements=REDUCE_BLOCK_ELEMENTS, workers=workers)
    return [(moment.workers, moment.done_bytes) for moment in simulate(plan)]


def test_a_replay_counts_passes_and_bytes() -> None:
    elements = 3 * REDUCE_BLOCK_ELEMENTS
    done = [done_bytes for _, done_bytes in replayed(normalized(wide((elements,))), workers=1)]
    # Read twice, as bfloat16; written once, as float32.
    assert done == [2 * elements, (2 + 2 + 4) * elements]


def test_a_pass_takes_no_more_workers_than_it_has_tiles() -> None:
    node = scale(wide((3 * REDUCE_BLOCK_ELEMENTS,)), factor=0.5)
    assert [workers for workers, _ in replayed(node, workers=8)] == [3]
    assert [workers for workers, _ in replayed(node, workers=1)] == [1]


def test_a_replay_is_within_what_a_plan_sets_aside() -> None:
    nodes = [normalized(wide((400, 3_000))), unfaded((300, 300)), below_row_maximum(wide((20, 20_000)))]
    graph = graph_of(*map(program_of, nodes))
    for workers in (1, 2, 5):
        plan = budgeted(graph, workers=workers)
        room_bytes = plan.predicted_peak_bytes - plan.slack_bytes
        assert 0 < simulated_peak_bytes(plan) <= room_bytes
        assert plan.state_bytes == sum(
            sorted(max(state_bytes(cut(program_of(node)))) for node in nodes)[-(workers + (workers > 1)) :]
        )
