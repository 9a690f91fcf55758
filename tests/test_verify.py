"""A finished folder is verified: a healthy one passes, and whatever is broken in it is found and named."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import plait
import pytest
import torch
from checkpoints import write_family
from merge_support import write_recipe
from plait.engine.errors import InputError
from safetensors.torch import load_file
from verify_support import DOWN, SHARD, edit, found, make_merge, overwrite, rewrite, warned, write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A verified merge; nobody writes to it."""
    return make_merge(tmp_path_factory.mktemp("verified"))


@pytest.fixture
def out(merged: Path, tmp_path: Path) -> Path:
    """A copy of the merge to break."""
    shutil.copytree(merged, tmp_path / "out")
    return tmp_path / "out"


# ------------------------------------------------------------------------------------------------ healthy


def test_a_healthy_folder_passes_in_full(merged: Path) -> None:
    report = plait.verify(merged, hash=True)
    assert report.ok
    assert (report.problems, report.warnings, report.has_manifest) == (0, 0, True)
    assert {check.name: check.state for check in report.checks} == dict.fromkeys(
        ("manifest", "shards", "inputs", "config", "tokenizer", "values", "contents"), "fine"
    )
    assert report.tensors == 39
    assert report.bytes_read == sum(path.stat().st_size for path in merged.glob("*.safetensors"))


def test_every_file_that_a_merge_writes_is_of_use(merged: Path, tmp_path: Path) -> None:
    # Taking away any of them is found, but for the card, which is there to be edited.
    unseen = []
    for path in sorted(merged.iterdir()):
        copy = tmp_path / path.name
        shutil.copytree(merged, copy)
        (copy / path.name).unlink()
        try:
            problems = found(copy)
            unseen += [path.name] if not any(path.name in text for texts in problems.values() for text in texts) else []
        finally:
            shutil.rmtree(copy)
    assert unseen == ["README.md", "plait-manifest.json"]


def test_a_folder_of_another_tool_is_checked_against_itself(merged: Path) -> None:
    family = merged.parent / "family" / "base"
    report = plait.verify(family)
    states = {check.name: check.state for check in report.checks}
    assert report.ok
    assert not report.has_manifest
    assert (states["manifest"], states["inputs"], states["values"]) == ("skipped", "skipped", "fine")


# ------------------------------------------------------------------------------------------------ bytes


def test_a_flipped_bit_is_found_by_its_digest_only(out: Path) -> None:
    name = overwrite(out, DOWN, 7, b"\x12")
    assert found(out) == {}
    problems = found(out, digests=True)
    assert list(problems) == ["contents"]
    assert [text.split(":")[0] for text in problems["contents"]] == [name]


def test_nan_and_infinity_are_named_with_the_first_place(out: Path) -> None:
    overwrite(out, DOWN, 3 * 176 + 5, b"\xc0\x7f")  # [64, 176]
    overwrite(out, DOWN, 60 * 176, b"\xc0\x7f")
    overwrite(out, "model.norm.weight", 63, b"\x80\xff")
    problems = found(out)
    assert sorted(problems["values"]) == [
        f"{DOWN}: [64, 176] holds NaN at [3, 5], 2 NaN or infinite in all",
        "model.norm.weight: [64] holds -infinity at [63]",
    ]


def test_a_cut_file_is_found(out: Path) -> None:
    path = out / SHARD.format(2)
    path.write_bytes(path.read_bytes()[:-1000])
    problems = found(out, digests=True)
    assert [text.split(":")[0] for check in ("manifest", "shards") for text in problems[check]] == [path.name] * 2


def test_a_changed_header_is_found(out: Path) -> None:
    path = out / SHARD.format(1)
    path.write_bytes(path.read_bytes().replace(b'"shape":[64,176]', b'"shape":[176,64]', 1))
    assert found(out)["manifest"] == [f"{path.name}: its header is not the one that was written"]


def test_a_missing_shard_and_one_too_many_are_found(out: Path) -> None:
    (out / SHARD.format(3)).rename(out / "model-00004-of-00004.safetensors")
    assert found(out)["shards"] == [
        f"{SHARD.format(3)}: the file is missing",
        "model-00004-of-00004.safetensors: is no file of this model: neither index nor manifest has it",
    ]


def test_swapped_shards_are_found(out: Path) -> None:
    first, second = out / SHARD.format(1), out / SHARD.format(2)
    first.rename(out / "x")
    second.rename(first)
    (out / "x").rename(second)
    texts = found(out)["manifest"]
    assert f"{first.name}: holds what was written as {second.name}" in texts
    assert f"{second.name}: holds what was written as {first.name}" in texts


# ------------------------------------------------------------------------------------------------ names


def test_an_index_that_lacks_or_misplaces_a_tensor_is_found(out: Path) -> None:
    path = out / "model.safetensors.index.json"
    places = json.loads(path.read_text())["weight_map"]
    held = places.pop(DOWN)
    places["model.norm.weight"] = SHARD.format(1)
    places["model.extra.weight"] = SHARD.format(1)
    edit(path, weight_map=places)
    assert sorted(found(out)["shards"]) == [
        f"model.extra.weight: the index lists it in {SHARD.format(1)}, and no file holds it",
        f"{DOWN}: {held} holds it, and the index does not list it",
        f"model.norm.weight: the index lists it in {SHARD.format(1)}, and {SHARD.format(3)} holds it",
    ]


def test_a_tensor_that_is_there_twice_is_found(out: Path) -> None:
    rewrite(out / SHARD.format(1), lambda tensors: tensors.update({"model.norm.weight": torch.ones(64)}))
    assert f"model.norm.weight: is in {SHARD.format(1)} and in {SHARD.format(3)}" in found(out)["shards"]


