"""The memory model: what a layout sets aside is what a pass needs, and values that live together never overlap.

Lifetimes are worked out anew here, from the inputs of each node, so that layout, replay and executor can be wrong
one by one and not together.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_support import evaluate, loads, program_of, run_in_memory
from plait.engine.memory import ALIGN_BYTES, Arena, Slot, lay_out, replay, scratch_bytes, state_bytes, value_bytes
from plait.engine.opdef import REDUCE_BLOCK_ELEMENTS
from plait.engine.tiling import Pass, cut
from plait.ops.elect import agree_sum, agree_weight, elect
from plait.ops.elementwise import add, cast, divide, scale, sub
from plait.ops.reduce import abs_sum
from plait.ops.sparsify import drop, match_l1

if TYPE_CHECKING:
    from plait.engine.graph import Node, Program

F32, F64 = torch.float32, torch.float64
TILE = 1 << 18


def the_pass(node: Node) -> Pass:
    (only,) = cut(program_of(node))
    return only


def wide(count: int, shape: tuple[int, ...] = (1024, 1024), dtype: torch.dtype = F32) -> list[Node]:
    return [cast(node, dtype=dtype) for node in loads(count, shape)]


def per_element(size_bytes: int) -> int:
    """Bytes an element; what a value's alignment adds is far less than one."""
    return round(size_bytes / TILE)


def timeline(current: Pass) -> list[tuple[str, int]]:
    """Each step of a pass and what is alive then, in bytes an element."""
    return [
        (node.op.name, per_element(size_bytes))
        for node, size_bytes in zip(current.nodes, replay(current, TILE), strict=True)
    ]


# ------------------------------------------------------------------------------------------------ drawn graphs


def test_a_copy_holds_its_tile() -> None:
    """
    load ── write
      2      2+2, room to shift the bytes to where the output's pages start
    """
    current = the_pass(loads(1, (1024, 1024))[0])
    assert timeline(current) == [("load", 2), ("write", 4)]
    assert per_element(lay_out(current, TILE).size_bytes) == 4


def test_a_chain_holds_two_values_at_most() -> None:
    """
    load ── cast f32 ── scale ── cast bf16 ── write
      2       2+4      4, in place    4+2        2
    """
    (x,) = wide(1)
    current = the_pass(cast(scale(x, factor=0.5), dtype=torch.bfloat16))
    assert timeline(current) == [("load", 2), ("cast", 6), ("scale", 4), ("cast", 6), ("write", 2)]
    # The load's place serves the last cast: 8 bytes an element would be one place too many.
    assert per_element(lay_out(current, TILE).size_bytes) == 6


def test_a_value_that_is_used_again_is_kept() -> None:
    r"""
    load b ── cast ─┬───────────┐
    load x ── cast ─┴─ sub ── add ── scale ── cast ── write

    b  2, 2+4   4    4   in place of b
    x      4+2, +4   in place of x
    """
    base, x = wide(2)
    current = the_pass(cast(scale(add(base, sub(x, base)), factor=0.5), dtype=torch.bfloat16))
    assert timeline(current) == [
        *(("load", 2), ("cast", 6)),
        *(("load", 4 + 2), ("cast", 4 + 2 + 4)),
        *(("sub", 8), ("add", 8), ("scale", 4), ("cast", 6), ("write", 2)),
    ]
    assert per_element(lay_out(current, TILE).size_bytes) == 10


def test_scratch_is_there_for_its_own_op_alone() -> None:
    r"""
    base ─┬───────────────────────┐
    x ── sub ── drop (and hash) ── add ── cast ── write
    """
    base, x = wide(2)
    dropped = drop(sub(x, base), density=0.5, ordinal=0)
    current = the_pass(cast(add(base, dropped), dtype=torch.bfloat16))
    steps = dict(timeline(current))
    # A word of 8 bytes for 4 elements, as much to mix it in, and a flag each.
    assert scratch_bytes(dropped, TILE) == pytest.approx(5 * TILE, rel=1e-3)
    assert steps["drop"] == 8 + 5
    assert steps["add"] == 8


