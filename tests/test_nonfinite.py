"""NaN and infinity in an input: an error that says where, for every method, or let through and the same every time."""

from __future__ import annotations

import functools
import json
import math
import random
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from merge_support import file_bytes, loads, save_model, tensors_of
from plait.engine.errors import InputError, RecipeError
from plait.engine.finite import all_finite, canonical, looked_into, told_by_output
from plait.engine.methoddef import methods
from support import Merge, digests, family, merges, typical

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_support import Said
    from plait.engine.model import StoredTensor

SHAPES = {"matrix": (311, 427), "vector": (4097,)}
WHOLE = 1 << 18
BAD = {"NaN": math.nan, "infinity": math.inf, "-infinity": -math.inf}
DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@functools.cache
def clean_models(dtypes: tuple[torch.dtype, ...]) -> dict[str, dict[str, torch.Tensor]]:
    """A base and models over SHAPES; not to be written to."""
    return family(SHAPES, dtypes, seed=1)


def own_models(dtypes: tuple[torch.dtype, ...]) -> dict[str, dict[str, torch.Tensor]]:
    """The same, to be written to."""
    return {
        ref: {name: each.clone() for name, each in tensors.items()} for ref, tensors in clean_models(dtypes).items()
    }


def references(merge: Merge) -> list[str]:
    """The models that a merge names, each once."""
    return list(dict.fromkeys([*([merge.base] if merge.base else []), *(ref for ref, _ in merge.entries)]))


