"""`plait report` on finished runs: every figure is that of whole tensors, for any tiles, workers and budget."""

from __future__ import annotations

import json
from itertools import combinations
from typing import TYPE_CHECKING, Any

import plain_task_vectors
import plait
import pytest
import torch
from checkpoints import Shape, write_family
from merge_support import peak_bytes, save_model, tensors_of, write_recipe
from merge_support import plait as in_a_process
from plait.engine import host
from plait.engine.errors import PlanError, UsageError
from plait.engine.units import parse_size
from plait.reports.reporting import plan_report
from report_support import (
    DARE_TIES,
    LINEAR,
    SLERP,
    STACKED,
    STACKED_FROM,
    by_kind,
    check_figures,
    deltas,
    make_run,
    sizes_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from plait.reports.run_report import Measured

RECIPES = {"dare_ties": DARE_TIES, "linear": LINEAR, "slerp": SLERP, "stacked": STACKED}
MODELS = ("family/base", "family/ft1", "family/ft2", "family/ft3")

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family and a finished run for each recipe."""
    folder = tmp_path_factory.mktemp("house")
    for name, recipe in RECIPES.items():
        make_run(folder, recipe, name)
    return folder


@pytest.fixture(scope="module")
def tensors(house: Path) -> dict[str, Tensors]:
    """Every tensor of models and results."""
    return {name: tensors_of(house / name) for name in (*MODELS, *RECIPES)}


def measured(house: Path, name: str, **options: Any) -> Measured:
    found = plait.report(house / name, **options)
    assert found.measured is not None
    return found.measured


# ------------------------------------------------------------------------------------------------ figures


@pytest.mark.parametrize("name", ["dare_ties", "linear", "slerp"])
def test_distances_are_those_of_whole_tensors(name: str, house: Path, tensors: dict[str, Tensors]) -> None:
    found = measured(house, name)
    inputs = [model for model in MODELS if model in RECIPES[name]]
    assert {each.reference for each in found.movements} == set(inputs)
    for movement in found.movements:
        a, b = tensors[movement.reference], tensors[name]
        assert movement.tensors == len(b)
        check_figures(movement.total, [(a[each], b[each]) for each in b])
        for key, names in by_kind(b).items():
            check_figures(movement.kinds[key], [(a[each], b[each]) for each in names])
        assert len(movement.cells) == sum(each.startswith("model.layers.") for each in b)
        for (stack, layer, kind), figures in movement.cells.items():
            each = f"{stack}.{layer}.{kind}.weight"
            check_figures(figures, [(a[each], b[each])])
        distances = [tensor.figures.relative_l2 or 0 for tensor in movement.farthest]
        assert distances == sorted(distances, reverse=True)
        assert len(distances) == 25


def test_stacked_layers_are_compared_with_the_ones_they_came_from(house: Path, tensors: dict[str, Tensors]) -> None:
    found = measured(house, "stacked")
    b = tensors["stacked"]
    of = {movement.reference: movement for movement in found.movements}
    for layer, (model, source) in enumerate(STACKED_FROM):
        for kind in ("self_attn.o_proj", "mlp.up_proj", "input_layernorm"):
            a = tensors[model][f"model.layers.{source}.{kind}.weight"]
            figures = of[model].cells["model.layers", layer, kind]
            check_figures(figures, [(a, b[f"model.layers.{layer}.{kind}.weight"])])
            scaled = kind == "self_attn.o_proj" and layer > 4
            assert figures.relative_l2 == (1.0 if scaled else 0.0)
    assert {layer for _, layer, _ in of["family/ft1"].cells} == {0, 1, 2}
    assert {layer for _, layer, _ in of["family/ft2"].cells} == {3, 4, 5, 6, 7}


def test_task_vectors_are_counted_to_the_base(house: Path, tensors: dict[str, Tensors]) -> None:
    found = measured(house, "dare_ties")
    assert found.relative_to == "family/base"
    base = tensors["family/base"]
    assert [each.reference for each in found.task_vectors] == list(MODELS[1:])
    for vector in found.task_vectors:
        for key, names in by_kind(base).items():
            parts = [deltas(tensors[vector.reference][each], base[each]) for each in names]
            assert vector.kinds[key].as_json() == sizes_of(parts) | {"elements": sum(map(len, parts))}
        assert vector.total.elements == sum(each.numel() for each in base.values())
        values = torch.cat([torch.from_numpy(deltas(tensors[vector.reference][each], base[each])) for each in base])
        median = values[values != 0].abs().median().item()
        assert vector.total.below(0.5) == pytest.approx(median, rel=0.3)  # it is told to about an octave
    assert [(each.a, each.b) for each in found.agreements] == list(combinations(MODELS[1:], 2))
    for agreement in found.agreements:
        for key, names in by_kind(base).items():
            models = tensors[agreement.a], tensors[agreement.b]
            pairs = [[deltas(model[each], base[each]) for model in models] for each in names]
            counts = [plain_task_vectors.signs(pair)[0] for pair in pairs]
            signs = agreement.kinds[key]
            assert (signs.both, signs.same) == (sum(both for both, _ in counts), sum(same for _, same in counts))


def test_without_a_base_differences_are_to_the_result(house: Path, tensors: dict[str, Tensors]) -> None:
    found = measured(house, "linear")
    assert found.relative_to is None
    assert found.agreements == ()
    for vector in found.task_vectors:
        a, b = tensors[vector.reference], tensors["linear"]
        for key, names in by_kind(b).items():
            expected = sizes_of(deltas(a[each], b[each]) for each in names)
            assert vector.kinds[key].as_json() == expected | {"elements": sum(b[each].numel() for each in names)}


def test_one_task_vector_agrees_with_nothing(house: Path) -> None:
    found = measured(house, "slerp")
    assert found.relative_to == "family/base"
    assert [each.reference for each in found.task_vectors] == ["family/ft1"]
    assert found.agreements == ()


def test_what_has_no_numbers_is_only_counted(tmp_path: Path) -> None:
    for name, low in (("a", 0), ("b", 3)):
        floats = {f"model.layers.{layer}.w.weight": torch.randn(4, 5) for layer in range(2)}
        save_model(tmp_path / name, {**floats, "ids": torch.arange(low, low + 10)})
    recipe = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
    plait.plan(write_recipe(tmp_path / "recipe.yml", recipe)).run(tmp_path / "out")
    found = measured(tmp_path, "out")
    a, b = (movement.kinds[None, "ids"] for movement in found.movements)
    assert (a.identical, b.changed, b.relative_l2) == (True, 10, None)
    assert all((None, "ids") not in vector.kinds for vector in found.task_vectors)


# ------------------------------------------------------------------------------------------------ tiles, memory


def test_figures_do_not_depend_on_tiles_and_workers(tmp_path: Path) -> None:
    # An embedding of three blocks.
    write_family(tmp_path / "family", Shape(96, 176, 2, 4, 2, 1500), finetunes=3)
    out = make_run(tmp_path)
    said = set()
    for tile_elements in (1 << 12, 1 << 16, 1 << 19):
        for workers in (1, 3):
            planned = plan_report(out, workers=workers, tile_elements=tile_elements)
            assert planned.reading is not None
            assert planned.reading.plan.workers == workers
            said.add(json.dumps(planned.run().as_json()))
    assert len(said) == 1
    bound_bytes = host.peak_resident_bytes() + (150 << 20)  # a process that has run other tests may hold a lot
    assert json.dumps(plait.report(out, memory=bound_bytes, workers=2).as_json()) in said


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of models of 40 MB each, half of it one tensor."""
    folder = tmp_path_factory.mktemp("large")
    write_family(folder / "family", Shape(512, 2048, 2, 8, 4, 24000, tied=True), finetunes=2)
    make_run(folder, DARE_TIES.replace("      - {model: family/ft3, parameters: {weight: 0.4, density: 0.5}}\n", ""))
    return folder


@pytest.mark.parametrize("options", [("--memory", "300MiB", "--workers", "4"), ()])
def test_the_peak_is_what_was_promised(large: Path, options: tuple[str, ...]) -> None:
    page = ("--html", large / "page.html")
    finished = in_a_process("report", "out", "-v", *page, *options, cwd=large, measured=True)
    assert finished.returncode == 0, finished.stderr
    said = next(line for line in finished.stdout.splitlines() if "this report" in line)
    predicted_bytes = parse_size(said.rpartition(", ")[2].removesuffix(" predicted"))
    rounding_bytes = 1 << 20
    assert peak_bytes(finished) <= predicted_bytes + rounding_bytes
    assert predicted_bytes <= parse_size("300MiB") + rounding_bytes


def test_too_little_memory_is_refused_with_the_least(house: Path) -> None:
    with pytest.raises(PlanError, match="the least that works"):
        plait.report(house / "dare_ties", memory="20MiB")
    with pytest.raises(UsageError, match="at least one"):
        plait.report(house / "dare_ties", workers=0)
