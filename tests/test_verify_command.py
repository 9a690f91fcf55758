"""`plait verify` and `plait run --verify`: what they say, exit codes, memory."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

import plait
import pytest
import torch
from checkpoints import write_family
from merge_support import peak_bytes, write_recipe
from merge_support import plait as in_a_process
from plait.views import console as console_view
from plait.views import verify as verify_view
from rich.console import Console
from verify_support import DOWN, SHARD, make_merge, overwrite, rewrite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_support import Said

MIB = 1 << 20


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return make_merge(tmp_path)


def test_the_command_says_what_is_wrong_and_leaves_with_3(out: Path, say: Callable[..., Said]) -> None:
    code, text, err = say("verify", out, "--hash")
    assert (code, err) == (0, "")
    assert text.count("✓") == 7
    assert say("verify", out, "-q") == (0, "", "")
    name = overwrite(out, DOWN, 0, b"\x80\x7f")
    code, text, err = say("verify", out)
    assert (code, err) == (3, f"error: {out}: the verification found 1 problem\n")
    assert f"{DOWN}: [64, 176] holds infinity at [0, 0]" in text
    code, text, err = say("verify", out, "-q")
    assert (code, text) == (3, "")
    assert DOWN in err
    assert "Traceback" not in err
    code, text, _ = say("verify", out, "--hash", "--json")
    report = json.loads(text)
    assert code == 3
    assert (report["ok"], report["problems"], report["manifest"]) == (False, 2, True)
    states = {check["name"]: check["state"] for check in report["checks"]}
    assert (states["values"], states["contents"], states["config"]) == ("problem", "problem", "fine")
    assert name in {shard["name"] for shard in report["shards"]}


def test_a_run_records_digests_only_with_verify(out: Path, say: Callable[..., Said]) -> None:
    recipe = out.parent / "recipe.yml"
    assert say("run", recipe, out.parent / "plain", "-q").code == 0
    plain = json.loads((out.parent / "plain" / "plait-manifest.json").read_text())
    assert all("sha256" not in shard for shard in plain["shards"])
    code, text, _ = say("run", recipe, out.parent / "checked", "--verify", "--json")
    assert code == 0
    assert json.loads(text)["verification"]["ok"] is True
    checked = json.loads((out.parent / "checked" / "plait-manifest.json").read_text())
    assert all(len(shard["sha256"]) == 64 for shard in checked["shards"])
    code, text, _ = say("verify", out.parent / "plain", "--hash")
    assert code == 0
    assert "none are recorded" in text


def test_a_run_whose_output_is_bad_leaves_with_4_and_the_folder(tmp_path: Path, say: Callable[..., Said]) -> None:
    # A plain copy is not looked into while it is made.
    write_family(tmp_path / "family", "tiny", finetunes=0)
    rewrite(
        tmp_path / "family" / "base" / "model.safetensors",
        lambda tensors: tensors["model.norm.weight"].__setitem__(9, torch.nan),
    )
    recipe = write_recipe(
        tmp_path / "recipe.yml",
        """\
        merge_method: passthrough
        models: [{model: family/base}]
        dtype: bfloat16
        """,
    )
    code, text, err = say("run", recipe, tmp_path / "out", "--verify")
    assert code == 4
    assert "model.norm.weight: [64] holds NaN at [9]" in text
    assert err.endswith("the verification found 1 problem\n")
    assert "--resume" not in err
    assert (tmp_path / "out" / "config.json").exists()
    assert not (tmp_path / "out" / "plait-journal").exists()
    manifest = json.loads((tmp_path / "out" / "plait-manifest.json").read_text())
    assert "sha256" not in manifest["shards"][0]


def test_nan_that_the_run_let_through_is_a_warning(out: Path) -> None:
    path = out / "plait-manifest.json"
    manifest = json.loads(path.read_text())
    manifest["inputs"][0]["nonfinite"] = [DOWN]
    path.write_text(json.dumps(manifest))
    overwrite(out, DOWN, 0, b"\xc0\x7f")
    report = plait.verify(out)
    assert (report.ok, report.warnings) == (True, 1)


def test_a_replaced_folder_is_verified_under_its_name(out: Path) -> None:
    plan = plait.plan(out.parent / "recipe.yml", shard_size=150_000)
    result = plan.run(out, overwrite=True, verify=True)
    assert result.verification is not None
    assert result.verification.folder == str(out)
    assert plait.verify(out, hash=True).ok


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_page_fits_its_width_and_needs_neither_colour_nor_these_letters(out: Path, width: int) -> None:
    overwrite(out, DOWN, 0, b"\x80\x7f")
    (out / SHARD.format(3)).unlink()
    report = plait.verify(out, hash=True)
    page = list(verify_view.page(report, width))
    longest_word = max(len(word) for line in page for word in line.plain.split())
    assert all(line.cell_len <= max(width, longest_word + 8) for line in page)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console_view.print_lines(Console(file=stream, width=width), page)
    stream.seek(0)
    text = stream.read()
    assert "  x shards" in text
    assert "\x1b" not in text
    assert len([line for line in text.splitlines() if line[2:3] in "+x!-?" and line[3:4] == " "]) >= 7


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process from /proc")
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    write_family(tmp_path / "small", "tiny", finetunes=0)
    write_family(tmp_path / "large", "100m", finetunes=0)
    small, large = (
        in_a_process("verify", tmp_path / size / "base", "--hash", cwd=tmp_path, measured=True)
        for size in ("small", "large")
    )
    assert (small.returncode, large.returncode) == (0, 0)
    # 200 MB are read; two threads have three chunks of 2 MiB each, and another thread's stack and heap.
    assert peak_bytes(large) - peak_bytes(small) < 40 * MIB
