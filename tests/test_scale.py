"""Planning at scale: a mixture of experts of 671 billion parameters, as headers of sparse files."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from checkpoints import write_family
from merge_support import peak_bytes, plait, write_recipe
from plait import plan
from plait.engine.errors import UsageError
from plait.engine.units import GIB, format_bytes

if TYPE_CHECKING:
    from pathlib import Path


RECIPE = """
    merge_method: dare_ties
    base_model: base
    models:
      - {model: ft1, parameters: {weight: 0.6, density: 0.5}}
      - {model: ft2, parameters: {weight: [0.2, 0.4], density: 0.5}}
    dtype: bfloat16
"""


def test_ninety_two_thousand_tensors_are_planned_in_less_than_a_gibibyte(tmp_path: Path) -> None:
    write_family(tmp_path, "moe671b", finetunes=2)
    recipe = write_recipe(tmp_path / "recipe.yml", RECIPE)
    started = time.monotonic()
    finished = plait("run", recipe, "--dry-run", "--json", cwd=tmp_path, measured=True)
    seconds = time.monotonic() - started
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    print(f"planned {report['tensors']} tensors in {seconds:.1f} s, {format_bytes(peak_bytes(finished))}")  # noqa: T201
    assert report["tensors"] == 92_053
    assert report["bytes_read"] > 3 * 1.3e12
    assert peak_bytes(finished) < GIB
    # Nothing of all that is ever held: a plan for terabytes needs little more than one for a toy.
    assert report["predicted_peak_bytes"] < GIB
    assert report["unused_tensors"] == []


@pytest.mark.slow
def test_their_graph_is_written_within_seconds_and_a_gibibyte(tmp_path: Path) -> None:
    write_family(tmp_path, "moe671b", finetunes=2)
    recipe = write_recipe(tmp_path / "recipe.yml", RECIPE)
    files = [word for suffix in ("svg", "dot", "mmd", "json", "html") for word in ("--graph", f"graph.{suffix}")]
    finished = plait("run", recipe, "--dry-run", "--json", *files, cwd=tmp_path, measured=True)
    assert finished.returncode == 0, finished.stderr
    assert peak_bytes(finished) < GIB
    sizes = {path.suffix: path.stat().st_size for path in tmp_path.glob("graph.*")}
    assert max(sizes[suffix] for suffix in (".svg", ".dot", ".mmd")) < 50_000
    assert sizes[".json"] < 1_000_000
    assert sizes[".html"] < 5_000_000
    merge = plan(recipe)
    started = time.process_time()
    merge.write_graph(tmp_path / "all.json", expand=True)
    assert time.process_time() - started < 12
    found = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert len(found["tensors"]) == found["totals"]["tensors"] == 92_053
    assert sum(tensor["bytes"] for tensor in found["tensors"]) == sum(shard.data_bytes for shard in merge.shards)
    with pytest.raises(UsageError, match="--tensor NAME"):
        merge.write_graph(tmp_path / "all.svg", expand=True)
