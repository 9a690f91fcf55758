"""Finished runs to report on, and the figures of a report worked out on whole tensors."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import plain_task_vectors
import plait
import pytest
import torch
from checkpoints import write_family
from merge_support import write_recipe
from plain_distance import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from plait.reports.diff_report import Figures

MANIFEST = "plait-manifest.json"

DARE_TIES = """\
    merge_method: dare_ties
    base_model: family/base
    models:
      - {model: family/ft1, parameters: {weight: 0.5, density: 0.6}}
      - {model: family/ft2, parameters: {weight: 0.3, density: [0.2, 0.9]}}
      - {model: family/ft3, parameters: {weight: 0.4, density: 0.5}}
    dtype: bfloat16
    seed: 7
    """

LINEAR = """\
    merge_method: linear
    models:
      - {model: family/ft1, parameters: {weight: 0.4}}
      - {model: family/ft2, parameters: {weight: 0.6}}
    dtype: float32
    """

STACKED = """\
    merge_method: passthrough
    slices:
      - sources: [{model: family/ft1, layer_range: [0, 3]}]
      - sources: [{model: family/ft2, layer_range: [1, 3]}]
      - sources:
          - model: family/ft2
            layer_range: [1, 4]
            parameters: {scale: [{filter: o_proj, value: 0.0}, {value: 1.0}]}
    dtype: bfloat16
    """

STACKED_FROM = [("family/ft1", 0), ("family/ft1", 1), ("family/ft1", 2), *(("family/ft2", i) for i in (1, 2, 1, 2, 3))]
"""Model and layer that each layer of STACKED comes from."""

SLERP = """\
    merge_method: slerp
    base_model: family/base
    models: [{model: family/ft1}]
    parameters: {t: 0.3}
    dtype: bfloat16
    """


def make_run(folder: Path, recipe: str = DARE_TIES, out: str = "out", **options: Any) -> Path:
    """A family beside a recipe, merged; returns the finished folder."""
    if not (folder / "family").exists():
        write_family(folder / "family", "tiny", finetunes=3, shard_bytes=150_000)
    path = write_recipe(folder / f"{out}.yml", recipe)
    plait.plan(path, shard_size=200_000).run(folder / out, **options)
    return folder / out


def edit_manifest(out: Path, **changes: Any) -> None:
    """Change fields of a manifest; one that becomes None goes."""
    fields = json.loads((out / MANIFEST).read_text()) | changes
    (out / MANIFEST).write_text(json.dumps({key: value for key, value in fields.items() if value is not None}))


def check_figures(found: Figures, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """How far results, the second of each pair, are from inputs, against plain float64 over all of them."""
    sums = [plain(a.reshape(-1), b.reshape(-1)) for a, b in pairs]
    total = {name: sum(each[name] for each in sums) for name in sums[0]}
    assert found.changed == total["changed"]
    distance = math.sqrt(total["distance_squared"] / total["a_squared"])
    assert found.relative_l2 == pytest.approx(distance, rel=1e-12)
    assert (found.nonfinite_a, found.nonfinite_b) == (total["nonfinite_a"], total["nonfinite_b"])
    assert found.largest_change == max(each["largest"] for each in sums)


def deltas(moved: torch.Tensor, origin: torch.Tensor, *others: torch.Tensor) -> np.ndarray[Any, Any]:
    """A task vector as a merge computes it: in float32, or in float64 where anything is as wide as float32."""
    wide = any(each.dtype in (torch.float32, torch.float64) for each in (moved, origin, *others))
    dtype = torch.float64 if wide else torch.float32
    return (moved.to(dtype) - origin.to(dtype)).numpy().reshape(-1)


def sizes_of(parts: Iterable[np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Zeros, what is not finite and counts by bin, of several task vectors together."""
    total = np.sum([plain_task_vectors.sizes(part) for part in parts], axis=0).tolist()
    bins = (len(total) - 2) // 2
    return {"zeros": total[0], "nonfinite": total[1], "positive": total[2 : 2 + bins], "negative": total[2 + bins :]}


def by_kind(names: Iterable[str]) -> Mapping[tuple[str | None, str], list[str]]:
    """Names of a decoder's tensors by stack and kind."""
    found: dict[tuple[str | None, str], list[str]] = {}
    for name in names:
        if name.startswith("model.layers."):
            key: tuple[str | None, str] = "model.layers", name.split(".", 3)[3].removesuffix(".weight")
        else:
            key = None, name.removesuffix(".weight")
        found.setdefault(key, []).append(name)
    return found
