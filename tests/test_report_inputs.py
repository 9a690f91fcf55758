"""`plait report` where something is not as it was: inputs moved, gone or changed, folders of others, old manifests."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import plait
import pytest
import torch
from merge_support import save_model, tensors_of, write_recipe
from plait.engine.errors import InputError, UsageError
from plait.reports.reporting import moved_inputs
from plait.views.report import page as lines_of
from plait.views.report_page import page as page_of
from report_support import DARE_TIES, MANIFEST, edit_manifest, make_run
from resume_support import interrupt, merge, write_inputs
from tokenizer_support import byte_level

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_support import Said
    from plait.reports.run_report import RunReport


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished run beside its inputs."""
    return make_run(tmp_path)


def told(report: RunReport) -> str:
    """All that is shown, on a screen of 80 columns and piped; the page is made, too."""
    assert "</html>" in list(page_of(report))[-1]
    json.dumps(report.as_json(), allow_nan=False)
    # A path may be wider: a word is never broken.
    narrow = [line for line in lines_of(report, 80, verbose=True) if max(map(len, line.plain.split()), default=0) < 60]
    assert max(line.cell_len for line in narrow) <= 80
    return "\n".join(line.plain for line in lines_of(report, None, verbose=True))


# ------------------------------------------------------------------------------------------------ inputs