def spoil(models: dict[str, dict[str, torch.Tensor]], ref: str, tensor: str, seed: int) -> None:
    """Put infinities of both signs, and NaN of many payloads, at random places and at the end of a tensor."""
    flat = models[ref][tensor].view(-1)
    places = torch.randperm(flat.numel(), generator=torch.Generator().manual_seed(seed))[: flat.numel() // 9]
    places = torch.cat([places, torch.arange(flat.numel() - 5, flat.numel())])
    flat[places] = math.nan
    bits = flat.view(INTEGERS[flat.dtype.itemsize])
    bits[places[::2]] |= 5
    bits[places[::3]] ^= torch.iinfo(bits.dtype).min  # the sign
    flat[places[::5]] = math.inf
    flat[places[::7]] = -math.inf


# ------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", methods())
def test_every_method_says_which_model_and_tensor_and_where(name: str, dtype: torch.dtype, what: str) -> None:
    chance = random.Random(f"{name} {dtype} {what}")
    models = own_models((dtype,) * 5)
    merge = typical(name, models)
    ref, tensor = chance.choice(references(merge)), chance.choice(list(SHAPES))
    place = [chance.randrange(extent) for extent in SHAPES[tensor]]
    models[ref][tensor][tuple(place)] = BAD[what]
    says = f"{ref}: {tensor} {list(SHAPES[tensor])} holds {what} at {place}; .*--allow-nonfinite"
    with pytest.raises(InputError, match="^" + says.replace("[", r"\[").replace("]", r"\]") + "$"):
        merge.run(tile_elements=chance.choice([1 << 12, 1 << 16, WHOLE]), workers=chance.choice([1, 3]))


def test_the_first_one_of_a_tile_is_named() -> None:
    models = family({"matrix": (300, 100)}, (torch.bfloat16,) * 2)
    for row in (299, 211, 207):
        models["m0"]["matrix"][row, 31] = math.inf
    with pytest.raises(InputError, match=r"holds infinity at \[207, 31\]"):
        typical("task_arithmetic", models | {"m1": models["m0"], "m2": models["m0"]}).run(tile_elements=1 << 12)


def test_a_scalar_has_no_place_and_an_empty_tensor_nothing_to_hold() -> None:
    models = family({"scalar": (), "empty": (3, 0)}, (torch.float32,) * 2)
    merge = Merge("linear", models, [("base", {"weight": 1}), ("m0", {"weight": 1})])
    merge.run()
    models["m0"]["scalar"] = torch.tensor(math.nan)
    with pytest.raises(InputError, match=r"m0: scalar \[\] holds NaN at \[\];"):
        merge.run()


def test_large_numbers_are_not_infinity() -> None:
    for dtype in DTYPES:
        most = torch.full((5000,), torch.finfo(dtype).max, dtype=dtype)
        models = {"a": {"w": most, "v": -most}, "b": {"w": most.clone(), "v": -most}}
        merge = Merge("linear", models, [("a", {"weight": 0.5}), ("b", {"weight": 0.5})])
        assert digests(merge.run()) == digests(models["a"])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("elements", [1, 2, 7, 31, 33, 64, 129, 4097])
def test_one_is_seen_wherever_it_is(elements: int, dtype: torch.dtype) -> None:
    clean = torch.linspace(-1, 1, elements, dtype=torch.float64).to(dtype)
    assert all_finite(clean)
    for place in range(0, elements, max(elements // 61, 1)):
        for bad in BAD.values():
            x = clean.clone()
            x[place] = bad
            assert not all_finite(x)
            x[(place * 7) % elements] = -bad  # the sum of the two says nothing of infinity any more
            assert not all_finite(x)


# ------------------------------------------------------------------------------------------------ which pass looks


@pytest.mark.parametrize("name", methods())
def test_every_load_is_looked_into_in_one_pass_that_reads_all_of_it_or_told_by_the_output(name: str) -> None:
    plan = typical(name, family({"matrix": (1200, 900)}, (torch.bfloat16,) * 5)).plan()
    for program in plan.programs.values():
        passes = program.passes
        full = [
            load
            for index, each in enumerate(passes)
            if not (each.sampled or each.optional)
            for load in looked_into(passes, index)
        ]
        read = {load for each in passes[:-1] if not (each.sampled or each.optional) for load in each.loads}
        full += told_by_output(passes[-1]) - read
        assert sorted(map(id, program.program.loads)) == sorted(map(id, full))
        assert all(not told_by_output(each) for each in passes[:-1])
        assert looked_into(passes, 0) | told_by_output(passes[0]) == set(passes[0].loads)


def test_a_pass_that_reads_a_sample_looks_and_leaves_the_load_to_the_next() -> None:
    a, b, c = loads(3)
    sampled = {"sampled": True, "optional": False, "nodes": ()}
    optional = {"sampled": False, "optional": True, "nodes": ()}
    full = {"sampled": False, "optional": False, "nodes": ()}
    passes: Any = [
        SimpleNamespace(loads=(a, b), **sampled),
        SimpleNamespace(loads=(a,), **full),
        SimpleNamespace(loads=(b, c), **optional),
        SimpleNamespace(loads=(a, b, c), **full),
    ]
    assert [looked_into(passes, index) for index in range(4)] == [{a, b}, {a}, {b, c}, {b, c}]


def test_the_place_is_right_in_a_sample_too() -> None:
    models = family({"matrix": (1200, 900)}, (torch.bfloat16,) * 4)
    models["m1"]["matrix"][-300:] = math.nan
    with pytest.raises(InputError, match=r"^m1: matrix .* holds NaN at ") as caught:
        typical("ties", models).run()
    row, column = json.loads(str(caught.value).split(" at ")[1].split(";")[0])
    assert models["m1"]["matrix"][row, column].isnan()


# ------------------------------------------------------------------------------------------------ copies


def test_a_copy_is_a_copy() -> None:
    models = family(SHAPES, (torch.bfloat16,))
    models["base"]["counts"] = torch.arange(7)
    for tensor in SHAPES:
        spoil(models, "base", tensor, 1)
    merge = Merge("passthrough", models, [("base", {})])
    assert digests(merge.run()) == digests(models["base"])


# ------------------------------------------------------------------------------------------------ let through


@pytest.mark.parametrize("name", methods())
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_is_let_through_gives_the_same_bytes_for_all_tiles_and_workers(name: str, data: st.DataObject) -> None:
    dtypes = data.draw(st.sampled_from([(dtype,) * 5 for dtype in DTYPES] + [(DTYPES[0], *DTYPES)]))
    models = own_models(dtypes)
    merge = data.draw(merges(methods()[name], models, dtype=data.draw(st.sampled_from([None, "bfloat16", "float16"]))))
    ref = data.draw(st.sampled_from(references(merge)))
    for seed, tensor in enumerate(("matrix", "vector")):
        spoil(models, ref, tensor, seed)
    try:
        found: set[StoredTensor] = set()
        expected = digests(merge.run(tile_elements=WHOLE, let_through=found))
    except (InputError, RecipeError):
        assume(False)
    assert {(tensor.model, tensor.name) for tensor in found} <= {(ref, "matrix"), (ref, "vector")}
    for tile_elements, workers in ((1 << 12, 1), (5 << 12, 2), (1 << 16, 4)):
        again: set[StoredTensor] = set()
        assert digests(merge.run(tile_elements=tile_elements, workers=workers, let_through=again)) == expected
        assert again == found


@pytest.mark.parametrize("name", methods())
def test_every_method_gets_through_with_its_usual_settings(name: str) -> None:
    models = own_models((torch.bfloat16,) * 5)
    merge = typical(name, models)
    clean = merge.run()
    ref = references(merge)[-1]
    spoil(models, ref, "vector", 0)
    found: set[StoredTensor] = set()
    made = merge.run(let_through=found)
    assert {(tensor.model, tensor.name) for tensor in found} == {(ref, "vector")}
    assert not made["vector"].isfinite().all()
    assert all(made[tensor].equal(clean[tensor]) for tensor in SHAPES if tensor != "vector")


def test_a_sum_goes_on_as_ieee_says() -> None:
    models = {
        "a": {"w": torch.tensor([1.0, math.nan, math.inf, math.inf, -math.inf, 1e30])},
        "b": {"w": torch.tensor([2.0, 1.0, 1.0, -math.inf, -math.inf, 1e30])},
    }
    merge = Merge("linear", models, [("a", {"weight": 0.5}), ("b", {"weight": 0.5})])
    made = merge.run(let_through=set())["w"]
    expected = torch.tensor([1.5, math.nan, math.inf, math.nan, -math.inf, 1e30])
    assert made.equal(expected) or torch.equal(made.nan_to_num(7), expected.nan_to_num(7))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_there_is_one_nan(dtype: torch.dtype) -> None:
    bits = torch.randint(torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max, (40_000,)).view(dtype)
    before = bits.clone()
    canonical(bits)
    nan = before.isnan()
    assert bits[~nan].equal(before[~nan])
    assert bits[nan].numel() == 0 or len(bits[nan].view(INTEGERS[dtype.itemsize]).unique()) == 1
    assert bits[nan].isnan().all()


# ------------------------------------------------------------------------------------------------ folders


def on_disk(folder: Path, name: str) -> tuple[Merge, Path]:
    """Models of two tensors and a recipe that merges them with a method's usual settings."""
    models = family({"model.embed_tokens.weight": (40, 16), "lm_head.weight": (40, 16)}, (torch.bfloat16,) * 5)
    merge = typical(name, models)
    for ref in references(merge):
        save_model(folder / ref, models[ref], {"model_type": "llama"})
    (folder / "recipe.yml").write_text(merge.recipe_text)
    return merge, folder / "recipe.yml"


@pytest.mark.parametrize("name", methods())
def test_a_refused_input_costs_nothing_that_was_there(name: str, tmp_path: Path) -> None:
    from plait import plan

    merge, recipe = on_disk(tmp_path, name)
    plan(recipe).run(tmp_path / "old")
    before = file_bytes(tmp_path / "old")
    ref = references(merge)[-1]
    tensors = tensors_of(tmp_path / ref)
    tensors["lm_head.weight"][3, 5] = math.nan
    save_model(tmp_path / ref, tensors)
    says = re.escape(f"{ref}: lm_head.weight [40, 16] holds NaN at [3, 5]")
    with pytest.raises(InputError, match=says):
        plan(recipe).run(tmp_path / "old", overwrite=True)
    assert file_bytes(tmp_path / "old") == before
    with pytest.raises(InputError, match=says):
        plan(recipe).run(tmp_path / "new")
    # It says whose it is, and is no model.
    left = set(file_bytes(tmp_path / "new"))
    assert "plait.yml" in left
    assert not left & {"config.json", "model.safetensors", "model.safetensors.index.json", "plait-manifest.json"}


def test_the_command_line_refuses_and_lets_through(tmp_path: Path, say: Callable[..., Said]) -> None:
    recipe = yaml.safe_load((on_disk(tmp_path, "ties")[1]).read_text())
    refs = [entry["model"] for entry in recipe["models"]]
    for ref in refs[:2]:
        tensors = tensors_of(tmp_path / ref)
        tensors["lm_head.weight"][0, 0] = -math.inf
        save_model(tmp_path / ref, tensors)
    said = say("run", "recipe.yml", "out", "--workers", 1, cwd=tmp_path)
    assert said.code == 3
    last = said.err.splitlines()[-1]
    assert last.startswith(f"error: {refs[0]}: lm_head.weight [40, 16] holds -infinity at [0, 0]; ")
    assert "--allow-nonfinite" in last
    said = say("run", "recipe.yml", "out", "--overwrite", "--allow-nonfinite", "--json", cwd=tmp_path)
    assert said.code == 0
    warning = f"{refs[0]}: NaN or infinity let through in lm_head.weight"
    assert said.report["warnings"] == [warning, warning.replace(refs[0], refs[1])]
    assert warning in said.err.replace("\n", " ")
    manifest = json.loads((tmp_path / "out" / "plait-manifest.json").read_text())
    assert manifest["allow_nonfinite"] is True
    assert {entry["reference"]: entry["nonfinite"] for entry in manifest["inputs"] if entry["nonfinite"]} == {
        ref: ["lm_head.weight"] for ref in refs[:2]
    }
