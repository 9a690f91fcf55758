"""Selection by rank: exact, over any tiles, the lower index first among equals, whatever a sample made one expect."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_support import InMemory, graph_of, loads, plan_of, program_of
from plain_ops import PLAIN, reduce_in_tiles, run_kernel
from plain_select import BLOCK, bits_of, ranks
from plait.engine.execute import execute
from plait.engine.opdef import Tile, ops
from plait.engine.tiling import SAMPLE_ELEMENTS, SAMPLE_RUN_ELEMENTS, cut
from plait.ops.elementwise import add, cast, sub
from plait.ops.select import keep_largest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plait.engine.graph import Program

F32, F64 = torch.float32, torch.float64


def values(kind: str, elements: int, dtype: torch.dtype) -> torch.Tensor:
    """Numbers with many ties, with few, or all equal."""
    random = np.random.default_rng(elements)
    if kind == "equal":
        return torch.full((elements,), -0.25, dtype=dtype)
    array = random.normal(0, 0.01, elements)
    return torch.from_numpy(np.round(array * 512) / 512 if kind == "coarse" else array).to(dtype)


def tiles(elements: int, tile_elements: int) -> list[Tile]:
    cuts = [*range(0, elements, tile_elements), elements]
    return [Tile(lo, hi) for lo, hi in itertools.pairwise(cuts)]


class Checked:
    """Counts and conclusions over a cut of one tensor, each held against its plain expression."""

    def __init__(self, x: torch.Tensor, cut: Sequence[Tile], count: int, *, descending: bool) -> None:
        self.x, self.cut = x, cut
        self.exact = {"count": count, "descending": descending}
        self.descending = descending

    def count(self, name: str, *states: torch.Tensor, **attrs: Any) -> torch.Tensor:
        found = reduce_in_tiles(ops()[name], [self.x, *states], self.cut, BLOCK, attrs)
        assert torch.equal(found, PLAIN[name]([self.x, *states], **attrs))
        return found

    def conclude(self, name: str, *states: torch.Tensor, **attrs: Any) -> torch.Tensor:
        return conclusion(name, states, {"descending": self.descending, **attrs})

    def rank(self) -> torch.Tensor:
        width = 8 * self.x.dtype.itemsize
        first = self.conclude("aim_again", self.count("count_leading"), **self.exact)
        located = self.conclude("locate", self.count("count_window", first), first, **self.exact, width=width)
        for shift in (22, 6) if width == 64 else ():
            counts = self.count("count_digit", located, shift=shift)
            located = self.conclude("locate_digit", counts, located, shift=shift)
        return self.conclude("settle", self.count("count_tails", located), located)


def conclusion(name: str, states: Sequence[torch.Tensor], attrs: Mapping[str, Any]) -> torch.Tensor:
    """A state op's result, held against its plain expression."""
    expected = PLAIN[name](list(states), **attrs)
    found = run_kernel(ops()[name], list(states), torch.int64, Tile(0, expected.numel()), attrs)
    assert torch.equal(found, expected)
    return found


def run_kernel_whole(x: torch.Tensor, chosen: torch.Tensor, tile: Tile, **attrs: bool) -> torch.Tensor:
    return run_kernel(ops()["keep_ranked"], [x, chosen], x.dtype, tile, attrs)


@pytest.mark.parametrize("kind", ["coarse", "fine", "equal"])
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("descending", [True, False])
@settings(max_examples=5, deadline=None)
@given(share=st.floats(0, 1), tile_blocks=st.integers(1, 3), backwards=st.booleans())
def test_a_selection_over_tiles_is_that_of_a_sort(
    kind: str, dtype: torch.dtype, descending: bool, share: float, tile_blocks: int, backwards: bool
) -> None:
    x = values(kind, 2 * BLOCK + 77, dtype)
    count = 1 + int(share * (x.numel() - 1))
    cut = tiles(x.numel(), tile_blocks * BLOCK)
    state = Checked(x, cut[::-1] if backwards else cut, count, descending=descending).rank()
    chosen = ranks(x, descending=descending)[:count]
    assert int(state[0]) == int(bits_of(x)[chosen[-1]])
    for rest in (False, True):
        kept = torch.cat([run_kernel_whole(x, state, tile, descending=descending, rest=rest) for tile in cut])
        expected = np.full(x.numel(), rest)
        expected[chosen] = not rest
        assert torch.equal(kept, torch.where(torch.from_numpy(expected), x, 0))


@pytest.mark.parametrize("dtype", [F32, F64])
def test_nothing_is_chosen_at_rank_zero(dtype: torch.dtype) -> None:
    x = values("coarse", 500, dtype)
    state = Checked(x, [Tile(0, 500)], 0, descending=True).rank()
    assert not run_kernel_whole(x, state, Tile(0, 500), descending=True, rest=False).any()


# ------------------------------------------------------------------------------------------------ guesses


