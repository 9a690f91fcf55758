"""`plait diff` on folders: the figures are those of plain float64 numpy, and what cannot be compared is said."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import plait
import pytest
import torch
from checkpoints import Shape, write_family
from diff_support import Tensors, drawn, moved, named
from merge_support import peak_bytes, save_model
from merge_support import plait as in_a_process
from plain_distance import plain
from plait.engine.errors import InputError, PlanError, UsageError
from plait.engine.units import parse_size
from plait.reports.comparison import plan_diff

if TYPE_CHECKING:
    from pathlib import Path

    from plait.engine.progress import Progress
    from plait.reports.diff_report import DiffReport, Figures

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]


def diff_of(folder: Path, a: Tensors, b: Tensors, **configs: Any) -> DiffReport:
    save_model(folder / "a", a, configs.get("config_a", {}))
    save_model(folder / "b", b, configs.get("config_b", {}))
    return plait.diff(folder / "a", folder / "b", workers=2)


def check(figures: Figures, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Figures against those of the tensors, put together as if they were one."""
    of = [plain(x.reshape(-1), y.reshape(-1)) for x, y in pairs]
    total = {key: sum(each[key] for each in of) for key in of[0]}
    expected = {
        "elements": sum(x.numel() for x, _ in pairs),
        "changed": total["changed"],
        "changed_share": total["changed"] / sum(x.numel() for x, _ in pairs),
        "cosine": total["dot"] / math.sqrt(total["a_squared"] * total["b_squared"]),
        "relative_l2": math.sqrt(total["distance_squared"] / total["a_squared"]),
        "norm_a": math.sqrt(total["a_squared"]),
        "norm_b": math.sqrt(total["b_squared"]),
        "distance": math.sqrt(total["distance_squared"]),
        "largest_change": max(each["largest"] for each in of),
        "nonfinite_a": total["nonfinite_a"],
        "nonfinite_b": total["nonfinite_b"],
    }
    assert figures.as_json() == pytest.approx(expected, rel=1e-12)


# ------------------------------------------------------------------------------------------------ figures


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_figures_are_those_of_plain_float64(tmp_path: Path, dtype: torch.dtype) -> None:
    a = drawn(named(), dtype=dtype)
    b = moved(a)
    report = diff_of(tmp_path, a, b)
    assert {tensor.name for tensor in report.tensors} == set(a)
    for tensor in report.tensors:
        check(tensor.figures, [(a[tensor.name], b[tensor.name])])
    check(report.total, [(a[name], b[name]) for name in a])
    norms = [f"model.layers.{layer}.input_layernorm.weight" for layer in range(3)]
    check(report.kinds["model.layers", "input_layernorm"], [(a[name], b[name]) for name in norms])
    name = "model.layers.1.self_attn.q_proj.bias"
    check(report.cells["model.layers", 1, "self_attn.q_proj.bias"], [(a[name], b[name])])
    distances = [tensor.figures.relative_l2 for tensor in report.most_changed]
    assert distances == sorted(distances, key=lambda x: -(x or 0))


def test_identical_models_are_exactly_alike(tmp_path: Path) -> None:
    a = drawn(named(), dtype=torch.bfloat16)
    report = diff_of(tmp_path, a, a)
    for figures in (report.total, *(tensor.figures for tensor in report.tensors), *report.kinds.values()):
        assert (figures.cosine, figures.relative_l2, figures.changed_share) == (1.0, 0.0, 0.0)
    assert report.most_changed == ()


def test_zeros_have_no_cosine(tmp_path: Path) -> None:
    a, b = drawn({"same.weight": (4,), "grown.weight": (4,), "gone.weight": (4,), "moved.weight": (4,)}), {}
    a["same.weight"].zero_()
    a["grown.weight"].zero_()
    b = {name: x.clone() for name, x in a.items()}
    b["grown.weight"] += 1
    b["gone.weight"].zero_()
    b["moved.weight"] += 1
    of = {tensor.name: tensor.figures for tensor in diff_of(tmp_path, a, b).tensors}
    assert (of["same.weight"].cosine, of["same.weight"].relative_l2) == (None, 0.0)
    assert (of["grown.weight"].cosine, of["grown.weight"].relative_l2) == (None, math.inf)
    assert of["grown.weight"].as_json()["relative_l2"] is None
    assert (of["gone.weight"].cosine, of["gone.weight"].relative_l2) == (None, 1.0)
    assert of["moved.weight"].cosine is not None


