"""From a recipe to a model that loads: the two published recipes, and expansions that change nothing but the depth."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plait
import pytest
import torch
from checkpoints import Shape, write_family
from merge_support import save_model, tensors_of, write_recipe

if TYPE_CHECKING:
    from plait.merge import MergeResult

EXAMPLES = Path(plait.__file__).parent / "examples"
COPIED_LAYER = "[{filter: o_proj, value: 0.0}, {filter: down_proj, value: 0.0}, {value: 1.0}]"


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mistral of 32 small layers."""
    (folder,) = write_family(tmp_path_factory.mktemp("mistral"), "tinymistral32", finetunes=0)
    return folder


def merge(recipe: Path, out: Path, **given: Any) -> MergeResult:
    return plait.plan(recipe, **given).run(out)


def config_of(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return loaded


def load(folder: Path) -> Any:
    """The model as transformers loads it, which has to find every weight and no other."""
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, output_loading_info=True)
    troubles = {kind: list(found) for kind, found in info.items() if found}
    assert troubles == {}
    return model.eval()


def logits(folder: Path) -> torch.Tensor:
    tokens = torch.randint(0, 512, (2, 24), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        found: torch.Tensor = load(folder)(tokens).logits
    assert found.isfinite().all()
    return found


def expansion(model: Path, path: Path, slices: list[tuple[int, int, bool]]) -> Path:
    """A passthrough recipe; slices are (start, end, copied): a copied layer adds nothing to the residual stream."""
    lines = ["merge_method: passthrough", "dtype: bfloat16", "slices:"]
    for start, end, copied in slices:
        lines += ["  - sources:", f"      - model: {model}", f"        layer_range: [{start}, {end}]"]
        lines += [f"        parameters: {{scale: {COPIED_LAYER}}}"] if copied else []
    return write_recipe(path, "\n".join(lines) + "\n")


# ------------------------------------------------------------------------------------------------ published recipes


def test_the_published_dare_ties_recipe_runs_as_it_is(tmp_path: Path) -> None:
    family = write_family(tmp_path / "family", "tiny32", finetunes=2)
    names = (
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "NousResearch/Hermes-2-Pro-Llama-3-8B",
        "aaditya/Llama3-OpenBioLLM-8B",
    )
    maps = dict(zip(names, map(str, family), strict=True))
    recipe = EXAMPLES / "llama3-merge-biomed-8b.yml"
    result = merge(recipe, tmp_path / "out", maps=maps)
    assert (tmp_path / "out" / "plait.yml").read_bytes() == recipe.read_bytes()
    assert any("counts as the base only" in warning for warning in result.warnings)
    base, hermes, bio = map(tensors_of, family)
    merged = tensors_of(tmp_path / "out")
    assert list(merged) == list(base)
    name = "model.layers.31.mlp.down_proj.weight"
    step = merged[name].float() - base[name].float()
    # 0.1 and 0.4 of two task vectors, 0.55 of each kept and divided by that: about one value in five is left alone.
    untouched = (step == 0).float().mean().item()
    assert 0.15 < untouched < 0.35
    expected = 0.1 * (hermes[name].float() - base[name].float()) + 0.4 * (bio[name].float() - base[name].float())
    assert torch.corrcoef(torch.stack([step.reshape(-1), expected.reshape(-1)]))[0, 1] > 0.5
    assert logits(tmp_path / "out").shape == (2, 24, 512)


def test_the_published_block_expansion_gives_the_sources_logits(tmp_path: Path, mistral: Path) -> None:
    recipe = EXAMPLES / "openchat-block-expansion-44.yml"
    out = tmp_path / "out"
    result = merge(recipe, out, maps={"openchat/openchat-3.5-0106": str(mistral)})
    assert config_of(out) == config_of(mistral) | {"num_hidden_layers": 44}
    assert result.tensors == 9 * 44 + 3
    # Twelve more layers are not read: what they repeat is read once, and what is scaled by 0 not at all.
    assert result.bytes_read == sum(tensor.nbytes for tensor in tensors_of(mistral).values())
    made = tensors_of(out)
    assert made["model.layers.43.self_attn.o_proj.weight"].count_nonzero() == 0
    assert torch.equal(logits(out), logits(mistral))


# ------------------------------------------------------------------------------------------------ expansions


@pytest.mark.parametrize("every", [4, 8])
def test_a_copy_after_every_few_layers_gives_the_sources_logits(tmp_path: Path, mistral: Path, every: int) -> None:
    slices = []
    for end in range(every, 33, every):
        slices += [(end - every, end, False), (end - 1, end, True)]
    recipe = expansion(mistral, tmp_path / "recipe.yml", slices)
    merge(recipe, tmp_path / "out")
    assert config_of(tmp_path / "out")["num_hidden_layers"] == 32 + 32 // every
    assert torch.equal(logits(tmp_path / "out"), logits(mistral))


def test_a_tied_model_is_expanded_and_stays_tied(tmp_path: Path) -> None:
    shape = Shape(64, 176, 4, 4, 2, 512, tied=True)
    (source,) = write_family(tmp_path / "family", shape, finetunes=0)
    recipe = expansion(source, tmp_path / "recipe.yml", [(0, 4, False), (3, 4, True)])
    merge(recipe, tmp_path / "out")
    assert "lm_head.weight" not in tensors_of(tmp_path / "out")
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is True
    assert torch.equal(logits(tmp_path / "out"), logits(source))


def test_a_tied_donor_with_another_models_head_is_untied(tmp_path: Path) -> None:
    tied, own = Shape(64, 176, 4, 4, 2, 512, tied=True), Shape(64, 176, 4, 4, 2, 512)
    (below,) = write_family(tmp_path / "below", tied, finetunes=0)
    (_, above) = write_family(tmp_path / "above", own, finetunes=1)
    recipe = write_recipe(
        tmp_path / "recipe.yml",
        f"""
        merge_method: passthrough
        slices:
          - sources: [{{model: {below}, layer_range: [0, 3]}}]
          - sources: [{{model: {above}, layer_range: [2, 4]}}]
        """,
    )
    merge(recipe, tmp_path / "out")
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is False
    loaded = load(tmp_path / "out")
    assert torch.equal(loaded.lm_head.weight, tensors_of(above)["lm_head.weight"])
    assert torch.equal(loaded.model.embed_tokens.weight, tensors_of(below)["model.embed_tokens.weight"])


def test_per_layer_lists_follow_the_layers(tmp_path: Path) -> None:
    (source,) = write_family(tmp_path / "family", "tiny", finetunes=0)
    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    (source / "config.json").write_text(json.dumps(config_of(source) | {"layer_types": kinds}))
    recipe = expansion(source, tmp_path / "recipe.yml", [(0, 2, False), (1, 4, False), (3, 4, False)])
    merge(recipe, tmp_path / "out")
    found = config_of(tmp_path / "out")
    assert found["num_hidden_layers"] == 6
    assert found["layer_types"] == [kinds[layer] for layer in (0, 1, 1, 2, 3, 3)]


def test_fewer_layers_load_too(tmp_path: Path, mistral: Path) -> None:
    recipe = expansion(mistral, tmp_path / "recipe.yml", [(0, 2, False), (30, 32, False)])
    merge(recipe, tmp_path / "out")
    assert len(load(tmp_path / "out").model.layers) == 4


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_another_dtype_is_said_in_the_config(tmp_path: Path, dtype: str) -> None:
    (source,) = write_family(tmp_path / "family", "tiny", finetunes=0)
    text = f"{{merge_method: passthrough, models: [{{model: {source}}}], dtype: {dtype}}}"
    merge(write_recipe(tmp_path / "recipe.yml", text), tmp_path / "out")
    assert config_of(tmp_path / "out")["torch_dtype"] == dtype
    made, stored = tensors_of(tmp_path / "out"), tensors_of(source)
    assert all(torch.equal(made[name], stored[name].to(getattr(torch, dtype))) for name in stored)


# ------------------------------------------------------------------------------------------------ shortcuts


def test_scale_zero_reads_nothing(tmp_path: Path) -> None:
    (source,) = write_family(tmp_path / "family", "tiny", finetunes=0)
    text = f"{{merge_method: passthrough, models: [{{model: {source}, parameters: {{scale: 0}}}}]}}"
    result = merge(write_recipe(tmp_path / "recipe.yml", text), tmp_path / "out")
    assert result.bytes_read == 0
    assert all(tensor.count_nonzero() == 0 for tensor in tensors_of(tmp_path / "out").values())


def test_the_kernels_copy_and_ours_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = write_family(tmp_path / "family", "100m", finetunes=0, shard_bytes=60_000_000)
    text = f"{{merge_method: passthrough, slices: [{{sources: [{{model: {source}, layer_range: [0, 2]}}]}}]}}"
    recipe = write_recipe(tmp_path / "recipe.yml", text)
    by_kernel = merge(recipe, tmp_path / "kernel")
    monkeypatch.delattr("os.copy_file_range")
    by_us = merge(recipe, tmp_path / "us")
    assert by_kernel.bytes_read == by_us.bytes_read > 60_000_000
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "kernel" / name).read_bytes() == (tmp_path / "us" / name).read_bytes()
    stored, made = tensors_of(source), tensors_of(tmp_path / "us")
    assert all(torch.equal(made[name], stored[name]) for name in made)


