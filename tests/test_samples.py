"""Samples of a run: bounded, evenly spread, the ends kept; and what a run writes of them."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import plait
import torch
from hypothesis import given
from hypothesis import strategies as st
from merge_support import save_model, write_recipe
from plait.engine.samples import MOST_SAMPLES, Sample, Samples

if TYPE_CHECKING:
    from pathlib import Path


@given(count=st.integers(1, 5000), most=st.integers(4, 300))
def test_samples_are_bounded_even_and_keep_both_ends(count: int, most: int) -> None:
    samples = Samples(most)
    for second in range(count):
        samples.add(Sample(float(second), 2 * second, second, 7))
    kept = [int(row.seconds) for row in samples.rows()]
    assert len(kept) <= most
    assert kept[0] == 0
    assert kept[-1] == count - 1
    steps = {after - before for before, after in itertools.pairwise(kept[:-1])}
    assert len(steps) <= 1  # all alike but the last
    if count >= most:
        assert len(kept) >= most // 2 - 1  # thinned, not thrown away
    else:
        assert kept == list(range(count))


def test_no_sample_gives_empty_columns() -> None:
    assert Samples().columns() == {"seconds": [], "bytes_read": [], "bytes_written": [], "resident_bytes": []}


def test_a_run_writes_its_samples_into_the_manifest(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_model(tmp_path / name, {"weight": torch.ones(256, 256)})
    recipe = write_recipe(
        tmp_path / "recipe.yml", "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
    )
    result = plait.plan(recipe).run(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "plait-manifest.json").read_text())
    columns = manifest["samples"]
    assert set(columns) == {"seconds", "bytes_read", "bytes_written", "resident_bytes"}
    assert len({len(column) for column in columns.values()}) == 1
    assert 2 <= len(columns["seconds"]) <= MOST_SAMPLES
    assert columns["seconds"] == sorted(columns["seconds"])
    assert columns["bytes_read"][0] == 0
    assert columns["bytes_read"][-1] == result.bytes_read == 2 * 256 * 256 * 4
    assert columns["bytes_written"][-1] == 256 * 256 * 4
    # The system counts pages in batches, so that its two figures are a little apart.
    assert all(0 < held <= result.measured_peak_bytes + (4 << 20) for held in columns["resident_bytes"])
    assert manifest["resumed"] is False