def test_integers_are_counted(tmp_path: Path) -> None:
    a: Tensors = {"ids": torch.arange(10), "flags": torch.tensor([True, False]), "w": torch.ones(3)}
    b: Tensors = {"ids": torch.arange(10).clamp(max=6), "flags": torch.tensor([True, False]), "w": torch.ones(3)}
    report = diff_of(tmp_path, a, b)
    of = {tensor.name: tensor.figures for tensor in report.tensors}
    assert (of["ids"].changed_share, of["ids"].cosine, of["ids"].relative_l2) == (0.3, None, None)
    assert of["flags"].identical
    assert (report.total.changed, report.total.relative_l2) == (3, 0.0)


def test_nan_and_infinity_are_counted(tmp_path: Path) -> None:
    a = drawn(named(), dtype=torch.bfloat16)
    b = moved(a)
    a["model.norm.weight"][3] = float("nan")
    b["model.norm.weight"][4:6] = float("inf")
    b["lm_head.weight"][0, 0] = float("-inf")
    report = diff_of(tmp_path, a, b)
    assert (report.total.nonfinite_a, report.total.nonfinite_b) == (1, 3)
    for tensor in report.tensors:
        check(tensor.figures, [(a[tensor.name], b[tensor.name])])
    json.dumps(report.as_json(), allow_nan=False)


def test_figures_do_not_depend_on_tiles_and_workers(tmp_path: Path) -> None:
    shapes = named(2, vocabulary=1500, hidden=96)  # an embedding of three blocks
    a = drawn(shapes, dtype=torch.bfloat16)
    b = moved(a)
    b["model.embed_tokens.weight"][7, 7] = float("nan")
    for name, tensors in (("a", a), ("b", b)):
        save_model(tmp_path / name, tensors, {})
    said = set()
    for tile_elements in (1 << 12, 1 << 16, 1 << 17, 1 << 18, 1 << 19):
        for workers in (1, 2, 4):
            planned = plan_diff(tmp_path / "a", tmp_path / "b", workers=workers, tile_elements=tile_elements)
            assert planned.plan.workers == workers
            said.add(json.dumps(planned.run().as_json()))
    assert len(said) == 1


# ------------------------------------------------------------------------------------------------ what does not match


def test_what_only_one_model_has_is_listed(tmp_path: Path) -> None:
    a, b = drawn(named(4)), drawn(named(2))
    b["extra.weight"] = torch.ones(3)
    report = diff_of(tmp_path, a, b)
    assert set(report.only_a) == {name for name in a if ".layers.2." in name or ".layers.3." in name}
    assert report.only_b == ("extra.weight",)
    assert [(stack.prefix, stack.layers_a, stack.layers_b) for stack in report.stacks] == [("model.layers", 4, 2)]
    assert {layer for _, layer, _ in report.cells} == {0, 1}


def test_other_shapes_and_kinds_of_numbers_are_listed(tmp_path: Path) -> None:
    a = drawn(named())
    b = moved(a)
    b["model.norm.weight"] = torch.ones(25)
    b["model.layers.0.input_layernorm.weight"] = torch.ones(24, dtype=torch.int32)
    b["model.layers.1.mlp.up_proj.weight"] = b["model.layers.1.mlp.up_proj.weight"].half()
    report = diff_of(tmp_path, a, b)
    assert [(each.name, each.what, each.a, each.b) for each in report.unlike] == [
        ("model.layers.0.input_layernorm.weight", "dtype", "[24] float32", "[24] int32"),
        ("model.norm.weight", "shape", "[24] float32", "[25] float32"),
    ]
    halved = next(tensor for tensor in report.tensors if tensor.dtype_b == "float16")
    check(halved.figures, [(a[halved.name], b[halved.name])])
    assert "1 of the compared tensors has another dtype in B: their values are compared" in report.notes