def test_inputs_are_found_from_the_folder_around_the_output(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert plait.report(out).measured is not None


def test_inputs_that_would_not_be_found_are_those_a_report_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    near = make_run(tmp_path)
    merge = plait.plan(tmp_path / "out.yml")
    assert moved_inputs(near, merge.folders) == {}
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    far = tmp_path / "a" / "b" / "out"
    merge.run(far)
    assert moved_inputs(far, merge.folders) == merge.folders
    assert plait.report(far, maps=moved_inputs(far, merge.folders)).measured is not None


def test_moved_inputs_are_mapped(out: Path, tmp_path: Path) -> None:
    before = plait.report(out)
    (tmp_path / "family").rename(tmp_path / "moved")
    maps = {f"family/{name}": str(tmp_path / "moved" / name) for name in ("base", "ft1", "ft2", "ft3")}
    after = plait.report(out, maps=maps)
    assert after.as_json() == before.as_json()
    with pytest.raises(UsageError, match="had no such input; it had family/base"):
        plait.report(out, maps={"family/bse": "x"})
    with pytest.raises(InputError, match="does not exist"):
        plait.report(out, maps={**maps, "family/ft1": "nowhere"})


@pytest.mark.parametrize("gone", ["folder", "weights"])
def test_what_needs_no_inputs_is_told_when_they_are_gone(
    gone: str, out: Path, tmp_path: Path, say: Callable[..., Said]
) -> None:
    if gone == "folder":
        shutil.rmtree(tmp_path / "family" / "ft2")
    else:
        for file in (tmp_path / "family" / "ft2").glob("*.safetensors*"):
            file.unlink()
    found = plait.report(out)
    assert (found.measured, found.merge) == (None, None)
    said = told(found)
    assert "not there any more: family/ft2" in said
    assert "--map family/ft2=PATH" in said
    assert "dare_ties" in said
    assert "peak memory" in said
    assert "memory " in said
    finished = say("report", out, "--html", tmp_path / "page.html", cwd=tmp_path)
    assert finished.code == 0, finished.err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "not there any more: family/ft2" in page
    assert "merge_method: dare_ties" in page


def test_an_input_that_is_another_one_now_is_an_error(out: Path, tmp_path: Path, say: Callable[..., Said]) -> None:
    folder = tmp_path / "family" / "ft1"
    tensors = tensors_of(folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    save_model(folder, tensors)
    finished = say("report", out, cwd=tmp_path)
    assert finished.code == 3
    assert "family/ft1" in finished.err
    assert "--headers-only" in finished.err
    assert "Traceback" not in finished.err
    found = plait.report(out, headers_only=True)
    assert found.merge is None
    assert "has other files than what was merged" in told(found)


def test_a_header_that_changed_is_noticed(out: Path, tmp_path: Path) -> None:
    file = sorted((tmp_path / "family" / "base").glob("*.safetensors"))[0]
    data = bytearray(file.read_bytes())
    at = data.index(b'"F32"') if b'"F32"' in data else data.index(b'"BF16"')
    data[at : at + 6] = b'"F16" '  # the same size, and other numbers
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"family/base: .*is not what was merged: its header differs"):
        plait.report(out)


def test_a_result_that_changed_is_an_error_and_one_that_is_gone_a_note(out: Path) -> None:
    shard = sorted(out.glob("*.safetensors"))[0]
    data = shard.read_bytes()
    shard.write_bytes(data + b"\0")
    with pytest.raises(InputError):
        plait.report(out)
    shard.unlink()
    found = plait.report(out)
    assert found.merge is not None
    assert "the result's own tensors are not there any more" in told(found)


def test_headers_only_reads_no_tensor(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait.loaders.positioned_io.FilePool.read_into", None)
    found = plait.report(out, headers_only=True)
    assert found.measured is None
    assert found.merge is not None
    assert "no tensor was read" in told(found)


# ------------------------------------------------------------------------------------------------ folders


def test_other_folders_are_refused(out: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no plait-manifest\.json.*plait diff INPUT"):
        plait.report(tmp_path / "family" / "base")
    with pytest.raises(InputError, match="does not exist"):
        plait.report(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a file"):
        plait.report(out / MANIFEST)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds", "long"),
        ("seconds", -1.0),
        ("bytes_read", 10**40),
        ("samples", {"seconds": [0.0, 1.0], "bytes_read": [0]}),
        ("samples", {"seconds": [True]}),
        ("warnings", [1]),
        ("overflows", {"a": "many"}),
        ("inputs", [{"reference": "a", "files": [{"name": "../a"}]}]),
        ("shards", None),
    ],
)
def test_a_damaged_manifest_is_an_error(out: Path, field: str, value: Any) -> None:
    edit_manifest(out, **{field: value})
    with pytest.raises(InputError, match=MANIFEST.replace(".", r"\.")):
        plait.report(out)


def test_what_older_versions_did_not_record_is_left_out(out: Path) -> None:
    new = ("workers", "tensors", "passes", "bytes_read", "bytes_written", "resumed", "warnings", "samples")
    edit_manifest(out, **dict.fromkeys((*new, "predicted_seconds")))
    found = plait.report(out)
    assert found.measured is not None
    said = told(found)
    assert "not recorded" in said
    assert "while it ran" not in said


def test_another_recipe_in_the_folder_is_not_taken_for_the_one_that_was_run(out: Path) -> None:
    (out / "plait.yml").write_text(DARE_TIES.replace("0.5", "0.6"))
    found = plait.report(out)
    assert (found.recipe, found.merge, found.measured) == (None, None, None)
    assert "is not the recipe of this run any more" in told(found)


# ------------------------------------------------------------------------------------------------ what came up


@pytest.mark.usefixtures("quick_batches")
def test_an_interrupted_run_is_refused_and_a_resumed_one_says_so(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    interrupt(tmp_path, 150, workers=1)
    with pytest.raises(InputError, match="interrupted run, so there is nothing to report yet"):
        plait.report(tmp_path / "out")
    merge(tmp_path, resume=True)
    found = plait.report(tmp_path / "out")
    assert found.measured is not None
    assert "the run was interrupted and went on" in told(found)


def test_overflows_and_nonfinite_inputs_are_shown(tmp_path: Path) -> None:
    x = torch.full((40, 50), 60_000.0)
    y = x.clone()
    y[3, 4] = float("nan")
    save_model(tmp_path / "a", {"weight": x})
    save_model(tmp_path / "b", {"weight": y})
    recipe = "merge_method: linear\nmodels: [{model: a}, {model: b}]\n"
    recipe += "parameters: {weight: 1, normalize: false}\ndtype: float16\n"
    planned = plait.plan(write_recipe(tmp_path / "recipe.yml", recipe))
    planned.run(tmp_path / "out", allow_nonfinite=True)
    found = plait.report(tmp_path / "out")
    said = told(found)
    assert "weight: 1 999 elements are too large for float16 and became infinity" in said
    assert "b: NaN or infinity let through in weight" in said
    assert found.measured is not None
    assert [(each.total.nonfinite_a, each.total.nonfinite_b) for each in found.measured.movements] == [
        (0, 2000),
        (1, 2000),
    ]
    edit_manifest(tmp_path / "out", warnings=None)  # as an older version left it
    assert "weight: 1 999 elements became infinity" in told(plait.report(tmp_path / "out"))


def test_what_has_other_rows_in_the_result_is_left_out_and_said(tmp_path: Path) -> None:
    for name, tokenizer in (("a", byte_level(300)), ("b", byte_level(310, special=("<|end|>", "<|tool|>")))):
        rows = tokenizer.get_vocab_size()
        layers = {f"model.layers.{layer}.mlp.up_proj.weight": torch.randn(8, 8) for layer in range(2)}
        vocabulary = {each: torch.randn(rows, 8) for each in ("model.embed_tokens.weight", "lm_head.weight")}
        save_model(tmp_path / name, {**layers, **vocabulary}, {"vocab_size": rows})
        tokenizer.save(str(tmp_path / name / "tokenizer.json"))
    recipe = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
    recipe += "tokenizer: {source: union}\ndtype: bfloat16\n"
    plait.plan(write_recipe(tmp_path / "recipe.yml", recipe)).run(tmp_path / "out")
    found = plait.report(tmp_path / "out")
    assert found.measured is not None
    assert {each.name for each in found.measured.left_out} == {"model.embed_tokens.weight", "lm_head.weight"}
    assert "lm_head.weight is not compared with a, b: its rows were put in another order" in told(found)
    assert [movement.tensors for movement in found.measured.movements] == [2, 2]
