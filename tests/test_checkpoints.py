"""The writer of test families: what it writes is what the field's libraries read."""

import json
import time

import pytest
import torch
from checkpoints import SHAPES, Shape, write_family
from safetensors import safe_open
from safetensors.torch import load_file


def test_finetunes_are_small_steps_away_from_the_base(tmp_path):
    base, first, second = (load_file(model / "model.safetensors") for model in write_family(tmp_path))
    name = "model.layers.2.mlp.down_proj.weight"
    for tuned in (first, second):
        assert list(tuned) == list(base)
        step = (tuned[name].float() - base[name].float()).std().item()
        assert step == pytest.approx(0.002, rel=0.1)
    assert not torch.equal(first[name], second[name])


def test_bytes_depend_on_nothing_but_the_arguments(tmp_path):
    one = write_family(tmp_path / "one", finetunes=1)[1] / "model.safetensors"
    two = write_family(tmp_path / "two", finetunes=3)[1] / "model.safetensors"
    assert one.read_bytes() == two.read_bytes()


def test_shards_hold_the_same_tensors_as_one_file(tmp_path):
    (whole,) = write_family(tmp_path / "whole", finetunes=0, dtype="float32")
    (sharded,) = write_family(tmp_path / "sharded", finetunes=0, dtype="float32", shard_bytes=200_000)
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    expected = load_file(whole / "model.safetensors")
    assert set(index["weight_map"]) == set(expected)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in expected.values())
    for name, file_name in index["weight_map"].items():
        with safe_open(sharded / file_name, "pt") as shard:
            assert torch.equal(shard.get_tensor(name), expected[name])


def test_a_tied_model_stores_no_head(tmp_path):
    shape = Shape(hidden=32, intermediate=48, layers=2, heads=2, kv_heads=1, vocabulary=64, tied=True)
    (model,) = write_family(tmp_path, shape, finetunes=0)
    assert "lm_head.weight" not in load_file(model / "model.safetensors")
    assert json.loads((model / "config.json").read_text())["tie_word_embeddings"] is True


def test_headers_of_a_mixture_of_experts_are_quick_and_sparse(tmp_path):
    started = time.process_time()
    (model,) = write_family(tmp_path, "moe671b", finetunes=0)
    assert time.process_time() - started < 20
    shards = list(model.glob("*.safetensors"))
    assert sum(shard.stat().st_size for shard in shards) > 1.3e12
    assert sum(shard.stat().st_blocks * 512 for shard in shards) < 50e6
    index = json.loads((model / "model.safetensors.index.json").read_text())
    assert len(index["weight_map"]) >= 92_000
    with safe_open(shards[0], "pt") as shard:
        assert list(shard.keys())


def test_every_named_shape_divides_into_heads():
    for shape in SHAPES.values():
        assert shape.hidden % shape.heads == 0
        assert shape.heads % shape.kv_heads == 0
