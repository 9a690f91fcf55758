"""Devices on the command line and in the API: what is chosen, reported, and costs nothing where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import plait
import pytest
from checkpoints import Shape, write_family
from merge_support import file_bytes, write_recipe
from plait.engine import devices
from plait.engine.devices import kinds_there, pretended
from plait.engine.errors import UsageError
from plait.engine.units import MIB, format_bytes
from plait.views.report_facts import Fact, facts_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_support import Said

SHAPE = Shape(hidden=256, intermediate=688, layers=2, heads=4, kv_heads=2, vocabulary=1031)
RECIPE = """
    merge_method: dare_ties
    base_model: family/base
    models:
      - {model: family/ft1, parameters: {weight: 0.6, density: 0.5}}
      - {model: family/ft2, parameters: {weight: 0.3, density: 0.4}}
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("here")
    write_family(folder / "family", SHAPE, finetunes=2)
    write_recipe(folder / "recipe.yml", RECIPE)
    return folder


def test_a_merge_on_a_device_is_the_merge_on_the_host(here: Path, tmp_path: Path) -> None:
    recipe = here / "recipe.yml"
    plait.plan(recipe, device="cpu", workers=2).run(tmp_path / "host")
    merge = plait.plan(recipe, device=pretended(), device_memory="64MiB", workers=2)
    planned = merge.report()
    result = merge.run(tmp_path / "device", profile=True)
    host, device = file_bytes(tmp_path / "host"), file_bytes(tmp_path / "device")
    changing = {"plait-manifest.json", "plait-trace.json.gz"}
    assert {name for name in host if host[name] != device.get(name)} <= changing
    assert set(device) - set(host) <= changing
    assert (planned["device"], result.device) == ("pretended:0", "pretended:0")
    (entry,) = result.devices
    predicted, measured = entry["predicted_peak_bytes"], entry["measured_peak_bytes"]
    assert isinstance(predicted, int)
    assert isinstance(measured, int)
    assert planned["devices"] == [{"name": "pretended:0", "predicted_peak_bytes": predicted}]
    assert 0 < measured <= predicted <= 64 * MIB
    assert json.loads(device["plait-manifest.json"])["devices"] == [entry]
    told = f"{format_bytes(measured)} at peak, {format_bytes(predicted)} predicted"
    assert Fact("device", "pretended:0", told) in facts_of(plait.report(tmp_path / "device"))
    assert result.measured_peak_bytes <= result.predicted_peak_bytes + measured
    assert result.profile is not None
    assert sum(result.profile.activities.values()) > 0


def test_a_device_that_was_asked_for_and_cannot_help_is_a_warning(here: Path) -> None:
    merge = plait.plan(here / "recipe.yml", device=pretended(), device_memory="64KiB", workers=2)
    assert merge.report()["device"] == "cpu"
    assert any("pretended:0 is left out: 64.0 KiB are too little" in warning for warning in merge.warnings)


def test_without_a_device_auto_is_the_host_and_says_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "kinds_there", tuple)
    planned = plait.plan(here / "recipe.yml").report()
    assert (planned["device"], planned["devices"], planned["placement"]) == ("cpu", [], [])


def test_a_device_that_is_not_there_is_refused_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "kinds_there", tuple)
    recipe = write_recipe(tmp_path / "recipe.yml", RECIPE)
    with pytest.raises(UsageError, match=r"--device cuda:1: there is no such device here; there is cpu$"):
        plait.plan(recipe, device="cuda:1")


@pytest.mark.skipif(kinds_there() != (), reason="this machine has a device")
def test_the_command_line_names_what_is_there(here: Path, say: Callable[..., Said]) -> None:
    said = say("run", here / "recipe.yml", "--dry-run", "--device", "cuda")
    assert (said.code, said.out) == (2, "")
    assert said.err.strip().endswith("--device cuda: there is no such device here; there is cpu")


def test_a_bound_that_is_no_size_is_refused(here: Path) -> None:
    with pytest.raises(ValueError, match="'much' is not a size"):
        plait.plan(here / "recipe.yml", device="cpu", device_memory="much")


@pytest.mark.skipif(kinds_there() != (), reason="this machine has a device")
def test_a_machine_without_a_device_does_not_pay_for_one(here: Path) -> None:
    code = (
        "import sys, plait.api\n"
        f"plait.api.plan({str(here / 'recipe.yml')!r})\n"
        "loaded = [name for name in ('accelerate', 'transformers') if name in sys.modules]\n"
        "assert loaded == [], loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=here)