def test_a_float64_cast_to_sixteen_bits_asks_for_room_to_round() -> None:
    """
    load ── cast f64 ── scale ── cast bf16 (8 of scratch) ── write
    """
    (x,) = wide(1, dtype=F64)
    current = the_pass(cast(scale(x, factor=0.5), dtype=torch.bfloat16))
    assert max(timeline(current), key=lambda step: step[1]) == ("cast", 8 + 2 + 8)


def test_a_reduction_keeps_a_state_and_no_tile() -> None:
    r"""
    pass 1:  base, x ── sub ─┬─ drop ── Σ|·| ─┐
                             └─ Σ|·| ─────────┤
    pass 2:  base, x ── sub ── drop ── match ─┴─ add ── write
    """
    base, x = wide(2, (128, 1024))
    delta = sub(x, base)
    kept = drop(delta, density=0.5, ordinal=0)
    first, second = cut(program_of(add(base, match_l1(kept, abs_sum(delta), abs_sum(kept)))))
    # 2 blocks: a float64 each and one for the result, padded to a slot; for each of the two norms.
    # The next pass needs the results, and no blocks.
    assert state_bytes((first, second)) == (2 * 2 * ALIGN_BYTES, 2 * ALIGN_BYTES)
    assert all(node.op.name != "abs_sum" for node in second.nodes)
    assert value_bytes(first.reductions[0], first, 2 * REDUCE_BLOCK_ELEMENTS) == 2 * 8


