"""What a page says about models that differ, and about those that do not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import plait
import pytest
import torch
from checkpoints import Shape, llama_config, llama_layout, write_family, write_model
from plait.loaders.checkpoint import open_model
from plait.views.model_differences import differences
from view_support import DARE, page

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from plait.engine.model import Model

SHAPE = Shape(64, 176, 4, 4, 2, 512)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Model]:
    """Writes a model's headers and opens them."""

    def write(name: str, shape: Shape = SHAPE, dtype: torch.dtype = torch.bfloat16, drop: str = "", **config: object):
        layout = {key: value for key, value in llama_layout(shape, dtype).items() if not drop or drop not in key}
        write_model(tmp_path / name, layout, llama_config(shape, dtype) | config, sparse=True)
        return open_model(name, tmp_path / name)

    return write


def test_models_of_a_family_are_identical(written) -> None:
    assert (
        differences(written("a"), written("b", _name_or_path="elsewhere", transformers_version="5", use_cache=False))
        == []
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": torch.float16}, ["float16, not bfloat16"]),
        ({"shape": Shape(64, 176, 4, 4, 2, 640)}, ["640 vocabulary rows, not 512"]),
        ({"shape": Shape(64, 176, 6, 4, 2, 512)}, ["6 layers, not 4"]),
        ({"rope_theta": 1e6}, ["rope_theta 1000000.0, not 500000.0"]),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, ['rope_scaling {"type": "linear", "factor": 2}, not none']),
        ({"head_bias": False}, []),  # a newer version writes its defaults
        ({"drop": "layers.2.mlp.up"}, ["without model.layers.2.mlp.up_proj.weight"]),
        (
            {"drop": "up_proj"},
            ["without " + ", ".join(f"model.layers.{n}.mlp.up_proj.weight" for n in range(3)) + " and 1 more"],
        ),
    ],
)
def test_what_differs_is_pointed_out(written, changes, said) -> None:
    assert differences(written("b", **changes), written("a")) == said


def test_it_is_said_from_either_side(written) -> None:
    a, b = written("a"), written("b", drop="norm")
    assert differences(a, b)[0].startswith("with model.layers.0.input_layernorm.weight, ")
    assert differences(b, a)[0].startswith("without model.layers.0.input_layernorm.weight, ")


def test_a_head_that_is_tied_is_told_from_one_of_its_own(written) -> None:
    tied = written("tied", Shape(64, 176, 4, 4, 2, 512, tied=True))
    assert differences(tied, written("a")) == ["lm_head.weight tied to model.embed_tokens.weight"]
    assert differences(written("a"), tied) == ["lm_head.weight of its own, not tied"]


def test_another_width_is_a_shape_and_a_config_value(written) -> None:
    said = differences(written("wide", Shape(128, 176, 4, 4, 2, 512)), written("a"))
    assert said[0] == "model.embed_tokens.weight [512, 128], not [512, 64] and 38 other shapes"
    assert "hidden_size 128, not 64" in said


def test_what_newer_versions_nest_is_the_same(written, tmp_path) -> None:
    a = written("a")
    folder = tmp_path / written("b").folder
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_theta": config.pop("rope_theta"), "rope_type": "default"}
    (folder / "config.json").write_text(json.dumps(config))
    assert differences(open_model("b", folder), a) == []
    config["rope_parameters"]["rope_theta"] = 1.0
    (folder / "config.json").write_text(json.dumps(config))
    assert differences(open_model("b", folder), a) == ["rope_theta 1.0, not 500000.0"]


def test_the_page_names_the_models_that_differ(planned) -> None:
    assert "  B C identical headers and config\n" in page(planned(DARE))


def test_a_page_of_unlike_models(tmp_path) -> None:
    write_family(tmp_path, SHAPE, finetunes=2)
    config = json.loads((tmp_path / "ft2" / "config.json").read_text())
    changed = {"rope_theta": 1e6, "eos_token_id": 7, "rms_norm_eps": 1e-6, "hidden_act": "gelu", "sliding_window": 64}
    (tmp_path / "ft2" / "config.json").write_text(json.dumps(config | changed))
    recipe = tmp_path / "r.yml"
    recipe.write_text(
        "merge_method: linear\nmodels: [{model: base}, {model: ft1}, {model: ft2}]\nparameters: {weight: 1}\n"
    )
    merge = plait.plan(recipe)
    text = page(merge)
    assert "  B identical headers and config\n" in text
    assert "  C hidden_act gelu, not silu; rms_norm_eps 1e-06, not 1e-05; rope_theta 1000000.0, not 500000.0; " in text
    assert "and 1 more difference (-v)\n" in text
    full = page(merge, verbose=True)
    assert "sliding_window 64, not none" in full
    assert "(-v)" not in full
