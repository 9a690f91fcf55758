"""Rows of vocabulary tensors in the output's order: against a plain gather in float64, at any tile size."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_support import InMemory, decoder_shapes, model, parse, plan_of
from plait.engine.compile import compile_recipe
from plait.engine.errors import InputError
from plait.engine.execute import execute
from plait.engine.graph import TensorSpec
from plait.engine.methoddef import methods
from plait.engine.opdef import Tile, ops
from plait.engine.row_map import RowMap, RowTable
from plait.engine.vocabulary import AVERAGE, MEAN, ZEROS, RowSources, Vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from plait.engine.recipe import ModelRef

HIDDEN = 8
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


# ------------------------------------------------------------------------------------------------ maps of rows


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_stretches_cover_a_range_with_the_right_rows(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 5))
    source = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=rows, max_size=rows)), np.int16)
    row = np.array(data.draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows)), np.int32)
    row = np.where(data.draw(st.booleans()), np.arange(rows), row)
    lo = data.draw(st.integers(0, rows * columns))
    tile = Tile(lo, data.draw(st.integers(lo, rows * columns)))
    found: list[tuple[int, int]] = []
    for first, stop, which, stored in RowMap(source, row).stretches(tile, columns):
        assert first == tile.lo + len(found)
        found += [(which, stored + step if which >= 0 else 0) for step in range(stop - first)]
    expected = [
        (int(source[at // columns]), int(row[at // columns]) * columns + at % columns)
        if source[at // columns] >= 0
        else (-1, 0)
        for at in range(tile.lo, tile.hi)
    ]
    assert found == expected
    assert RowMap(source, row).read_elements(tile, columns) == sum(which >= 0 for which, _ in expected)


def test_tables_are_equal_by_what_they_hold() -> None:
    assert RowTable(np.arange(4)) == RowTable(np.arange(4))
    assert hash(RowTable(np.arange(4))) == hash(RowTable(np.arange(4)))
    assert RowTable(np.arange(4)) != RowTable(np.arange(4, 0, -1))
    assert RowTable(np.arange(4)) != RowTable(np.arange(4, dtype=np.int16))


# ------------------------------------------------------------------------------------------------ averages


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_sums_of_columns_are_exact_in_any_tiles(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 9))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    scale = 10.0 ** random.integers(-6, 6, columns)
    x = torch.from_numpy((random.normal(size=(rows, columns)) * scale).astype(np.float32)).reshape(-1)
    counted = data.draw(st.integers(1, rows))
    cuts = sorted({0, rows * columns, *data.draw(st.lists(st.integers(0, rows * columns), max_size=4))})
    tiles = data.draw(st.permutations([Tile(lo, hi) for lo, hi in itertools.pairwise(cuts)]))
    sizes = x.double().abs().reshape(rows, columns).amax(0)[None]
    attrs = {"columns": columns, "rows": counted}
    x2 = x.reshape(rows, columns)  # specs need the columns
    parts = [_reduced("column_sums", [x2, sizes], each, attrs) for each in (tiles, [Tile(0, rows * columns)])]
    assert torch.equal(*parts)
    means = torch.empty(columns, dtype=torch.float64)
    column_means = ops()["column_means"].kernel
    assert column_means is not None
    column_means(means, [parts[0], sizes], torch.empty(0), Tile(0, columns), rows=counted)
    exact = x2.double()[:counted].mean(0)
    assert torch.allclose(means, exact, rtol=1e-15, atol=float(sizes.max()) * 1e-17)


def _reduced(name: str, ins: Sequence[torch.Tensor], tiles: Sequence[Tile], attrs: Mapping[str, Any]) -> torch.Tensor:
    definition = ops()[name]
    reduction = definition.reduction
    assert reduction is not None
    flat = ins[0].reshape(-1)
    total = None
    for tile in tiles:
        specs = [TensorSpec(tuple(each.shape), each.dtype) for each in ins]
        spec = reduction.partial_spec(specs, tile.elements, 1)
        partial = torch.full(spec.shape, float("nan"), dtype=spec.dtype)
        scratch = torch.full((definition.scratch_bytes(specs, tile.elements),), 0xA5, dtype=torch.uint8)
        assert definition.kernel is not None
        definition.kernel(partial, [flat[tile.lo : tile.hi], *ins[1:]], scratch, tile, block_elements=1, **attrs)
        total = partial if total is None else total + partial
    assert total is not None
    return total


# ------------------------------------------------------------------------------------------------ merges

ROWS = {"a": 16, "b": 20, "c": 18}
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


class Models(InMemory):
    """Tensors of several models in memory, by model and name."""

    def read_into(self, tensor: Any, offset_bytes: int, out: torch.Tensor) -> None:
        """See engine.model.TensorReader."""
        out.copy_(self.inputs[f"{tensor.model}:{tensor.name}"][offset_bytes : offset_bytes + out.numel()])


@st.composite
def vocabularies(draw: st.DrawFn, refs: Sequence[ModelRef], rows: int) -> Vocabulary:
    """Any assignment of rows: own ones, borrowed ones, zeros, means, averages, in any order."""
    random = np.random.default_rng(draw(st.integers(0, 9999)))
    tokens = draw(st.integers(1, rows))
    own = {ref: np.where(random.random(rows) < 0.7, random.integers(0, ROWS[str(ref)], rows), -1) for ref in refs}
    sources = {}
    kinds = draw(st.sampled_from([[], [MEAN], [ZEROS, MEAN], [ZEROS, MEAN, AVERAGE]]))
    has_any = np.any([each >= 0 for each in own.values()], axis=0)
    for ref in refs:
        chosen = random.choice([*range(len(refs)), *kinds], rows).astype(np.int16)
        chosen[(chosen == MEAN) & ~has_any] = ZEROS
        row = [int(random.integers(0, ROWS[str(refs[number])])) if number >= 0 else 0 for number in chosen]
        sources[ref] = RowSources(chosen, np.array(row, np.int32))
    return Vocabulary(tokens, rows, tuple(refs), sources, {ref: each.astype(np.int32) for ref, each in own.items()})


def put_together(
    vocabulary: Vocabulary, ref: ModelRef, tensors: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """One model's contribution, a row after the other."""
    sources, result = vocabulary.sources[ref], np.zeros((vocabulary.rows, HIDDEN))
    for at, (number, row) in enumerate(zip(sources.model, sources.row, strict=True)):
        if number >= 0:
            result[at] = tensors[str(vocabulary.models[number])][row]
        if number == MEAN:
            having = [other for other in vocabulary.models if vocabulary.own[other][at] >= 0]
            result[at] = np.mean([tensors[str(other)][vocabulary.own[other][at]] for other in having], axis=0)
    result[sources.model == AVERAGE] = result[: vocabulary.tokens].mean(axis=0)
    return result


