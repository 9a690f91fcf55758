"""The same bytes for every tile size, number of workers and budget, for every method there is."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import plait.api
import pytest
import torch
import yaml
from checkpoints import Shape, write_family
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from plait.engine.errors import InputError, PlanError, RecipeError
from plait.engine.methoddef import methods
from support import PLENTY_BYTES, Merge, digests, family, merges, typical

if TYPE_CHECKING:
    from pathlib import Path

    from plait.engine.plan import Plan

SHAPES = {
    # Five blocks of a reduction, the last one short, and a little more than a sample; nine panels, the last one short.
    # Solvers that take a matrix as a whole go by its shorter side.
    "matrix": (131, 2087),
    "rows": (9001, 3),
    "vector": (4097,),
    "cube": (7, 13, 47),
    "single": (1,),
    "empty": (5, 0),
}
WHOLE = 1 << 19
TILE_ELEMENTS = (1 << 12, 5 << 12, 1 << 16, 1 << 17)
WORKERS = (2, 4)


@functools.cache
def models_of(dtypes: tuple[torch.dtype, ...]) -> dict[str, dict[str, torch.Tensor]]:
    """A base and models over SHAPES, with a tensor of counts."""
    return {ref: {**tensors, "counts": torch.arange(9000)} for ref, tensors in family(SHAPES, dtypes).items()}


def dtypes_of_stored() -> st.SearchStrategy[tuple[torch.dtype, ...]]:
    """Dtypes of a base and of four models."""
    bf16, f16, f32 = torch.bfloat16, torch.float16, torch.float32
    return st.sampled_from([(bf16,) * 5, (f16,) * 5, (f32,) * 5, (torch.float64,) * 5, (bf16, f32, bf16, f16, bf16)])


@pytest.mark.parametrize("name", methods())
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_bytes_do_not_depend_on_tiles_and_workers(name: str, data: st.DataObject) -> None:
    models = models_of(data.draw(dtypes_of_stored()))
    dtype = data.draw(st.sampled_from([None, "bfloat16", "float16", "float32"]))
    merge = data.draw(merges(methods()[name], models, dtype=dtype))
    try:
        expected = digests(merge.run(tile_elements=WHOLE))
    except (InputError, RecipeError):
        assume(False)
    for tile_elements in TILE_ELEMENTS:
        assert digests(merge.run(tile_elements=tile_elements)) == expected
    for workers in WORKERS:
        assert digests(merge.run(tile_elements=TILE_ELEMENTS[0], workers=workers)) == expected
        assert digests(merge.run(tile_elements=TILE_ELEMENTS[2], workers=workers)) == expected


def cuts(plan: Plan) -> set[tuple[str, int, int]]:
    """Which tensor has how many tiles, over all passes."""
    return {
        (island.name, index, each.tile_count(plan.programs[island.program].tile_elements(index)))
        for island in plan.graph.islands
        for index, each in enumerate(plan.programs[island.program].passes)
    }


def test_the_tile_sizes_of_these_tests_are_different_cuts() -> None:
    models = models_of((torch.bfloat16,) * 5)
    entries = [(ref, {"weight": 0.5, "density": 0.5}) for ref in ("m0", "m1")]
    plain = Merge("dare_ties", models, entries, "base")
    found = [cuts(plain.plan(tile_elements=tile_elements)) for tile_elements in (*TILE_ELEMENTS, WHOLE)]
    assert [max(tiles for name, _, tiles in each if name == "matrix") for each in found] == [67, 14, 5, 3, 1]
    reducing = Merge("dare_ties", models, entries, "base", {"rescale": "l1"})
    found = [cuts(reducing.plan(tile_elements=tile_elements)) for tile_elements in (*TILE_ELEMENTS, WHOLE)]
    assert [{tiles for name, index, tiles in each if (name, index) == ("matrix", 0)} for each in found] == [
        {5},
        {5},
        {5},
        {3},
        {1},
    ]


@pytest.mark.parametrize("name", methods())
def test_bytes_do_not_depend_on_the_budget(name: str) -> None:
    # In float64 the last bit of a sum shows in the output.
    merge = typical(name, models_of((torch.float64,) * 5))
    expected = digests(merge.run(tile_elements=WHOLE))
    plan = merge.plan(workers=4, budget_bytes=PLENTY_BYTES)
    plans = []
    try:
        # From one plan to the next that is smaller, down to the least.
        while True:
            plans.append(plan)
            plan = merge.plan(workers=4, budget_bytes=plan.predicted_peak_bytes - 1)
    except PlanError:
        pass
    assert {each.workers for each in plans} == {1, 2, 3, 4}
    for each in plans:
        assert digests(merge.carry_out(each)) == expected


@pytest.mark.parametrize("name", methods())
def test_two_runs_give_the_same_bytes(name: str) -> None:
    merge = typical(name, models_of((torch.float16,) * 5))
    assert digests(merge.run(workers=4, tile_elements=1 << 12)) == digests(merge.run(workers=4, tile_elements=1 << 12))


# ------------------------------------------------------------------------------------------------ from disk to disk

SHAPE = Shape(hidden=256, intermediate=688, layers=2, heads=4, kv_heads=2, vocabulary=1031)

RECIPES: dict[str, dict[str, Any]] = {
    "linear": {"merge_method": "linear", "models": [("ft1", {"weight": 0.3}), ("ft2", {"weight": 0.6})]},
    "dare_ties": {
        "merge_method": "dare_ties",
        "base_model": "./models/base",
        "models": [("ft1", {"weight": 0.7, "density": 0.53}), ("ft2", {"weight": 0.6, "density": [0.2, 0.8]})],
        "parameters": {"rescale": "l1", "normalize": True},
    },
}


def write_recipe(folder: Path, name: str) -> Path:
    """A recipe beside a folder called models, which it names in a way that no Hub id has."""
    models = [{"model": f"./models/{ref}", "parameters": own} for ref, own in RECIPES[name]["models"]]
    recipe = {**RECIPES[name], "models": models}
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models and recipes."""
    folder = tmp_path_factory.mktemp("house")
    write_family(folder / "models", SHAPE)
    for name in RECIPES:
        write_recipe(folder, name)
    return folder