# ------------------------------------------------------------------------------------------------ any graph


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A base and task vectors, worked on at random with the registered ops, then added to the base."""
    shape = draw(st.sampled_from([(3, 4096), (70_000,), (5, 27_001), (1,), (17,)]))
    dtype = draw(st.sampled_from([torch.bfloat16, torch.float16, F32, F64]))
    compute = F32 if dtype.itemsize == 2 else F64
    base, *models = [cast(node, dtype=compute) for node in loads(draw(st.integers(2, 4)), shape, dtype)]
    deltas = [sub(node, base) for node in models]
    pick = st.integers(0, 1 << 16).map(lambda number: deltas[number % len(deltas)])
    for ordinal in range(draw(st.integers(0, 7))):
        kind = draw(st.sampled_from(["scale", "drop", "add", "agree", "divide", "match"]))
        some = draw(st.lists(pick, min_size=1, max_size=3))
        first = some[0]
        if kind == "scale":
            deltas.append(scale(first, factor=draw(st.sampled_from([0.5, -1.25, 3.0]))))
        elif kind == "drop":
            deltas.append(drop(first, density=draw(st.sampled_from([0.1, 0.5])), ordinal=ordinal))
        elif kind == "add":
            deltas.append(add(*some))
        elif kind == "agree":
            deltas.append(agree_sum(elect(*some), *some))
        elif kind == "divide":
            deltas.append(divide(first, agree_weight(elect(*some), *some, weights=(0.5,) * len(some))))
        else:
            deltas.append(match_l1(first, abs_sum(draw(pick)), abs_sum(first)))
    merged = add(base, *draw(st.lists(pick, min_size=1, max_size=2)))
    return program_of(cast(merged, dtype=dtype))


def lifetimes(current: Pass) -> dict[Node, tuple[int, int]]:
    """When each value is made and when it is last read."""
    found = {}
    for step, node in enumerate(current.nodes):
        readers = [later for later, user in enumerate(current.nodes) if node in user.inputs]
        found[node] = (step, max([step, *readers]))
    return found


def may_share(earlier: Slot, later: Slot) -> bool:
    """Whether a value may stand where another one still does: its op works in place on a value nobody needs."""
    taken = [index for index, source in enumerate(later.node.inputs) if source is earlier.node]
    return (
        earlier.use == later.use == "value"
        and earlier.last == later.first
        and len(taken) == 1
        and taken[0] in later.node.op.inplace
        and earlier.node.spec.dtype == later.node.spec.dtype
    )


def check(current: Pass, arena: Arena) -> None:
    lives = lifetimes(current)
    values = {slot.node: slot for slot in arena.slots if slot.use == "value"}
    rooms = {slot.node: slot for slot in arena.slots if slot.use == "scratch"}
    tile = arena.tile_elements
    assert set(values) == {node for node in current.nodes if node.op.name != "write"}
    for node, slot in values.items():
        assert (slot.first, slot.last) == lives[node]
        assert slot.size_bytes >= value_bytes(node, current, tile)
    for node in current.nodes:
        wanted = scratch_bytes(node, tile)
        assert (rooms[node].size_bytes if node in rooms else 0) >= wanted
        if node in rooms:
            assert rooms[node].first == rooms[node].last == lives[node][0]
    for slot in arena.slots:
        assert slot.offset_bytes % ALIGN_BYTES == 0
        assert 0 <= slot.offset_bytes <= slot.offset_bytes + slot.size_bytes <= arena.size_bytes
    for one, two in combinations(sorted(arena.slots, key=lambda slot: slot.first), 2):
        together = one.first <= two.last and two.first <= one.last
        apart = (
            one.offset_bytes + one.size_bytes <= two.offset_bytes
            or two.offset_bytes + two.size_bytes <= one.offset_bytes
        )
        assert not together or apart or may_share(one, two) or may_share(two, one), f"{one} and {two} overlap"


@settings(max_examples=150, deadline=None)
@given(program=programs(), target=st.sampled_from([1, 4096, 10_000, 1 << 16, 1 << 18]))
def test_values_that_live_together_do_not_overlap(program: Program, target: int) -> None:
    for current in cut(program):
        arena = lay_out(current, current.tile_elements(target))
        check(current, arena)
        # Slots are whole cache lines; apart from that nothing can be smaller than what is alive.
        assert arena.size_bytes >= max(replay(current, arena.tile_elements))


@settings(max_examples=60, deadline=None)
@given(program=programs(), target=st.sampled_from([1, 10_000, 1 << 18]), workers=st.sampled_from([1, 3]))
def test_tiles_in_shared_storage_give_what_whole_tensors_give(program: Program, target: int, workers: int) -> None:
    generator = torch.Generator().manual_seed(1)
    stored = program.loads[0].spec
    inputs = [torch.randn(stored.shape, generator=generator).to(stored.dtype) for _ in range(4)]
    expected = evaluate(program, inputs)
    found = run_in_memory(program, inputs, target_elements=target, workers=workers)
    assert torch.equal(found.view(torch.uint8), expected.contiguous().view(torch.uint8))


@settings(max_examples=50, deadline=None)
@given(program=programs())
def test_larger_tiles_never_need_less(program: Program) -> None:
    for current in cut(program):
        sizes = [lay_out(current, current.tile_elements(1 << power)).size_bytes for power in range(12, 19)]
        assert sizes == sorted(sizes)


@pytest.mark.parametrize("models", [1, 2, 3, 8])
def test_a_drop_and_vote_needs_a_known_room(models: int) -> None:
    """What the merge most used costs an element, in bytes; it grows by a task vector a model."""
    base, *others = wide(models + 1)
    deltas = [drop(sub(node, base), density=0.5, ordinal=ordinal) for ordinal, node in enumerate(others)]
    current = the_pass(cast(add(base, agree_sum(elect(*deltas), *deltas)), dtype=torch.bfloat16))
    peak = max(bytes_each for _, bytes_each in timeline(current))
    # Base, the task vectors, the sign, and the two float32 of scratch that election takes.
    assert peak == 4 * (1 + models + 1 + 2)
    assert per_element(lay_out(current, TILE).size_bytes) <= 1.35 * peak
