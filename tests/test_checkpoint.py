"""Model folders: which files count, what is wrong with them in one line, and how a recipe's name finds one."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch
from plait.engine.errors import InputError
from plait.loaders.checkpoint import open_model
from plait.loaders.positioned_io import FilePool
from plait.loaders.safetensors_file import encode_header
from safetensors.torch import save_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

NAMES = [
    "model.embed_tokens.weight",
    *(f"model.layers.{layer}.{part}.weight" for layer in range(12) for part in ("attn.q", "mlp.up", "norm")),
    "lm_head.weight",
    "model.norm.weight",
]
PARTS = (NAMES[:13], NAMES[13:26], NAMES[26:])
INDEX = "model.safetensors.index.json"


def values(names: Iterable[str]) -> dict[str, torch.Tensor]:
    return {name: torch.full((3, 4), float(NAMES.index(name)), dtype=torch.bfloat16) for name in names}


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def shard_name(number: int, total: int) -> str:
    return f"model-{number:05d}-of-{total:05d}.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of three shards with index and config."""
    folder = tmp_path / "base"
    folder.mkdir()
    weight_map = {}
    for number, names in enumerate(PARTS, 1):
        save_file(values(names), folder / shard_name(number, 3))
        weight_map |= dict.fromkeys(names, shard_name(number, 3))
    write_json(folder / INDEX, {"metadata": {"total_size": 1}, "weight_map": weight_map})
    write_json(folder / "config.json", {"num_hidden_layers": 12, "tie_word_embeddings": False})
    return folder


def edit_index(folder: Path, **changes: str) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"].update(changes)
    write_json(folder / INDEX, index)


def expect(folder: Path, *problems: str) -> None:
    """Opening the folder is an InputError of one line that says all of these."""
    with pytest.raises(InputError) as caught:
        open_model("base", folder)
    message = str(caught.value)
    assert [problem for problem in (str(folder), *problems) if problem not in message] == []
    assert "\n" not in message


def test_a_sharded_model(folder: Path) -> None:
    model = open_model("org/base", folder)
    assert list(model.tensors) == NAMES
    assert (model.reference, model.folder, model.primary, model.layers) == ("org/base", str(folder), "model.layers", 12)
    assert model.config["num_hidden_layers"] == 12
    assert model.vocabulary_rows == 3
    assert model.aliases == {}
    assert [file.path for file in model.files] == [str(folder / shard_name(number, 3)) for number in (1, 2, 3)]
    assert [file.size_bytes for file in model.files] == [os.path.getsize(file.path) for file in model.files]  # noqa: PTH202
    assert all(len(file.header_sha256) == 64 for file in model.files)


def test_tensors_are_where_it_says(folder: Path) -> None:
    model = open_model("base", folder)
    with FilePool(limit=1, expected_bytes={file.path: file.size_bytes for file in model.files}) as pool:
        for name, expected in values(NAMES).items():
            tensor = model.tensors[name]
            out = torch.empty(tensor.size_bytes, dtype=torch.uint8)
            pool.read_into(tensor, 0, out)
            assert torch.equal(out.view(tensor.spec.dtype).reshape(tensor.spec.shape), expected)


def test_equal_specs_and_paths_are_one_object(folder: Path) -> None:
    tensors = list(open_model("base", folder).tensors.values())
    assert len({id(tensor.spec) for tensor in tensors}) == 1
    assert len({id(tensor.file) for tensor in tensors}) == 3


def test_one_file_is_enough_and_comes_before_an_index(folder: Path) -> None:
    save_file(values(NAMES[:5]), folder / "model.safetensors")
    model = open_model("base", folder)
    assert set(model.tensors) == set(NAMES[:5])
    (folder / "config.json").unlink()
    assert open_model("base", folder).config == {}


def test_shards_without_an_index(folder: Path) -> None:
    (folder / INDEX).unlink()
    # The same model once more, in the names of its publisher.
    save_file({"layers.0.attention.wq.weight": torch.zeros(2)}, folder / "consolidated.safetensors")
    assert list(open_model("base", folder).tensors) == NAMES
    (folder / shard_name(2, 3)).unlink()
    expect(folder, "file 2 of 3", "is a download incomplete?")
    save_file(values(NAMES), folder / shard_name(1, 1))
    expect(folder, "several sets of files", "model-*-of-00001.safetensors", "model-*-of-00003.safetensors")


def test_files_of_any_name(tmp_path: Path) -> None:
    save_file(values(NAMES[:3]), tmp_path / "weights.safetensors")
    save_file(values(NAMES[3:5]), tmp_path / "more.safetensors")
    assert set(open_model("base", tmp_path).tensors) == set(NAMES[:5])
    save_file(values(NAMES[4:6]), tmp_path / "again.safetensors")
    expect(tmp_path, "more.safetensors: tensor 'model.layers.1.attn.q.weight' is also in again.safetensors")


def test_an_index_of_another_name(folder: Path) -> None:
    (folder / INDEX).rename(folder / "diffusion_pytorch_model.safetensors.index.json")
    save_file({"stray": torch.zeros(2)}, folder / "stray.safetensors")
    assert list(open_model("base", folder).tensors) == NAMES


