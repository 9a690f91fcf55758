"""What people look at: the page of a dry run holds the facts of the plan, at any width, whatever things are called."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import plait
import pytest
import torch
from checkpoints import Shape, write_family
from plait import cli
from plait.engine.units import format_bytes
from plait.views import console as console_view
from plait.views import dry_run
from rich.console import Console
from safetensors.torch import load_file, save_file
from view_support import DARE, FREE_BYTES, LAYERS, SCALED, page, passthrough

if TYPE_CHECKING:
    from pathlib import Path

# ------------------------------------------------------------------------------------------ the facts of the plan


def test_the_page_holds_the_facts_of_the_plan(planned) -> None:
    merge = planned(DARE)
    text = page(merge)
    plan = merge.plan
    for size_bytes in (
        plan.bytes_read,
        plan.bytes_written,
        plan.predicted_peak_bytes,
        plan.budget_bytes,
        plan.arena_bytes,
        merge.disk_needed_bytes,
        FREE_BYTES,
    ):
        assert format_bytes(size_bytes) in text
    for ref in merge.models:
        assert str(ref) in text
    assert f"{merge.tensors} tensors" in text
    assert "at most 1 pass over a tensor" in text
    assert ", seed 0" in text


def test_the_page_follows_the_recipe(planned) -> None:
    first = page(planned(DARE))
    assert "density=0.55" in first
    assert "density=0.25" in page(planned(DARE.replace("0.55", "0.25")))
    assert "elect" not in page(planned(DARE.replace("dare_ties", "dare_linear")))
    assert "at most 2 passes over a tensor" in page(planned(DARE + "    parameters: {rescale: l1}\n"))
    assert ", seed 7" in page(planned(DARE, seed=7))
    assert "seed" not in page(planned(DARE.replace("dare_ties", "ties")))  # nothing is random


def test_too_little_disk_is_said(planned) -> None:
    lines = dry_run.page(planned(DARE), None, free_disk_bytes=1000)
    assert any("1000 B free: too little" in line.plain for line in lines)


def test_warnings_and_unused_tensors_are_on_the_page(planned) -> None:
    text = page(planned(passthrough(("BASE", 0, 8), ("FT1", 0, 4)) + "\nwhatever: 1\n"))
    assert "warning: " in text
    assert "'whatever'" in text
    assert "tensors are not used: " in text


def test_a_model_of_which_nothing_is_used_is_told_with_the_reason(planned) -> None:
    plain = """
        merge_method: linear
        base_model: BASE
        models: [{model: FT1, parameters: {weight: 1}}, {model: FT2, parameters: {weight: 0}}]
        """
    base, scaled_away = planned(plain).warnings
    assert base.endswith("base: linear takes nothing of the base model but config and tokenizer")
    assert scaled_away.endswith("ft2: nothing of this model is in the result: a weight, a scale or a density is 0")


def test_a_result_that_gets_no_config_is_said_before_the_work(planned, tmp_path, view_family) -> None:
    (tmp_path / "bare").mkdir()
    for file in (view_family / "ft1").glob("*.safetensors*"):
        (tmp_path / "bare" / file.name).write_bytes(file.read_bytes())
    two = "merge_method: linear\nparameters: {{weight: 1}}\nmodels: [{}, {}]\n"
    (warning,) = planned(two.format("bare", "FT2")).warnings
    assert warning.startswith("bare: has no config.json, which the result takes from it")
    assert planned(two.format("FT2", "bare")).warnings == ()
    assert "  B without config.json\n" in page(planned(two.format("FT2", "bare")))


def test_a_bound_is_never_said_to_be_less_than_what_it_bounds(planned) -> None:
    merge = planned(DARE)
    assert merge.plan.minimum_bytes > merge.plan.predicted_peak_bytes  # the least that is promised has a margin
    enough = merge.plan.minimum_bytes >> 20
    assert f"; --memory {enough}MiB is enough" in page(merge)
    assert merge.plan.minimum_bytes == enough << 20  # as it can be copied


# -------------------------------------------------------------------------------------------------------- folding


def graph_of(text: str) -> list[str]:
    """The lines of the graph, without the guides' and columns' spaces."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("output"))
    end = lines.index("", start)
    return [" ".join(line.split()) for line in lines[start + 1 : end]]


def test_layers_that_are_alike_are_one_line(planned) -> None:
    graph = graph_of(page(planned(DARE)))
    assert [line.split()[1] for line in graph] == [
        "model.embed_tokens.weight",
        "model.layers.0–11",
        "model.norm.weight",
        "lm_head.weight",
    ]
    assert graph[1].endswith("A B C 0–11")
    assert f" {LAYERS * 9} " in graph[1]


def test_a_gradient_is_one_line_and_a_range(planned) -> None:
    text = page(planned(DARE.replace("weight: 0.5", "weight: [0.1, 0.9]")))
    assert len(graph_of(text)) == 4
    assert "factor=0.1667…1.5" in text


def test_a_gradient_of_shares_that_are_kept_is_one_line_and_a_range(planned) -> None:
    # How many elements are kept is another number in every layer and for every shape.
    ties = DARE.replace("dare_ties", "ties").replace("density: 0.6", "density: [0.2, 0.9]")
    text = page(planned(ties))
    assert len(graph_of(text)) == 4
    assert "count=35…18 022" in text  # 0.55 of a norm's 64 elements, and of the embedding's 32 768


def test_a_layer_that_is_repeated_says_so(planned) -> None:
    recipe = passthrough(("BASE", 0, LAYERS), *[("BASE", LAYERS - 1, LAYERS, SCALED)] * 5)
    graph = graph_of(page(planned(recipe)))
    assert graph[1].endswith("A 0–11")
    assert "model.layers.12–16 45 " in graph[2]
    assert graph[2].endswith("A 11 (5 times)")
    assert "fill: mlp.down_proj.weight, self_attn.o_proj.weight" in graph[4]