@pytest.mark.parametrize("every", [2, 3])
def test_a_copy_that_the_kernel_gives_up_is_finished_by_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    if not hasattr(os, "copy_file_range"):
        pytest.skip("this platform has no copy_file_range")
    real, calls = os.copy_file_range, iter(range(1 << 30))

    def moody(*arguments: Any) -> int:
        if next(calls) % every == every - 1:
            raise OSError(18, "cross-device link")
        return real(*arguments[:2], max(arguments[2] // 2, 1), *arguments[3:])

    source = save_model(
        tmp_path / "source",
        {f"layers.{layer}.proj.weight": torch.randn(50, 71) for layer in range(3)},
        {"num_hidden_layers": 3},
    )
    recipe = expansion(source, tmp_path / "recipe.yml", [(0, 3, False), (0, 3, False)])
    recipe.write_text(recipe.read_text().replace("dtype: bfloat16\n", ""))
    monkeypatch.setattr("os.copy_file_range", moody)
    plan = plait.plan(recipe, workers=2)
    result = plan.run(tmp_path / "out")
    # What the kernel copied under one name is not written again because it gave up under another.
    assert result.bytes_written == plan.plan.bytes_written
    stored, made = tensors_of(source), tensors_of(tmp_path / "out")
    assert len(made) == 6
    assert all(
        torch.equal(made[f"layers.{layer}.proj.weight"], stored[f"layers.{layer % 3}.proj.weight"])
        for layer in range(6)
    )