def test_tensors_that_the_index_forgot_are_not_lost(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    del index["weight_map"][NAMES[5]]
    write_json(folder / INDEX, index)
    assert list(open_model("base", folder).tensors) == NAMES


@pytest.mark.parametrize(
    "name", ["../other/model.safetensors", "/etc/passwd", "..", ".", "", "a\\b", "C:model.safetensors", 5, None]
)
def test_an_index_leads_nowhere_else(folder: Path, name: Any) -> None:
    edit_index(folder, **{NAMES[0]: name})
    expect(folder, INDEX, NAMES[0], "is not the name of a file in this folder")


def test_an_index_that_lies(folder: Path) -> None:
    edit_index(folder, **{NAMES[0]: shard_name(2, 3)})
    expect(folder, INDEX, NAMES[0], f"listed in {shard_name(2, 3)}, but it is in {shard_name(1, 3)}")
    edit_index(folder, **{NAMES[0]: shard_name(1, 3), "absent.weight": shard_name(1, 3)})
    expect(folder, INDEX, "'absent.weight'", "no file of the model holds it")
    edit_index(folder, **{"absent.weight": "absent.safetensors"})
    expect(folder, INDEX, "1 of 4 files are not in the folder, first absent.safetensors")


def test_a_tensor_in_two_shards(folder: Path) -> None:
    save_file(values([*PARTS[1], NAMES[0]]), folder / shard_name(2, 3))
    expect(folder, shard_name(2, 3), NAMES[0], f"is also in {shard_name(1, 3)}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", ":1:2: not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "has no weight_map"),
        ('{"weight_map": {}}', "no weight"),
    ],
)
def test_an_index_that_is_none(folder: Path, text: str, problem: str) -> None:
    (folder / INDEX).write_text(text)
    expect(folder, INDEX, problem)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{\n "a": 1,\n}', "config.json:3:1: not JSON"),
        (b"[1]", "config.json: not a JSON object"),
        (b'"\xff"', "config.json: not JSON"),
        (b"[" * 100_000, "config.json: nested more than 100 levels deep"),
    ],
)
def test_a_config_that_is_none(folder: Path, data: bytes, problem: str) -> None:
    (folder / "config.json").write_bytes(data)
    expect(folder, problem)


def test_configs_in_the_wild(folder: Path) -> None:
    (folder / "config.json").write_bytes('\ufeff{"time_step_limit": [0.0, Infinity]}'.encode())
    assert open_model("base", folder).config == {"time_step_limit": [0.0, float("inf")]}


def test_a_shard_that_was_cut_off(folder: Path) -> None:
    path = folder / shard_name(2, 3)
    path.write_bytes(path.read_bytes()[:-1])
    expect(folder, shard_name(2, 3), "lies outside the file", "was a download cut off?")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ([], "holds no safetensors files (it is empty)"),
        (["a.txt", "b.txt", "c.txt", "d.txt"], "(it has a.txt, b.txt, c.txt and 1 more)"),
        (["pytorch_model.bin", "training_args.bin"], "pickled weights (pytorch_model.bin) are not read yet"),
        (["training_args.bin"], "holds no safetensors files"),
        (["model.Q4_K_M.gguf"], "GGUF weights (model.Q4_K_M.gguf) are not read yet"),
        (["flax_model.msgpack"], "MSGPACK weights"),
        (["adapter_model.safetensors"], "holds an adapter, not a model; adapters are not available yet: merge it"),
        (["adapter_config.json", "adapter_model.bin"], "holds an adapter, not a model"),
        (["model.safetensors.incomplete"], "is a download incomplete? (model.safetensors.incomplete)"),
        ([".cache/huggingface/download/x.incomplete"], "is a download incomplete? (x.incomplete)"),
        (["snapshots/0a1b/model.safetensors", "refs/main"], "but its folder snapshots/0a1b does; name that one"),
        (["unet/diffusion_pytorch_model.safetensors"], "but its folder unet does"),
    ],
)
def test_folders_without_a_model(tmp_path: Path, files: Sequence[str], problem: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    expect(tmp_path, problem)


def test_a_snapshot_of_a_download_that_has_not_ended(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / "0a1b"
    for path in (snapshot / "config.json", tmp_path / "blobs" / "77ff.incomplete"):
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    expect(snapshot, "is a download incomplete? (77ff.incomplete)")


def test_a_link_to_a_file_that_is_gone(folder: Path) -> None:
    path = folder / shard_name(2, 3)
    path.unlink()
    try:
        path.symlink_to("blobs/77ff")
    except OSError:
        pytest.skip("links are not allowed here")
    expect(folder, f"{path}: cannot be read: it is a link to ", "77ff, which is not there")


def test_no_folder(tmp_path: Path) -> None:
    expect(tmp_path / "absent", "does not exist", "(model base)")
    (tmp_path / "file.safetensors").write_bytes(b"")
    expect(tmp_path / "file.safetensors", "is a file; a model is named by its folder")


def test_ninety_thousand_tensors_take_seconds(tmp_path: Path) -> None:
    # The layout of a 671B mixture of experts; the data is a hole.
    names = [
        f"model.layers.{layer}.mlp.experts.{expert}.{part}.weight_scale_inv"
        for layer in range(61)
        for expert in range(250)
        for part in ("gate_proj", "up_proj", "down_proj")
    ]
    names = [name.removesuffix("_scale_inv") for name in names] + names
    weight_map = {}
    for number in range(40):
        part = names[number::40]
        header, offsets = encode_header([(name, torch.bfloat16, (2048, 7168)) for name in part])
        path = tmp_path / shard_name(number + 1, 40)
        path.write_bytes(header)
        os.truncate(path, max(offsets.values()) + 2048 * 7168 * 2)
        weight_map |= dict.fromkeys(part, path.name)
    write_json(tmp_path / INDEX, {"weight_map": weight_map})
    started = time.process_time()
    model = open_model("moe", tmp_path)
    assert time.process_time() - started < 10
    assert len(model.tensors) == len(names) > 91_000
    assert model.layers == 61
    assert Counter(role.layer for role in model.roles.values()) == dict.fromkeys(range(61), 1500)
