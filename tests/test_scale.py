"""Planning at scale: a mixture of experts of 671 billion parameters, as headers of sparse files."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from checkpoints import write_family
from merge_support import peak_bytes, plait, write_recipe
from plait.engine.units import GIB, format_bytes

if TYPE_CHECKING:
    from pathlib import Path


def test_ninety_two_thousand_tensors_are_planned_in_less_than_a_gibibyte(tmp_path: Path) -> None:
    write_family(tmp_path, "moe671b", finetunes=2)
    recipe = write_recipe(
        tmp_path / "recipe.yml",
        """
        merge_method: dare_ties
        base_model: base
        models:
          - {model: ft1, parameters: {weight: 0.6, density: 0.5}}
          - {model: ft2, parameters: {weight: [0.2, 0.4], density: 0.5}}
        dtype: bfloat16
        """,
    )
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