def test_of_other_vocabularies_the_common_rows_are_compared(tmp_path: Path) -> None:
    a, b = drawn(named(vocabulary=50)), drawn(named(vocabulary=53), seed=1)
    report = diff_of(tmp_path, a, b)
    of = {tensor.name: tensor for tensor in report.tensors}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert (of[name].rows, of[name].shape) == ((50, 53), (50, 24))
        check(of[name].figures, [(a[name], b[name][:50])])
        assert f"{name} has 50 rows in A and 53 in B: the first 50 are compared" in report.notes
    assert report.unlike == ()


@pytest.mark.parametrize("tied", ["a", "b"])
def test_a_tied_head_is_its_embedding(tmp_path: Path, tied: str) -> None:
    models = {"a": drawn(named()), "b": drawn(named(), seed=1)}
    both = dict(models)
    models[tied] = {name: x for name, x in models[tied].items() if name != "lm_head.weight"}
    config = {f"config_{tied}": {"tie_word_embeddings": True, "architectures": ["LlamaForCausalLM"]}}
    report = diff_of(tmp_path, models["a"], models["b"], **config)
    both[tied]["lm_head.weight"] = both[tied]["model.embed_tokens.weight"]
    head = next(tensor for tensor in report.tensors if tensor.name == "lm_head.weight")
    check(head.figures, [(both["a"]["lm_head.weight"], both["b"]["lm_head.weight"])])
    assert f"lm_head.weight is model.embed_tokens.weight in {tied.upper()}, and compared as such" in report.notes
    assert (report.only_a, report.only_b) == ((), ())


def test_models_without_a_common_tensor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tensor that can be compared"):
        diff_of(tmp_path, {"x": torch.ones(3)}, {"y": torch.ones(3)})
    with pytest.raises(InputError, match=r"x: \[3\] float32 and \[4\] float32"):
        diff_of(tmp_path, {"x": torch.ones(3)}, {"x": torch.ones(4)})


def test_experts_of_a_layer_are_one_kind(tmp_path: Path) -> None:
    shapes = {f"model.layers.{i}.mlp.experts.{j}.up_proj.weight": (4, 4) for i in range(2) for j in range(5)}
    a = drawn(shapes)
    b = moved(a)
    report = diff_of(tmp_path, a, b)
    assert list(report.kinds) == [("model.layers", "mlp.experts.*.up_proj")]
    check(report.cells["model.layers", 1, "mlp.experts.*.up_proj"], [(a[x], b[x]) for x in a if ".layers.1." in x])


# ------------------------------------------------------------------------------------------------ memory, arguments


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a fine-tune of 75 MB each, half of it one tensor."""
    folder = tmp_path_factory.mktemp("family")
    write_family(folder, Shape(512, 2048, 4, 8, 4, 40000, tied=True), finetunes=1)
    return folder


@pytest.mark.parametrize("options", [("--memory", "300MiB", "--workers", "4"), ()])
def test_the_peak_is_what_was_promised(family: Path, options: tuple[str, ...]) -> None:
    finished = in_a_process("diff", "base", "ft1", *options, cwd=family, measured=True)
    assert finished.returncode == 0, finished.stderr
    said = next(line for line in finished.stdout.splitlines() if "predicted" in line)
    predicted_bytes = parse_size(said.rpartition(", ")[2].removesuffix(" predicted"))
    rounding_bytes = 1 << 20
    assert peak_bytes(finished) <= predicted_bytes + rounding_bytes
    assert predicted_bytes <= parse_size("300MiB") + rounding_bytes


def test_progress_is_of_what_is_read(family: Path) -> None:
    seen: list[Progress] = []
    report = plan_diff(family / "base", family / "ft1", workers=2).run(seen.append)
    assert {now.bytes_written for now in seen} == {0}
    assert (seen[-1].bytes_read, seen[-1].share) == (report.bytes_read, 1.0)
    assert seen[-1].bytes_total == seen[-1].bytes_read


def test_too_little_memory_is_refused_with_the_least(family: Path) -> None:
    with pytest.raises(PlanError, match="the least that works"):
        plait.diff(family / "base", family / "ft1", memory="20MiB")
    with pytest.raises(UsageError, match="at least one"):
        plait.diff(family / "base", family / "ft1", workers=0)