def test_plain_repetition_is_told_from_going_on(planned) -> None:
    graph = graph_of(page(planned(passthrough(("BASE", 0, 8), ("BASE", 7, 8), ("BASE", 7, 8), ("FT1", 4, 12)))))
    layers = [line for line in graph if "model.layers." in line]
    assert [line.split("]", 1)[1].strip() for line in layers] == ["A 0–7", "A 7 (2 times)", "B 4–11"]


def test_a_pattern_that_repeats_is_one_entry(planned) -> None:
    slices = []
    for start in range(0, LAYERS, 3):
        slices += [("BASE", start, start + 3), ("BASE", start + 2, start + 3, SCALED)]
    graph = graph_of(page(planned(passthrough(*slices))))
    assert graph[1].startswith(f"├ model.layers.0–15 {16 * 9} ")
    assert graph[1].endswith("4 times:")
    assert graph[2].endswith("A 0–2")
    assert graph[3].endswith("A 2")
    assert len([line for line in graph if "model.layers" in line]) == 3


def test_verbose_unfolds(planned) -> None:
    merge = planned(DARE)
    text = page(merge, verbose=True)
    assert all(tensor.name in text for tensor in merge.compiled.mapping.tensors)
    assert all(shard.file_name in text for shard in merge.shards)


# -------------------------------------------------------------------------------- widths, colours, pipes, odd names


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal_or_ends_in_spaces(planned, width) -> None:
    for recipe in (DARE, passthrough(("BASE", 0, 12), *[("BASE", 11, 12, SCALED)] * 3)):
        lines = [line.plain for line in dry_run.page(planned(recipe), width, free_disk_bytes=FREE_BYTES)]
        assert all(line == line.rstrip() for line in lines)
        assert width < 80 or max(map(len, lines)) <= width


def test_a_long_name_keeps_its_end(planned, view_family: Path) -> None:
    text = page(planned(DARE), 80)
    assert "base" in text
    assert str(view_family / "ft1") not in text
    assert "ft1  " in text


def run_plait(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "plait", *arguments],
        capture_output=True,
        check=True,
        env={**os.environ, **environment},
        timeout=120,
    )


def test_piped_output_is_plain_and_whole(planned, tmp_path) -> None:
    planned(DARE)
    ran = run_plait("run", str(tmp_path / "recipe.yml"), "--dry-run", COLUMNS="80")
    text = ran.stdout.decode()
    assert "\x1b" not in text
    assert str(tmp_path) not in ran.stderr.decode()
    assert all(line == line.rstrip() for line in text.splitlines())
    assert "output  " in text


def test_a_reader_that_leaves_is_no_error(planned, tmp_path) -> None:
    planned(DARE)
    command = [sys.executable, "-m", "plait", "run", str(tmp_path / "recipe.yml"), "--dry-run", "-v"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ran:
        assert ran.stdout is not None
        ran.stdout.close()
        assert ran.wait(timeout=120) == 0
        assert ran.stderr is not None
        assert ran.stderr.read() == b""


def test_an_interruption_has_its_own_exit_code(monkeypatch, capsys) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("plait.api.plan", interrupted)
    monkeypatch.setattr("sys.argv", ["plait", "run", "recipe.yml", "--dry-run"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_stream_without_these_letters_gets_others(planned, tmp_path) -> None:
    planned(DARE)
    ran = run_plait("run", str(tmp_path / "recipe.yml"), "--dry-run", PYTHONIOENCODING="ascii")
    assert b"| model.layers.0-11" in ran.stdout


def test_no_color_means_no_colour(planned, monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system="truecolor")
    console_view.print_lines(console, dry_run.page(planned(DARE), 80, free_disk_bytes=FREE_BYTES))
    codes = {code for part in stream.getvalue().split("\x1b[")[1:] for code in part.split("m")[0].split(";")}
    assert codes <= {"0", "1", "2"}  # bold and dim are no colours


def test_odd_names_are_shown_as_they_are_and_cannot_steer_the_terminal(tmp_path) -> None:
    write_family(tmp_path, Shape(64, 176, 2, 4, 2, 512), finetunes=1)
    for folder in ("base", "ft1"):
        path = tmp_path / folder / "model.safetensors"
        tensors = load_file(path)
        tensors["[bold red]x[/red]"] = torch.zeros(2, dtype=torch.bfloat16)
        tensors["evil\u202e\u2028[/]"] = torch.zeros(2, dtype=torch.bfloat16)
        tensors["层的权重"] = torch.zeros(2, dtype=torch.bfloat16)
        save_file(tensors, path)
    odd = tmp_path / "[bold]model[bold]"
    (tmp_path / "ft1").rename(odd)
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(
        f"merge_method: linear\nmodels:\n"
        f"  - {{model: {tmp_path / 'base'}, parameters: {{weight: 1}}}}\n"
        f"  - {{model: '{odd}', parameters: {{weight: 1}}}}\n"
    )
    merge = plait.plan(recipe)
    stream = io.StringIO()
    console_view.print_lines(
        Console(file=stream, width=200), dry_run.page(merge, None, free_disk_bytes=FREE_BYTES, verbose=True)
    )
    text = stream.getvalue()
    assert "[bold]model[bold]" in text
    assert "[bold red]x[/red]" in text
    assert "evil\\u202e\\u2028[/]" in text
    assert "层的权重" in text
    assert not {"\x1b", "\u202e", "\u2028"} & set(text)
    for width in (20, 40, 80):
        page(merge, width)