def test_a_tensor_that_one_layer_lacks_is_suspicious_without_a_manifest(out: Path) -> None:
    (out / "plait-manifest.json").unlink()
    (out / "model.safetensors.index.json").unlink()
    rewrite(holder_of(out, DOWN), lambda tensors: tensors.pop(DOWN))
    assert f"{DOWN}: is missing, and every other layer has one" in warned(out)


def holder_of(folder: Path, tensor: str) -> Path:
    return next(path for path in folder.glob("*.safetensors") if tensor in load_file(path))


def test_a_dead_tensor_is_suspicious_where_its_kind_is_alive(out: Path) -> None:
    overwrite(out, DOWN, 0, bytes(2 * 64 * 176))
    assert warned(out) == f"{DOWN}: is all zeros, and others of its kind are not"


# ------------------------------------------------------------------------------------------------ config, tokenizer


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_hidden_layers": 5}, "num_hidden_layers is 5, and model.layers has 4 layers"),
        ({"vocab_size": 511}, "vocab_size is 511, and model.embed_tokens.weight has 512 rows"),
        ({"hidden_size": 128}, "hidden_size is 128, and model.embed_tokens.weight has 64 columns"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types has 3 entries, and num_hidden_layers is 4"),
    ],
)
def test_a_config_that_does_not_fit_the_tensors_is_found(out: Path, changes: dict[str, Any], text: str) -> None:
    edit(out / "config.json", **changes)
    assert found(out)["config"] == [f"config.json: {text}"]


def test_a_config_that_is_no_json_is_found(out: Path) -> None:
    (out / "config.json").write_text("{")
    assert "not JSON" in found(out)["config"][0]


def test_a_head_that_the_config_ties_away_is_found(out: Path) -> None:
    edit(out / "config.json", tie_word_embeddings=True)
    assert [text.split(",")[0] for text in found(out)["values"]] == [
        "lm_head.weight: differs from model.embed_tokens.weight"
    ]


def test_a_head_that_is_neither_stored_nor_tied_is_found(tmp_path: Path) -> None:
    write_family(tmp_path, "tiny", finetunes=0)
    rewrite(tmp_path / "base" / "model.safetensors", lambda tensors: tensors.pop("lm_head.weight"))
    assert "no tensor is an output head" in found(tmp_path / "base")["config"][0]


def test_tokens_beyond_the_embedding_are_found(out: Path) -> None:
    write_tokenizer(out, 514)
    edit(out / "config.json", eos_token_id=[2, 600])
    (out / "generation_config.json").write_text('{"pad_token_id": 512}')
    assert sorted(found(out)["tokenizer"]) == [
        "config.json: eos_token_id is 600, and the embedding has 512 rows",
        "generation_config.json: pad_token_id is 512, and the embedding has 512 rows",
        "tokenizer.json: has a token of id 513, and the embedding has 512 rows",
    ]


# ------------------------------------------------------------------------------------------------ inputs


def test_unused_tensors_of_the_inputs_are_explained_or_told_of(tmp_path: Path) -> None:
    write_family(tmp_path / "family", "tiny", finetunes=2)
    path = tmp_path / "family" / "ft1" / "model.safetensors"
    rewrite(path, lambda tensors: tensors.update({"model.extra.weight": torch.ones(3)}))
    write_recipe(
        tmp_path / "recipe.yml",
        """\
        merge_method: passthrough
        slices:
          - sources: [{model: family/ft1, layer_range: [0, 3]}]
          - sources: [{model: family/ft2, layer_range: [3, 4]}]
        dtype: bfloat16
        """,
    )
    plait.plan(tmp_path / "recipe.yml").run(tmp_path / "out")
    first, second = json.loads((tmp_path / "out" / "plait-manifest.json").read_text())["inputs"]
    assert (first["tensors"], second["tensors"]) == (40, 39)
    # 9 tensors a layer; the first slice brings the embedding, the last one final norm and head.
    assert {each["why"]: each["tensors"] for each in first["unused"]} == {"layer": 9, "elsewhere": 2, "no_place": 1}
    assert {each["why"]: each["tensors"] for each in second["unused"]} == {"layer": 27, "elsewhere": 1}
    (layers,) = [each["names"] for each in second["unused"] if each["why"] == "layer"]
    assert "model.layers.{0..2}.mlp.down_proj.weight" in layers
    report = plait.verify(tmp_path / "out")
    assert report.ok
    assert warned(tmp_path / "out") == (
        "family/ft1: 1 unused that nothing in the output corresponds to: model.extra.weight"
    )


# ------------------------------------------------------------------------------------------------ not finished


def test_an_interrupted_run_is_told_of_in_one_line(merged: Path, out: Path) -> None:
    (out / "plait-journal").write_text("")
    with pytest.raises(InputError, match=r"interrupted run.*--resume") as told:
        plait.verify(out)
    assert "\n" not in str(told.value)
    (out / "plait-journal").unlink()
    (out / SHARD.format(1)).rename(out / (SHARD.format(1) + ".partial"))
    with pytest.raises(InputError, match=r"00001-of-00003.*not finished.*--overwrite"):
        plait.verify(out)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        plait.verify(tmp_path / "nothing")
    with pytest.raises(InputError, match="no safetensors files"):
        plait.verify(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 1}', '{"version": "1", "shards": [1], "inputs": []}'])
def test_a_damaged_manifest_is_a_problem_and_no_end(out: Path, text: str) -> None:
    (out / "plait-manifest.json").write_text(text)
    problems = found(out)
    assert list(problems) == ["manifest"]
    assert problems["manifest"][0].startswith("plait-manifest.json: ")