def merged_by_api(recipe: Path, out: Path, **options: Any) -> dict[str, str]:
    """Sha256 of every file of a merge made in this process."""
    plait.api.plan(recipe, **options).run(out / "merged")
    return sums(out / "merged")


def merged_by_command(recipe: Path, out: Path, *options: str) -> dict[str, str]:
    """Sha256 of every file of a merge made by the command line."""
    command(recipe, out / "merged", "--quiet", *options)
    return sums(out / "merged")


def command(*arguments: str | Path) -> str:
    """Standard output of ``plait run``."""
    done = subprocess.run(
        [sys.executable, "-m", "plait", "run", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def sums(folder: Path) -> dict[str, str]:
    """Sha256 of every file but the manifest, which tells times and memory."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "plait-manifest.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_command_line_writes_the_same_bytes_in_any_memory(house: Path, tmp_path: Path) -> None:
    recipe = house / "dare_ties.yml"
    report = json.loads(command(recipe, "--dry-run", "--json", "--workers", "1"))
    least = f"{report['minimum_memory_bytes'] // (1 << 20)}MiB"
    expected = merged_by_api(recipe, tmp_path / "here", workers=2)
    assert {"model.safetensors", "config.json", "README.md", "plait.yml"} <= set(expected)
    for memory, workers in ((least, 1), ("1GiB", 4)):
        out = tmp_path / memory
        assert merged_by_command(recipe, out, "--memory", memory, "--workers", str(workers)) == expected


@pytest.mark.parametrize("name", RECIPES)
def test_a_merge_writes_the_same_bytes_with_any_workers_and_again(name: str, house: Path, tmp_path: Path) -> None:
    found = [
        merged_by_api(house / f"{name}.yml", tmp_path / f"{index}-{workers}", workers=workers)
        for index in range(2)
        for workers in (1, 2, 4)
    ]
    assert found == [found[0]] * len(found)


@pytest.mark.parametrize("name", RECIPES)
def test_a_merge_writes_the_same_bytes_wherever_its_models_lie(name: str, house: Path, tmp_path: Path) -> None:
    expected = merged_by_api(house / f"{name}.yml", tmp_path / "here")
    moved = tmp_path / "another" / "house"
    shutil.copytree(house, moved)
    assert merged_by_api(moved / f"{name}.yml", tmp_path / "there") == expected
    (moved / "models").rename(moved / "elsewhere")
    refs = ("base", "ft1", "ft2") if name == "dare_ties" else ("ft1", "ft2")
    maps = {f"./models/{ref}": str(moved / "elsewhere" / ref) for ref in refs}
    assert merged_by_api(moved / f"{name}.yml", tmp_path / "mapped", maps=maps) == expected


@pytest.mark.parametrize(("name", "changes"), [("linear", False), ("dare_ties", True)])
def test_a_seed_changes_what_is_random_and_nothing_else(name: str, changes: bool, house: Path, tmp_path: Path) -> None:
    weights = [
        merged_by_api(house / f"{name}.yml", tmp_path / f"seed-{seed}", seed=seed)["model.safetensors"]
        for seed in (0, 1, 2)
    ]
    default = merged_by_api(house / f"{name}.yml", tmp_path / "default")["model.safetensors"]
    assert default == weights[0]
    assert len(set(weights)) == (3 if changes else 1)