RECIPES = {
    "linear": """
        merge_method: linear
        models:
          - {model: a, parameters: {weight: 0.5}}
          - {model: b, parameters: {weight: 0.3}}
          - {model: c, parameters: {weight: 0.2}}
        """,
    "task_arithmetic": """
        merge_method: task_arithmetic
        base_model: a
        models:
          - {model: b, parameters: {weight: 0.3}}
          - {model: c, parameters: {weight: 0.2}}
        """,
    "passthrough": """
        merge_method: passthrough
        models: [{model: b}]
        """,
}


def merged(method: str, parts: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The recipes above, in float64."""
    if method == "passthrough":
        return parts["b"]
    if method == "linear":
        return 0.5 * parts["a"] + 0.3 * parts["b"] + 0.2 * parts["c"]
    return parts["a"] + 0.3 * (parts["b"] - parts["a"]) + 0.2 * (parts["c"] - parts["a"])


@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.parametrize(
    "dtypes", [(F32, F32, F32), (BF16, BF16, BF16), (BF16, F16, F32)], ids=["f32", "bf16", "mixed"]
)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_merge_over_moved_rows_is_that_of_the_moved_tensors(
    method: str, dtypes: Sequence[torch.dtype], data: st.DataObject
) -> None:
    recipe = parse(RECIPES[method])
    refs = recipe.references()
    of = dict(zip("abc", dtypes, strict=True))
    models = {
        ref: model(
            str(ref),
            {
                name: (ROWS[str(ref)], HIDDEN)
                if shape[0] == 16 and "weight" in name and name in (EMBEDDING, HEAD)
                else shape
                for name, shape in decoder_shapes(2, hidden=HIDDEN).items()
            },
            dtype=of[str(ref)],
        )
        for ref in refs
    }
    vocabulary = data.draw(vocabularies(refs, data.draw(st.integers(1, 33))))
    found = compile_recipe(recipe, methods()[recipe.merge_method], models, vocabulary)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    inputs = {
        f"{each.model}:{each.name}": torch.from_numpy(random.normal(size=each.spec.shape)).to(each.spec.dtype)
        for each_model in models.values()
        for each in each_model.tensors.values()
    }
    results = []
    for tile_elements, workers in [(data.draw(st.sampled_from([1, 4096])), 1), (1 << 19, 2)]:
        memory = Models(inputs, found.graph)
        plan = plan_of(found.graph, target_elements=tile_elements, workers=workers)
        final = execute(plan, memory, memory)
        assert final.bytes_read == plan.bytes_read
        results.append({name: memory.result(name) for name in (EMBEDDING, HEAD)})
    for name in (EMBEDDING, HEAD):
        out = results[0][name]
        assert torch.equal(out.view(torch.uint8), results[1][name].view(torch.uint8))
        wide = {str(ref): inputs[f"{ref}:{name}"].double().numpy() for ref in refs}
        parts = {str(ref): put_together(vocabulary, ref, wide) for ref in refs}
        expected = torch.from_numpy(merged(method, parts))
        assert out.shape == expected.shape
        allowed = {BF16: 2.0**-8, F16: 2.0**-11, F32: 2.0**-22}[out.dtype]
        assert (out.double() - expected).abs().max() <= allowed * max(map(np.abs, parts.values()), key=np.max).max() * 2


def test_a_row_that_is_not_there_is_an_error_that_names_it() -> None:
    recipe = parse(RECIPES["passthrough"])
    (ref,) = recipe.references()
    models = {ref: model("b", decoder_shapes(2, hidden=HIDDEN))}
    rows = np.array([0, 16], np.int32)
    vocabulary = Vocabulary(2, 2, (ref,), {ref: RowSources(np.zeros(2, np.int16), rows)}, {ref: rows})
    with pytest.raises(InputError, match=r"b: model\.embed_tokens\.weight has 16 rows, .* a token for row 16"):
        compile_recipe(recipe, methods()["passthrough"], models, vocabulary)


def test_embeddings_of_positions_are_no_vocabulary() -> None:
    recipe = parse(RECIPES["passthrough"])
    (ref,) = recipe.references()
    shapes = {"model.embed_positions.weight": (16, HIDDEN), **decoder_shapes(2, hidden=HIDDEN)}
    models = {ref: model("b", shapes)}
    rows = np.arange(3, dtype=np.int32)
    vocabulary = Vocabulary(3, 3, (ref,), {ref: RowSources(np.zeros(3, np.int16), rows)}, {ref: rows})
    found = compile_recipe(recipe, methods()["passthrough"], models, vocabulary)
    written = {name: island.spec.shape for island in found.graph.islands for name in island.outputs}
    assert written["model.embed_positions.weight"] == (16, HIDDEN)
    assert written[EMBEDDING] == written[HEAD] == (3, HIDDEN)