@pytest.mark.parametrize("off", [-40, -1, 0, 15, 16, 40])
@pytest.mark.parametrize("descending", [True, False])
def test_a_window_knows_what_it_does_not_hold(off: int, descending: bool) -> None:
    x = values("fine", 70_001, F32)
    count = 20_000
    digit = int(bits_of(x)[ranks(x, descending=descending)[count - 1]]) >> 16
    first = torch.tensor([digit - off])
    checked = Checked(x, tiles(x.numel(), BLOCK), count, descending=descending)
    counts = checked.count("count_window", first)
    assert int(counts.sum()) == x.numel()
    located = checked.conclude("locate", counts, first, **checked.exact, width=32)
    assert (int(located[0]) >> 16 == digit) == (0 <= off < 16)
    assert (int(located[0]) == -1) == (not 0 <= off < 16)
    # What was missed is counted, what was not is not.
    assert bool(checked.count("count_missed", located).any()) == (int(located[0]) == -1)
    assert bool(checked.count("recount_window", first, located).any()) == (int(located[0]) == -1)
    found = conclusion("found_in", [located, torch.tensor([77, 7])], {})
    assert int(found[0]) == (77 if int(located[0]) == -1 else int(located[0]))


@settings(max_examples=30, deadline=None)
@given(
    share=st.floats(0, 1), nonzero=st.booleans(), descending=st.booleans(), scale=st.sampled_from([0, 1e-44, 1, 1e38])
)
def test_a_guess_is_the_middle_of_its_window(share: float, nonzero: bool, descending: bool, scale: float) -> None:
    x = torch.cat([values("fine", 3000, F32) * scale, torch.zeros(1000)])
    counts = reduce_in_tiles(ops()["sample_digits"], [x], [Tile(0, 4000)], BLOCK)
    assert torch.equal(counts, PLAIN["sample_digits"]([x]))
    attrs = {"share": share, "nonzero": nonzero, "descending": descending}
    if nonzero and int(counts[0]) == 4000:  # nothing to aim at, and nothing to fail on
        assert 0 <= int(run_kernel(ops()["aim"], [counts], torch.int64, Tile(0, 1), attrs)[0]) < 1 << 15
        return
    conclusion("aim", [counts], attrs)


# ------------------------------------------------------------------------------------------------ runs


def largest_of(elements: int, count: int) -> Program:
    """Base plus the largest elements of a task vector."""
    x, base = [cast(node, dtype=F32) for node in loads(2, (elements,))]
    return program_of(add(base, keep_largest(sub(x, base), count)))


def uneven(elements: int, *, between_runs: bool) -> torch.Tensor:
    """Task vectors that are larger where a sample does not look, or alike everywhere."""
    x = values("fine", elements, F32).to(torch.bfloat16)
    if between_runs:
        (sample, *_) = cut(largest_of(elements, elements // 2))
        factor = torch.full((elements,), 64.0)
        for tile in sample.tiles(SAMPLE_ELEMENTS):
            for run in sample.ranges(tile):
                factor[run.lo : run.hi] = 1.0
        x = (x.float() * factor).to(torch.bfloat16)
    return x


@pytest.mark.parametrize("misleading", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_wrong_guess_costs_a_reading_and_changes_nothing(misleading: bool, workers: int) -> None:
    elements = 2 * SAMPLE_ELEMENTS + 12_345
    x = uneven(elements, between_runs=misleading)
    count = elements // 3
    program = largest_of(elements, count)
    base = torch.zeros(elements, dtype=torch.bfloat16)
    expected = torch.zeros(elements)
    chosen = torch.from_numpy(ranks(x.float(), descending=True)[:count])
    expected[chosen] = x.float()[chosen]
    graph = graph_of(program)
    memory = InMemory({"a": x, "b": base}, graph)
    plan = plan_of(graph, target_elements=BLOCK, workers=workers)
    progress = execute(plan, memory, memory)
    assert torch.equal(memory.result("out0"), expected)
    once = 2 * 2 * elements
    assert plan.bytes_read == 3 * once + 2 * 2 * SAMPLE_ELEMENTS
    assert plan.passes == 3
    assert progress.bytes_read == plan.bytes_read + (2 * once if misleading else 0)
    assert progress.share == 1.0


def test_a_sample_is_spread_and_its_tiles_cover_it() -> None:
    elements = 5 * SAMPLE_ELEMENTS + 1
    sample, *_ = cut(largest_of(elements, 77))
    assert sample.sampled
    assert sample.elements == SAMPLE_ELEMENTS
    for target in (BLOCK, 3 * BLOCK, 1 << 30):
        runs = [run for tile in sample.tiles(sample.tile_elements(target)) for run in sample.ranges(tile)]
        assert sum(run.elements for run in runs) == SAMPLE_ELEMENTS
        assert all(0 <= one.lo < one.hi <= two.lo for one, two in itertools.pairwise(runs))
        assert runs[-1].hi <= elements
        # Nowhere is there a gap much wider than the others.
        assert max(two.lo - one.lo for one, two in itertools.pairwise(runs)) <= elements // 128 + SAMPLE_RUN_ELEMENTS


@pytest.mark.parametrize("elements", [1, 4097, SAMPLE_ELEMENTS])
def test_a_small_tensor_is_its_own_sample(elements: int) -> None:
    count = min(77, elements)
    program = largest_of(elements, count) if count < elements else largest_of(elements, elements - 1)
    x = values("coarse", elements, F32).to(torch.bfloat16)
    graph = graph_of(program)
    memory = InMemory({"a": x, "b": torch.zeros_like(x)}, graph)
    plan = plan_of(graph, target_elements=BLOCK, workers=2)
    assert execute(plan, memory, memory).bytes_read == plan.bytes_read
    found = torch.nonzero(memory.result("out0")).reshape(-1).tolist()
    assert set(found) <= set(ranks(x.float(), descending=True)[:count].tolist())
    assert len(found) == min(count, int((x != 0).sum())) if count < elements else not found
