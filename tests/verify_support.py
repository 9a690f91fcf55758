"""A merge to verify, and ways to break a copy of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import plait
from checkpoints import write_family
from merge_support import write_recipe
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

SHARD = "model-0000{}-of-00003.safetensors"
DOWN = "model.layers.2.mlp.down_proj.weight"
RECIPE = """\
    merge_method: linear
    models:
      - {model: family/ft1, parameters: {weight: 0.4}}
      - {model: family/ft2, parameters: {weight: 0.6}}
    dtype: bfloat16
    """


def write_tokenizer(folder: Path, tokens: int = 512) -> None:
    """A tokenizer of so many tokens, as far as ids go."""
    vocabulary = {f"t{number}": number for number in range(tokens)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocabulary}}))
    (folder / "tokenizer_config.json").write_text("{}")


def make_merge(folder: Path) -> Path:
    """A merge in three shards, verified when it was made."""
    write_family(folder / "family", "tiny", finetunes=2)
    write_tokenizer(folder / "family" / "ft1")
    write_recipe(folder / "recipe.yml", RECIPE)
    result = plait.plan(folder / "recipe.yml", shard_size=220_000).run(folder / "out", verify=True)
    assert result.verification is not None
    assert result.verification.ok
    return folder / "out"


def found(folder: Path, *, digests: bool = False) -> dict[str, list[str]]:
    """Problems by check."""
    report = plait.verify(folder, digests)
    problems = {
        check.name: [str(each) for each in check.findings if each.severity == "problem"] for check in report.checks
    }
    assert report.ok is not any(problems.values())
    return {name: texts for name, texts in problems.items() if texts}


def warned(folder: Path) -> str:
    return "\n".join(
        str(each) for check in plait.verify(folder).checks for each in check.findings if each.severity == "warning"
    )


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the tensors of a file with the field's own library."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def holder(folder: Path, tensor: str) -> Path:
    return folder / json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][tensor]


def overwrite(folder: Path, tensor: str, element: int, data: bytes) -> str:
    """Write over bytes of a tensor in place; returns the file's name."""
    path = holder(folder, tensor)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    start = 8 + length + json.loads(raw[8 : 8 + length])[tensor]["data_offsets"][0] + 2 * element
    path.write_bytes(raw[:start] + data + raw[start + len(data) :])
    return path.name
