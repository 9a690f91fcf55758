"""The comparison with mergekit, without mergekit: what it counts, what it accepts as a reason, and its z-scores."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import against_mergekit
import numpy as np
import pytest
import torch
from against_mergekit import Bench, compare, draw, markdown
from cases import DETERMINISTIC, RANDOMISED, Case
from checkpoints import Shape, write_family
from differences import compare_tensor, spacing
from mask_statistics import Draws, rank_chances, z_score
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SMALL = Shape(hidden=64, intermediate=96, layers=1, heads=2, kv_heads=1, vocabulary=64)
NAME = "model.layers.0.mlp.down_proj.weight"
TIES = Case("ties", (("ft1", {"weight": 0.61, "density": 0.5}), ("ft2", {"weight": 0.37, "density": 0.3})))


class FakeBench(Bench):
    """The other tool is Plait with a change to one tensor."""

    change: Callable[[torch.Tensor], None]

    def theirs(self, case: Case, dtype: str, seed: int = 0) -> Path:
        merged = self.plait(case, seed)
        other = shutil.move(merged, self._empty(dtype))
        self.plait(case, seed)
        tensors = load_file(other / "model.safetensors")
        self.change(tensors[NAME].view(-1))
        save_file(tensors, other / "model.safetensors")
        return other


@pytest.fixture
def bench(tmp_path: Path) -> FakeBench:
    write_family(tmp_path / "family", SMALL, finetunes=3)
    (tmp_path / "work").mkdir()
    made = FakeBench(tmp_path / "family", None, tmp_path / "work")  # type: ignore[arg-type]
    object.__setattr__(made, "change", lambda tensor: None)
    return made


def changed(bench: FakeBench, change: Callable[[torch.Tensor], None]) -> FakeBench:
    object.__setattr__(bench, "change", change)
    return bench


# ------------------------------------------------------------------------------------------------ differences


def test_equal_outputs_do_not_differ(bench: FakeBench) -> None:
    found = compare(TIES, bench)
    assert (found.largest, found.far, found.beyond, found.unexplained) == (0.0, 0, 0, 0)
    assert found.elements == sum(
        tensor.numel() for tensor in load_file(bench.work / "plait/model.safetensors").values()
    )


@pytest.mark.parametrize("case", [TIES, DETERMINISTIC[3], Case("sce", TIES.models)], ids=lambda case: case.method)
def test_a_wrong_element_has_no_explanation(bench: FakeBench, case: Case) -> None:
    if case.method not in against_mergekit.methods():
        pytest.skip("no such method")
    found = compare(case, changed(bench, lambda tensor: tensor[7].add_(1e-4)))
    assert (found.beyond, found.unexplained, found.far) == (1, 1, 1)
    assert found.largest == pytest.approx(1e-4, rel=1e-3)
    assert found.mean == pytest.approx(1e-4 / found.elements, rel=1e-3)


def test_a_number_that_is_none_has_no_explanation(bench: FakeBench) -> None:
    assert compare(TIES, changed(bench, lambda tensor: tensor[7].fill_(float("nan")))).unexplained == 1


def test_another_choice_among_ties_is_explained(bench: FakeBench) -> None:
    # The last of those at the threshold instead of the first, as an unstable sort might do.
    base, first, second = (
        load_file(bench.family / name / "model.safetensors")[NAME] for name in ("base", "ft1", "ft2")
    )

    def merge(*, last: bool) -> torch.Tensor:
        total, weights = torch.zeros(2, base.numel(), dtype=torch.float64)
        parts = []
        for model, weight, density in ((first, 0.61, 0.5), (second, 0.37, 0.3)):
            delta = (model.double() - base.double()).view(-1)
            size = delta.abs().flip(0) if last else delta.abs()
            order = size.sort(descending=True, stable=True).indices[: int(density * size.numel())]
            kept = torch.zeros_like(delta)
            kept[size.numel() - 1 - order if last else order] = 1
            parts.append((weight, weight * kept * delta))
        sign = torch.where(sum(part for _, part in parts) >= 0, 1.0, -1.0)
        for weight, part in parts:
            total += part * (part.sign() == sign)
            weights += weight * (part.sign() == sign)
        return (base.double().view(-1) + total / weights.where(weights != 0, 1.0)).float()

    ours = load_file(bench.plait(TIES) / "model.safetensors")[NAME].view(-1)
    assert (ours - merge(last=False)).abs().max() < 1e-8
    found = compare(TIES, changed(bench, lambda tensor: tensor.copy_(merge(last=True))))
    assert found.beyond > 10
    assert found.causes == {"ties": found.beyond}
    # A tied element is no licence: its value has to be the formula's.
    wrong = compare(TIES, changed(bench, lambda tensor: tensor.copy_(merge(last=True)).add_(1e-4)))
    assert wrong.unexplained == base.numel()


def test_differences_are_counted_against_the_change_and_in_ulps() -> None:
    base = torch.zeros(4)
    ours = torch.tensor([1.0, 1.0, -1.0, 1.0])
    theirs = ours + torch.tensor([0.0, 2.0**-23, 2.0**-13, 2.0**-19])
    found, beyond = compare_tensor(ours, theirs, base, [ours])
    assert found.elements == 4
    assert found.largest == 2.0**-13
    assert found.total == 2.0**-23 + 2.0**-13 + 2.0**-19
    assert found.far == 1  # 1e-5 of a mean change of one
    assert found.largest_ulps == 2.0**10
    assert beyond.tolist() == [2, 3]


def test_without_a_base_the_change_is_from_the_mean() -> None:
    models = [torch.full((8,), 1.0), torch.full((8,), 2.0)]
    ours = torch.full((8,), 1.75)
    theirs = ours + 2.0**-18  # 3.8e-6; a quarter's share is 2.5e-6
    assert compare_tensor(ours, theirs, None, models)[0].far == 8


def test_spacing_is_that_of_float32() -> None:
    x = torch.tensor([1.0, 1.5, 2.0, -0.02, 3e-39, 0.0])
    expected = np.spacing(np.abs(x.numpy()))
    expected[4:] = np.finfo(np.float32).smallest_subnormal
    assert spacing(x.double()).tolist() == pytest.approx(expected.tolist(), rel=0)


# ------------------------------------------------------------------------------------------------ random masks

WEIGHTS = ({"weight": 0.6, "density": 0.55}, {"weight": 0.35, "density": 0.4})
TWO = tuple((f"ft{n + 1}", {**given, "epsilon": 0.1}) for n, given in enumerate(WEIGHTS))


def one_merge(
    case: Case, base: np.ndarray, models: list[np.ndarray], rng: np.random.Generator, *, l1: bool, bias: float
) -> np.ndarray:
    """One draw, written out for two models."""
    parts, weights = [], case.per_model("weight", 1.0)
    for model, weight, density in zip(models, weights, case.per_model("density", 1.0), strict=True):
        delta = model - base
        chance = rank_chances(delta, density, 0.1) if case.method.startswith("della") else density
        kept = delta * (rng.random(delta.shape) < chance + bias)
        parts.append(weight * kept * (np.abs(delta).sum() / np.abs(kept).sum() if l1 else 1 / density))
    total = sum(parts)
    if case.method in ("dare_linear", "della_linear"):
        return base + total
    agree = [np.sign(part) == np.where(total >= 0, 1, -1) for part in parts]
    merged = sum(part * same for part, same in zip(parts, agree, strict=True))
    if case.method == "della":
        divisor = sum(weight * same for weight, same in zip(weights, agree, strict=True))
        merged = merged / np.where(divisor == 0, 1, divisor)
    return base + merged


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della_linear", "della"])
def test_z_scores_of_honest_draws_are_of_size_one(method: str) -> None:
    case = Case(method, TWO)
    rng = np.random.default_rng(3)
    base = rng.normal(0, 0.02, (32, 128))
    models = [base + rng.normal(shift, 0.002, base.shape) for shift in (0.0005, -0.0002)]
    ours_l1 = method.startswith("della")
    scores: dict[str, list[float]] = {}
    for _ in range(100):
        draws = Draws(case, {"plait": ours_l1, "mergekit": True})
        outputs = {tool: one_merge(case, base, models, rng, l1=l1, bias=0.0) for tool, l1 in draws.l1.items()}
        draws.add(base, models, outputs)
        for statistic, values in draws.scores().items():
            for side, z in values.items():
                scores.setdefault(f"{statistic} {side}", []).append(z)
    # The spread of a hundred is known to 7 %.
    for what, found in scores.items():
        assert 0.75 < np.std(found) < 1.25, what
        assert abs(np.mean(found)) < 0.45, what


@pytest.mark.parametrize("method", ["dare_ties", "della_linear"])
def test_masks_that_keep_too_much_show(method: str) -> None:
    rng = np.random.default_rng(4)
    base = rng.normal(0, 0.02, (128, 512))
    models = [base + rng.normal(0, 0.002, base.shape) for _ in range(2)]
    draws = Draws(Case(method, TWO), {"plait": True, "mergekit": True})
    outputs = {
        tool: one_merge(draws.case, base, models, rng, l1=True, bias=bias)
        for tool, bias in (("plait", 0.02), ("mergekit", 0.0))
    }
    draws.add(base, models, outputs)
    scores = draws.scores()["share"]
    assert scores["plait"] > 5
    assert abs(scores["mergekit"]) < 5
    assert scores["both"] > 5


def test_della_keeps_large_changes_more_often() -> None:
    chances = rank_chances(np.array([[3.0, -1.0, 2.0], [0.0, 5.0, -4.0]]), 0.5, 0.2)
    assert chances == pytest.approx(np.array([[0.7, 0.3, 0.5], [0.3, 0.7, 0.5]]))


def test_plait_draws_what_is_expected(bench: FakeBench) -> None:
    scores = draw(RANDOMISED[1], bench, seed=5)
    assert all(abs(z) < 5 for values in scores.values() for z in values.values())
    # Equal seeds, equal masks.
    assert [values["both"] for values in scores.values()] == [0, 0, 0]


def test_a_z_score_is_in_standard_errors() -> None:
    assert z_score(3.0, 1.0, 0.75, 0.25) == 2.0
    assert z_score(1.0, 1.0) == 0.0
    assert z_score(1.0, 2.0) == float("-inf")


# ------------------------------------------------------------------------------------------------ cases


def test_every_case_makes_a_recipe_of_its_own(tmp_path: Path) -> None:
    recipes = [case.recipe(tmp_path, "float32") for case in (*DETERMINISTIC, *RANDOMISED)]
    assert len(set(recipes)) == len(recipes)
    assert len({(case.method, case.label) for case in (*DETERMINISTIC, *RANDOMISED)}) == len(recipes)
    recipe = json.loads(TIES.recipe(tmp_path, "float64"))
    assert recipe["base_model"] == str(tmp_path / "base")
    assert recipe["models"][0] == {"model": str(tmp_path / "ft1"), "parameters": {"weight": 0.61, "density": 0.5}}
    assert recipe["dtype"] == "float64"


def test_a_markdown_table_has_a_line_a_row() -> None:
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
