"""The manifest of a finished folder: what went in, what came out, and what it took."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from .version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .engine.model import Model
    from .engine.recipe import ModelRef
    from .loaders.shards import Shard
    from .merge import MergeResult


def manifest_of(
    result: MergeResult,
    models: Mapping[ModelRef, Model],
    shards: Sequence[Shard],
    *,
    allow_nonfinite: bool,
    nonfinite: Mapping[str, Sequence[str]],
) -> dict[str, object]:
    """The content of ``plait-manifest.json``.

    ``nonfinite`` has, by model reference, the tensors whose NaN and infinity were let through.
    """
    return {
        "version": VERSION,
        "seed": result.seed,
        "recipe_sha256": result.recipe_sha256,
        "allow_nonfinite": allow_nonfinite,
        "inputs": [
            {
                "reference": str(ref),
                "revision": ref.revision,
                "bytes": model.size_bytes,
                "files": [
                    {"name": Path(file.path).name, "bytes": file.size_bytes, "header_sha256": file.header_sha256}
                    for file in model.files
                ],
                "nonfinite": list(nonfinite.get(str(ref), ())),
            }
            for ref, model in models.items()
        ],
        "predicted_peak_bytes": result.predicted_peak_bytes,
        "measured_peak_bytes": result.measured_peak_bytes,
        "seconds": result.seconds,
        "shards": [
            {
                "name": shard.file_name,
                "bytes": shard.size_bytes,
                "header_sha256": hashlib.sha256(shard.header).hexdigest(),
            }
            for shard in shards
        ],
    }
