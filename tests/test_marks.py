"""Marks: a bit for each element that was kept, so that a later pass need not find out again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_support import InMemory, budgeted, graph_of, loads, program_of
from plain_ops import PLAIN, dirty
from plait.engine.execute import execute
from plait.engine.graph import Program, TensorSpec
from plait.engine.opdef import Tile, row_block_elements
from plait.ops.elementwise import add, cast, sub
from plait.ops.marks import as_marked, keep_marked, marks
from plait.ops.rank_rows import drop_ranked
from plait.ops.reduce import abs_sum
from plait.ops.sparsify import drop, match_l1

F32 = torch.float32


def tiles(elements: int, step: int) -> list[Tile]:
    return [Tile(lo, hi) for lo, hi in pairwise([*range(0, elements, step), elements])]


def marked_in_tiles(kept: torch.Tensor, order: list[Tile]) -> torch.Tensor:
    spec, block = TensorSpec(tuple(kept.shape), F32, "delta"), row_block_elements(kept.shape[-1])
    assert marks.reduction is not None
    assert marks.kernel is not None
    whole = marks.infer([spec], {})
    state = torch.zeros(whole.shape, dtype=whole.dtype)
    for tile in order:
        part = kept.reshape(-1)[tile.lo : tile.hi]
        partial = torch.full(marks.reduction.partial_spec([spec], tile.elements, block).shape, 0xA5, dtype=torch.uint8)
        marks.kernel(partial.view(-1), [part], dirty(marks, [part], tile.elements), tile, block_elements=block)
        marks.reduction.fold(state, partial.view(-1), tile, block)
    return marks.reduction.result(state, whole)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 300), row=st.sampled_from([1, 3, 7, 64, 1000, 70_000]), data=st.data())
def test_what_is_marked_is_what_was_kept(rows: int, row: int, data: st.DataObject) -> None:
    rows = max(min(rows, 400_000 // row), 1)
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    x = torch.from_numpy(random.normal(size=(rows, row)).astype(np.float32))
    kept = torch.where(torch.from_numpy(random.random((rows, row)) < data.draw(st.floats(0, 1))), x, 0.0)
    cut = tiles(rows * row, row_block_elements(row) * data.draw(st.integers(1, 3)))
    found = marked_in_tiles(kept, data.draw(st.permutations(cut)))
    assert torch.equal(found, PLAIN["marks"]([kept]))
    out = torch.full((rows * row,), float("nan"))
    assert keep_marked.kernel is not None
    for tile in cut:
        part = slice(tile.lo, tile.hi)
        keep_marked.kernel(out[part], [x.reshape(-1)[part], found], torch.empty(0), tile, row_elements=row)
    assert torch.equal(out, kept.reshape(-1))
    assert torch.equal(out, PLAIN["keep_marked"]([x, found], row_elements=row))


# ------------------------------------------------------------------------------------------------ plans

ROWS, ROW = 700, 1000


def matched(*, ranked: bool = True) -> Program:
    """Random dropping, and a factor that is known only when it is over."""
    x, base = [cast(node, dtype=F32) for node in loads(2, (ROWS, ROW))]
    delta = sub(x, base)
    if ranked:
        kept = drop_ranked(delta, density=0.5, epsilon=0.1, ordinal=0, row_elements=ROW, divided=False)
    else:
        kept = drop(delta, density=0.5, ordinal=0)
    return program_of(add(base, match_l1(as_marked(delta, kept), abs_sum(delta), abs_sum(kept))))


def test_marks_give_way_where_memory_is_short() -> None:
    program = matched()
    graph = graph_of(program)
    roomy = budgeted(graph)
    assert roomy.state_bytes >= ROWS * ROW // 8
    tight = budgeted(graph, roomy.predicted_peak_bytes - 1)
    assert tight.state_bytes < ROWS * ROW // 8
    assert tight.predicted_peak_bytes < roomy.predicted_peak_bytes
    generator = torch.Generator().manual_seed(5)
    inputs = {name: torch.randn(ROWS, ROW, generator=generator).bfloat16() for name in "ab"}
    results = []
    for plan in (roomy, tight):
        (run,) = plan.programs.values()
        sorts = [sum(node.op is drop_ranked for node in each.nodes) for each in run.passes]
        assert sorts == ([1, 0] if plan is roomy else [1, 1])
        memory = InMemory(inputs, graph)
        execute(plan, memory, memory)
        results.append(memory.result())
    assert torch.equal(*results)


def test_what_is_cheap_to_find_out_again_has_no_marks() -> None:
    program = matched(ranked=False)
    assert program.leaner is program
    assert not any(node.op is marks for node in program.nodes)
