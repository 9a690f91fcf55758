"""The manifest of a finished folder: what went in, what came out, and what it took."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.units import format_count, format_names
from ..loaders.input_files import read_json
from ..loaders.manifest_file import MANIFEST_FILE, MANIFEST_LIMIT_BYTES
from ..version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine.model import Model
    from ..engine.plan import Plan
    from ..engine.recipe import ModelRef
    from ..engine.samples import Samples
    from ..loaders.folder import OutputFolder
    from ..loaders.shards import Shard
    from ..merge import MergeResult

_OTHER_FILES = re.compile(
    r".*\.safetensors.*|plait\.lock.*|plait-journal.*|plait-process-.*|plait-trace.*|plait-manifest\.json.*|config\.json|"
    r"README\.md|.*\.tmp"
)
"""What the list of files beside the shards leaves out: what is not there yet, is gone soon, or is made to be edited."""


_LINES = 3
"""Tensors with overflows that have a line each; more are folded into one."""


def manifest_of(
    result: MergeResult,
    models: Mapping[ModelRef, Model],
    shards: Sequence[Shard],
    *,
    allow_nonfinite: bool,
    nonfinite: Mapping[str, Sequence[str]],
    overflows: Mapping[str, int],
    unused: Mapping[str, Sequence[Mapping[str, object]]],
    samples: Samples,
    rows: Mapping[str, Sequence[Mapping[str, object]]],
    folder: Path,
) -> dict[str, object]:
    """The content of ``plait-manifest.json``.

    ``nonfinite`` has, by model reference, the tensors whose NaN and infinity were let through, ``overflows`` how many
    elements of an output tensor became infinity, ``unused`` the tensors that the output is not made of, by reason,
    ``rows`` those of which it has some rows only, ``samples`` what was moved and held over time, in the last session
    where the run was resumed. ``folder`` has everything but index and config.
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
                "tensors": len(model.tensors),
                "unused": list(unused.get(str(ref), ())),
                "rows": list(rows.get(str(ref), ())),
            }
            for ref, model in models.items()
        ],
        "overflows": dict(overflows),
        "workers": result.workers,
        "tensors": result.tensors,
        "passes": result.passes,
        "bytes_read": result.bytes_read,
        "bytes_written": result.bytes_written,
        "predicted_peak_bytes": result.predicted_peak_bytes,
        "measured_peak_bytes": result.measured_peak_bytes,
        "devices": list(result.devices),
        "predicted_seconds": result.predicted_seconds,
        "seconds": result.seconds,
        **({"processes": list(result.processes)} if result.processes else {}),
        "resumed": result.resumed,
        "warnings": list(result.warnings),
        "samples": samples.columns(),
        "shards": [
            {
                "name": shard.file_name,
                "bytes": shard.size_bytes,
                "header_sha256": hashlib.sha256(shard.header).hexdigest(),
            }
            for shard in shards
        ],
        "files": [
            {"name": path.name, "bytes": path.stat().st_size}
            for path in sorted(folder.iterdir())
            if path.is_file() and not _OTHER_FILES.fullmatch(path.name)
        ]
        + ([{"name": "config.json"}] if next(iter(models.values())).config else []),
    }


def overflow_warnings(plan: Plan, overflows: Mapping[str, int]) -> list[str]:
    """What a run says of elements that became infinity: a line a tensor, or one a dtype where there are many."""
    by_dtype: dict[str, dict[str, int]] = {}
    for island in plan.graph.islands if overflows else ():
        dtype_name = str(island.spec.dtype).removeprefix("torch.")
        by_dtype.setdefault(dtype_name, {}).update(
            (name, overflows[name]) for name in island.outputs if name in overflows
        )
    lines = []
    for dtype_name, counts in by_dtype.items():
        if len(counts) > _LINES:
            lines.append(
                f"{format_names(list(counts))}: {format_count(sum(counts.values()))} elements are too large for "
                f"{dtype_name} and became infinity; plait-manifest.json has them by tensor"
            )
            continue
        for name, count in counts.items():
            how = "1 element is" if count == 1 else f"{format_count(count)} elements are"
            lines.append(f"{name}: {how} too large for {dtype_name} and became infinity")
    return lines


def record_digests(folder: OutputFolder, sha256: Mapping[str, str]) -> None:
    """Add the sha256 of the shards, by name, to a folder's manifest."""
    manifest = read_json(folder.path / MANIFEST_FILE, MANIFEST_LIMIT_BYTES)
    shards = manifest["shards"]
    assert isinstance(shards, list)
    manifest["shards"] = [shard | {"sha256": sha256[shard["name"]]} for shard in shards]
    folder.write_json(MANIFEST_FILE, manifest)
    folder.sync()
