"""What is worked out on a matrix's Gram matrix: against decompositions of the matrix, and where digits run out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import plain_spectrum
import plain_triplets
import pytest
import torch
from plain_ops import PLAIN, dirty
from plait.engine.opdef import GraphError, OpDef, Tile, load
from plait.engine.panels import PANEL_LINES, lines_of
from plait.ops.elementwise import sub
from plait.ops.spectrum import flattener, line_gram, times
from plait.ops.triplets import left_gram, left_times, strongest, whitened
from support import Merge, as_bytes, family

if TYPE_CHECKING:
    from plait.engine.graph import Node

F32, F64 = torch.float32, torch.float64
SHAPES = [(600, 37), (37, 600), (1, 1), (1, 700), (700, 1), (256, 256), (530, 520)]


def geometry(shape: tuple[int, ...]) -> dict[str, Any]:
    lines = lines_of(shape)
    return {"width": lines.width, "columns": lines.columns}


def matrix(shape: tuple[int, ...], dtype: torch.dtype = F64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def tiles(shape: tuple[int, ...], panels: int) -> list[tuple[Tile, torch.Tensor]]:
    """A matrix's tiles of so many panels, and the flat elements of each."""
    lines = lines_of(shape)
    index = torch.arange(math.prod(shape)).view(shape)
    found = []
    for start in range(0, lines.number, panels * PANEL_LINES):
        part = slice(start, min(start + panels * PANEL_LINES, lines.number))
        elements = (index[:, part] if lines.columns else index[part]).reshape(-1)
        found.append((Tile(part.start * lines.width, part.stop * lines.width), elements))
    return found


def whole(definition: OpDef, ins: list[torch.Tensor], out: torch.Tensor, panels: int, **attrs: Any) -> torch.Tensor:
    """Run a whole op over a matrix's tiles in their order."""
    assert definition.kernel is not None
    for tile, elements in tiles(tuple(ins[0].shape), panels):
        parts = [x.reshape(-1)[elements] if x.shape == ins[0].shape else x for x in ins]
        definition.kernel(out, parts, dirty(definition, ins, tile.elements), tile, **attrs)
    return out


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_gram_matrix_is_that_of_the_longer_side(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, width = matrix(shape, dtype), min(shape)
    found = [whole(line_gram, [x], torch.zeros(width, width, dtype=F64), n, **geometry(shape)) for n in (1, 2, 9)]
    expected = PLAIN["line_gram"]([x], **geometry(shape))
    torch.testing.assert_close(found[0].tril(), expected, rtol=1e-12, atol=1e-12 * max(shape))
    assert all(torch.equal(as_bytes(each), as_bytes(found[0])) for each in found)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("shape", SHAPES)
def test_lines_times_a_matrix_are_the_same_in_any_tile(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, square = matrix(shape, dtype), matrix((min(shape), min(shape)), seed=1)
    expected = PLAIN["times"]([x, square], **geometry(shape)).reshape(-1)
    results = []
    for panels in (1, 2, 9):
        out = torch.full_like(expected, math.nan)
        for tile, elements in tiles(shape, panels):
            part = x.reshape(-1)[elements]
            target = torch.empty_like(part)
            assert times.kernel is not None
            times.kernel(target, [part, square], dirty(times, [x, square], tile.elements), tile, **geometry(shape))
            out[elements] = target
        results.append(out)
    tolerance = 1e-12 if dtype == F64 else 1e-5
    torch.testing.assert_close(results[0], expected, rtol=tolerance, atol=tolerance * min(shape))
    assert all(torch.equal(as_bytes(each), as_bytes(results[0])) for each in results)


def flat(x: torch.Tensor) -> torch.Tensor:
    """Iso-C's change through the Gram matrix, longer side first."""
    gram = PLAIN["line_gram"]([x])
    assert flattener.kernel is not None
    out = torch.full_like(gram, math.nan)
    flattener.kernel(out, [gram], torch.empty(0, dtype=torch.uint8), Tile(0, gram.numel()))
    torch.testing.assert_close(out, PLAIN["flattener"]([gram]), rtol=1e-9, atol=1e-9)
    return plain_spectrum.as_lines(x) @ out


@pytest.mark.parametrize("shape", SHAPES)
def test_a_flat_spectrum_is_the_mean_in_every_direction(shape: tuple[int, ...]) -> None:
    x = matrix(shape)
    mean = torch.linalg.svdvals(x).mean()
    torch.testing.assert_close(flat(x) / mean, plain_spectrum.polar(plain_spectrum.as_lines(x)), rtol=0, atol=1e-8)
    torch.testing.assert_close(torch.linalg.svdvals(flat(x)), mean.expand(min(shape)), rtol=1e-8, atol=0)


@pytest.mark.parametrize(("weak", "kept"), [(1e-5, True), (1e-9, False), (0.0, False)])
def test_a_direction_that_cannot_be_told_from_rounding_is_none(weak: float, kept: bool) -> None:
    u, _, v = torch.linalg.svd(matrix((300, 20)), full_matrices=False)
    sigma = torch.ones(20, dtype=F64)
    sigma[12:] = weak
    found = torch.linalg.svdvals(flat(u * sigma @ v))
    mean = float(sigma.mean()) if kept else 12 / 20
    expected = torch.full((20,), mean, dtype=F64)
    if not kept:
        expected[12:] = 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_what_is_not_a_number_stays_so_and_ends_nothing() -> None:
    models = family({"weight": (40, 30)}, [torch.bfloat16] * 3)
    models["m0"]["weight"][3, 4] = math.nan
    merged = Merge("iso_c", models, [("m0", {}), ("m1", {})], "base").run(let_through=set())["weight"]
    assert merged.isnan().all()


def test_a_matrix_that_nothing_moved_is_left_alone() -> None:
    out = torch.full((5, 5), math.nan, dtype=F64)
    run = [torch.zeros(5, 5, dtype=F64)]
    assert flattener.kernel is not None
    flattener.kernel(out, run, torch.empty(0, dtype=torch.uint8), Tile(0, 25))
    assert torch.equal(out, run[0])


def delta(shape: tuple[int, ...], dtype: torch.dtype = F64) -> Node:
    return sub(load(slot=1, shape=shape, dtype=dtype), load(slot=0, shape=shape, dtype=dtype))


def test_what_has_no_lines_is_refused() -> None:
    x = delta((6, 4))
    gram = line_gram(x, width=4, columns=False)
    for make in (
        lambda: line_gram(delta((6, 4, 2)), width=4, columns=False),
        lambda: line_gram(delta((6,)), width=1, columns=False),
        lambda: line_gram(delta((0, 6)), width=0, columns=False),
        lambda: line_gram(delta((6, 4), torch.bfloat16), width=4, columns=False),
        lambda: line_gram(load(slot=0, shape=(6, 4), dtype=F64), width=4, columns=False),
        lambda: line_gram(x, width=6, columns=False),
        lambda: line_gram(x, width=4, columns=True),
        lambda: flattener(x),
        lambda: times(x, x, width=4, columns=False),
        lambda: times(delta((7, 5)), gram, width=5, columns=False),
        lambda: times(x, width=4, columns=False),
    ):
        with pytest.raises(GraphError):
            make()


# ------------------------------------------------------------------------------------------------ singular triplets


def triplets_of(x: torch.Tensor, count: int) -> torch.Tensor:
    """The strongest directions of a matrix and their singular values, by the op."""
    gram = PLAIN["line_gram"]([x])
    out = torch.full((count + 1, len(gram)), math.nan, dtype=F64)
    assert strongest.kernel is not None
    strongest.kernel(out, [gram], torch.empty(0, dtype=torch.uint8), Tile(0, out.numel()), count=count)
    return out


@pytest.mark.parametrize("shape", [(600, 37), (37, 600), (1, 700), (530, 60)])
def test_triplets_are_those_of_the_matrix(shape: tuple[int, ...]) -> None:
    x, count = matrix(shape), max(min(shape) // 3, 1)
    found = triplets_of(x, count)
    u, sigma, v = torch.linalg.svd(plain_spectrum.as_lines(x), full_matrices=False)
    torch.testing.assert_close(found[-1, :count], sigma[:count], rtol=1e-10, atol=0)
    assert not found[-1, count:].any()
    # A direction has two signs; with the left vectors that follow from it the product has one.
    left = plain_triplets.left_vectors([x], [found])
    torch.testing.assert_close(left @ found[:-1], u[:, :count] @ v[:count], rtol=0, atol=1e-8)
    plain = PLAIN["strongest"]([PLAIN["line_gram"]([x])], count=count)
    torch.testing.assert_close(plain.abs(), found.abs(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("shape", [(600, 37), (37, 600), (1, 700)])
def test_orthogonal_vectors_come_out_the_same_in_any_tile(shape: tuple[int, ...]) -> None:
    parts = [matrix(shape, seed=seed) for seed in range(3)]
    count = max(min(shape) // 3, 1)
    triplets = [triplets_of(x, count) for x in parts]
    ins, vectors = [*parts, *triplets], 3 * count
    grams = [whole(left_gram, ins, torch.zeros(vectors, vectors, dtype=F64), n, **geometry(shape)) for n in (1, 2, 9)]
    torch.testing.assert_close(grams[0].tril(), PLAIN["left_gram"](ins, **geometry(shape)), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(as_bytes(each), as_bytes(grams[0])) for each in grams)
    right = torch.full((vectors, min(shape)), math.nan, dtype=F64)
    assert whitened.kernel is not None
    whitened.kernel(right, [grams[0], *triplets], torch.empty(0, dtype=torch.uint8), Tile(0, right.numel()))
    torch.testing.assert_close(right, PLAIN["whitened"]([grams[0], *triplets]), rtol=1e-7, atol=1e-7)
    expected = PLAIN["left_times"]([*ins, right], **geometry(shape)).reshape(-1)
    for panels in (1, 2, 9):
        assert left_times.kernel is not None
        for tile, elements in tiles(shape, panels):
            cut = [*(x.reshape(-1)[elements] for x in parts), *triplets, right]
            out = torch.full_like(cut[0], math.nan)
            left_times.kernel(out, cut, dirty(left_times, [*ins, right], tile.elements), tile, **geometry(shape))
            torch.testing.assert_close(out, expected[elements], rtol=1e-9, atol=1e-9)


def test_one_task_with_all_its_directions_is_itself() -> None:
    models = family({"tall": (90, 40), "flat": (40, 90)}, [F32] * 2)
    merged = Merge("tsv", models, [("m0", {})], "base").run()
    for name, out in merged.items():
        torch.testing.assert_close(out, models["m0"][name], rtol=0, atol=1e-8)


def test_merged_directions_of_several_tasks_are_orthogonal() -> None:
    models = family({"weight": (120, 90)}, [F64] * 4)
    merged = Merge("tsv", models, [(f"m{index}", {}) for index in range(3)], "base").run()["weight"]
    change = merged - models["base"]["weight"]
    shares = [torch.linalg.svdvals(models[f"m{index}"]["weight"] - models["base"]["weight"])[:30] for index in range(3)]
    expected = torch.cat(shares).sort(descending=True).values
    torch.testing.assert_close(torch.linalg.svdvals(change), expected, rtol=1e-8, atol=0)


def test_triplets_of_something_else_are_refused() -> None:
    x = delta((6, 4))
    gram = line_gram(x, width=4, columns=False)
    own = strongest(gram, count=2)
    shared = {"width": 4, "columns": False}
    for make in (
        lambda: strongest(gram, count=5),
        lambda: strongest(gram, count=0),
        lambda: strongest(own, gram, count=1),
        lambda: left_gram(x, **shared),
        lambda: left_gram(x, x, own, **shared),
        lambda: left_gram(x, strongest(line_gram(delta((6, 5)), width=5, columns=False), count=2), **shared),
        lambda: whitened(gram, own),
        lambda: left_times(x, own, gram, **shared),
    ):
        with pytest.raises(GraphError):
            make()
