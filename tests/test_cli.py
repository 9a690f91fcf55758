"""The command line: exit codes, messages, JSON.

What a process as a whole does is tested in one; the rest runs `main` in this one, which says the same faster.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import plait
import pytest
from checkpoints import write_family
from command_support import Said
from merge_support import plait as in_a_process
from merge_support import tensors_of, write_recipe
from plait.examples.specialists import FOLDER, replaces
from safetensors.torch import load_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


RUN_FIELDS = (
    "output recipe_sha256 seed device workers tensors bytes_read bytes_written passes predicted_peak_bytes "
    "measured_peak_bytes reserved_bytes predicted_seconds seconds resumed shards warnings devices"
)
DRY_RUN_FIELDS = (
    "tensors passes bytes_read bytes_written disk_needed_bytes predicted_peak_bytes minimum_memory_bytes "
    "reserved_bytes predicted_seconds ops device devices placement shards models unused_tensors warnings"
)
METHODS = {"dare_linear", "dare_ties", "linear", "passthrough", "task_arithmetic"}
RECIPE = """
    merge_method: linear
    models:
      - {model: family/ft1, parameters: {weight: 0.4}}
      - {model: family/ft2, parameters: {weight: 0.6}}
    dtype: bfloat16
    """


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a family of models and a recipe."""
    write_family(tmp_path / "family", "tiny", finetunes=2)
    write_recipe(tmp_path / "recipe.yml", RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------------------------------------------ processes


def test_a_recipe_from_standard_input_runs_and_gives_one_json_object(here: Path) -> None:
    finished = in_a_process("run", "-", "out", "--json", cwd=here, stdin=(here / "recipe.yml").read_text())
    assert (finished.returncode, finished.stderr.replace("\n", "")) == (0, "")
    report = json.loads(finished.stdout)
    assert list(report) == RUN_FIELDS.split()
    assert report["output"] == "out"
    assert report["tensors"] == len(tensors_of(here / "out")) == 39
    assert (report["seed"], report["device"], report["resumed"], report["passes"]) == (0, "cpu", False, 1)
    assert [set(shard) for shard in report["shards"]] == [{"name", "bytes", "tensors"}]
    assert (here / "out" / "plait.yml").read_text() == (here / "recipe.yml").read_text()


def test_a_users_mistake_shows_no_stack_trace_unless_asked_for(here: Path, say: Callable[..., Said]) -> None:
    write_recipe(here / "wrong.yml", RECIPE.replace("linear", "dare-ties").replace("dtype", "dype"))
    said = say("run", "wrong.yml", "out")
    assert (said.code, said.out) == (2, "")
    lines = said.err.splitlines()
    # Every mistake in one go, with its place and the name that was meant.
    assert all(line.startswith("error: wrong.yml:") for line in lines)
    assert any("'dare-ties'" in line and "'dare_ties'" in line for line in lines)
    assert any("'dype'" in line and "'dtype'" in line for line in lines)
    verbose = say("run", "wrong.yml", "out", "-v")
    assert verbose.code == 2
    assert "Traceback" in verbose.err
    assert verbose.err.endswith(said.err)


def test_the_version(tmp_path: Path) -> None:
    finished = in_a_process("--version", cwd=tmp_path)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, f"plait {plait.__version__}\n", "")


# ------------------------------------------------------------------------------------------------ run


def test_a_dry_run_gives_the_documented_fields_and_writes_nothing(here: Path, say: Callable[..., Said]) -> None:
    said = say("run", "recipe.yml", "--dry-run", "--json")
    assert (said.code, said.err) == (0, "")
    report = said.report
    assert list(report) == DRY_RUN_FIELDS.split()
    assert report["ops"] == {"add": 39, "cast": 117, "load": 78, "scale": 78, "write": 39}
    assert [(model["reference"], model["tensors"]) for model in report["models"]] == [
        ("family/ft1", 39),
        ("family/ft2", 39),
    ]
    assert all(set(model) == {"reference", "revision", "tensors", "bytes"} for model in report["models"])
    assert [set(shard) for shard in report["shards"]] == [{"name", "bytes", "tensors"}]
    assert say("run", "recipe.yml", "out", "--dry-run", "--json").code == 0
    assert sorted(path.name for path in here.iterdir()) == ["family", "recipe.yml"]


def test_a_dry_run_for_people_names_models_totals_and_ops(here: Path, say: Callable[..., Said]) -> None:
    said = say("run", "recipe.yml", "--dry-run")
    assert said.code == 0
    for part in ("family/ft1", "family/ft2", "linear", "model.layers.0–3", "39 tensors", "1 pass", "[512, 64]"):
        assert part in said.out
    one = say("run", "recipe.yml", "--dry-run", "--tensor", "model.norm.weight")
    assert "0.4" in one.out
    assert "model.layers" not in one.out


def test_an_unknown_tensor_is_a_mistake(here: Path, say: Callable[..., Said]) -> None:
    found = say("run", "recipe.yml", "--dry-run", "--tensor", "model.norm.weight", "--json").report["graph"]
    assert [tensor["name"] for tensor in found["tensors"]] == ["model.norm.weight"]
    said = say("run", "recipe.yml", "--dry-run", "--tensor", "model.nrm.weight")
    assert said.code == 2
    assert "model.nrm.weight" in said.err


def test_a_run_says_what_it_did_and_quietly_nothing(here: Path, say: Callable[..., Said]) -> None:
    loud = say("run", "recipe.yml", "out")
    assert loud.code == 0
    assert "39 tensors" in loud.out
    quiet = say("run", "recipe.yml", "quiet", "-q")
    assert quiet == Said(0, "", "")
    assert (here / "quiet" / "config.json").exists()
    # Quiet about the way, not about the result that was asked for.
    both = say("run", "recipe.yml", "both", "-q", "--json")
    assert (both.code, both.err, list(both.report)) == (0, "", RUN_FIELDS.split())


def test_warnings_go_to_standard_error(here: Path, say: Callable[..., Said]) -> None:
    write_recipe(here / "recipe.yml", RECIPE + "something_of_mine: 3\n")
    said = say("run", "recipe.yml", "out", "--json")
    assert said.code == 0
    assert "something_of_mine" in said.err
    (warning,) = said.report["warnings"]
    assert warning.startswith("recipe.yml:7:")
    strict = say("run", "recipe.yml", "strict", "--strict")
    assert strict.code == 2
    assert "error: recipe.yml:7:" in strict.err


def test_the_seed_of_the_option_goes_before_that_of_the_recipe(here: Path, say: Callable[..., Said]) -> None:
    write_recipe(here / "recipe.yml", RECIPE + "seed: 5\n")
    assert say("run", "recipe.yml", "one", "--json").report["seed"] == 5
    assert say("run", "recipe.yml", "two", "--json", "--seed", "9").report["seed"] == 9
    assert say("run", "recipe.yml", "three", "--json", "--seed", "0").report["seed"] == 0


def test_workers_and_shard_size_are_taken(here: Path, say: Callable[..., Said]) -> None:
    report = say("run", "recipe.yml", "out", "--json", "--workers", "3", "--shard-size", "200K").report
    assert report["workers"] == 3
    assert len(report["shards"]) > 2
    assert all(shard["bytes"] <= 200_000 for shard in report["shards"])


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("run", ["RECIPE", "OUT"]), ("verify", ["OUT"]), ("methods", ["NAME"]), ("demo", ["DIR"]), ("inspect", ["MODEL"])],
)
def test_help_calls_the_arguments_what_the_guide_calls_them(
    say: Callable[..., Said], command: str, arguments: list[str]
) -> None:
    usage = next(line for line in say(command, "--help").out.splitlines() if "Usage" in line)
    assert re.findall(r"\w+", usage.partition("[OPTIONS]")[2]) == arguments


# ------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "recipe.yml"), 2, "OUT"),
        (("run", "missing.yml", "out"), 2, "missing.yml: the recipe cannot be read"),
        (("run", "recipe.yml", "family"), 2, "overlaps with the input"),
        (("run", "recipe.yml", "full"), 2, "full is not empty; choose another folder, or replace it with --overwrite"),
        (("run", "recipe.yml", "out", "--memory", "lots"), 2, "--memory: 'lots' is not a size; write 512MiB"),
        (("run", "recipe.yml", "out", "--shard-size", "0"), 2, "--shard-size: '0' is not a size"),
        (("run", "recipe.yml", "out", "--workers", "0"), 2, "--workers"),
        (("run", "recipe.yml", "out", "--no-such-option"), 2, "--no-such-option"),
        (("run", "recipe.yml", "out", "--map", "family/ft1"), 2, "--map family/ft1: write REF=PATH"),
        (("run", "recipe.yml", "out", "--map", "family/ft9=family/base"), 2, "the recipe names no such model"),
        (("run", "recipe.yml", "out", "--map", "family/ft1=nowhere"), 3, "nowhere does not exist"),
        (("run", "recipe.yml", "out", "--memory", "10MiB"), 4, "the least that works is"),
        (("inspect", "nowhere"), 3, "nowhere"),
        (("methods", "dare-ties"), 2, "dare_ties"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_a_mistake_is_one_message_with_its_code(
    here: Path, say: Callable[..., Said], arguments: tuple[str, ...], code: int, message: str
) -> None:
    (here / "full").mkdir()
    (here / "full" / "mine.txt").touch()
    said = say(*arguments)
    assert (said.code, said.out) == (code, "")
    assert message in " ".join(said.err.split())
    assert "Traceback" not in said.err
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no safetensors files"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"short"), "model.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json:1:2: not JSON"),
    ],
)
def test_an_unreadable_input_is_named(
    here: Path, say: Callable[..., Said], spoil: Callable[[Path], object], message: str
) -> None:
    spoil(here / "family" / "ft2")
    said = say("run", "recipe.yml", "out")
    assert said.code == 3
    assert message in said.err
    assert str(here / "family" / "ft2") in said.err


def test_every_input_that_is_not_there_is_named_in_one_go(here: Path, say: Callable[..., Said]) -> None:
    write_recipe(here / "recipe.yml", RECIPE.replace("family/", "famly/"))
    said = say("run", "recipe.yml", "out")
    assert said.code == 3
    assert [line.count(f"famly/ft{number}") > 0 for number, line in enumerate(said.err.splitlines(), 1)] == [True, True]


def test_a_missing_input_never_hides_a_mistake_in_the_recipe(here: Path, say: Callable[..., Said]) -> None:
    write_recipe(here / "recipe.yml", RECIPE.replace("family/", "nowhere/").replace("weight", "wieght"))
    assert say("run", "recipe.yml", "out").code == 2


# ------------------------------------------------------------------------------------------------ models by name


def test_a_map_stands_in_wherever_the_recipe_names_the_model(here: Path, say: Callable[..., Said]) -> None:
    write_recipe(here / "recipe.yml", RECIPE.replace("family/ft1", "org/one@v2").replace("family/ft2", "org/two"))
    maps = ("--map", "org/one@v2=family/ft1", "--map", "org/two=family/ft2")
    said = say("run", "recipe.yml", "mapped", "--json", *maps)
    assert said.code == 0, said.err
    write_recipe(here / "plain.yml", RECIPE)
    say("run", "plain.yml", "plain", "-q")
    assert (here / "mapped" / "model.safetensors").read_bytes() == (here / "plain" / "model.safetensors").read_bytes()
    inputs = json.loads((here / "mapped" / "plait-manifest.json").read_text())["inputs"]
    assert [(entry["reference"], entry["revision"]) for entry in inputs] == [("org/one@v2", "v2"), ("org/two", None)]


def test_paths_are_looked_up_from_the_recipe_first(here: Path, say: Callable[..., Said]) -> None:
    (here / "recipes").mkdir()
    write_recipe(here / "recipes" / "recipe.yml", RECIPE.replace("family/", "../family/"))
    assert say("run", "recipes/recipe.yml", "out", "-q").code == 0


# ------------------------------------------------------------------------------------------------ other commands


def test_methods_are_listed_and_shown(say: Callable[..., Said]) -> None:
    listed = say("methods")
    assert listed.code == 0
    assert all(name in listed.out for name in METHODS)
    shown = say("methods", "dare_ties")
    assert all(word in shown.out for word in ("dare_ties", "density", "weight", "rescale", "arXiv:2311.03099"))
    assert {method["name"] for method in say("methods", "--json").report["methods"]} >= METHODS
    page = say("methods", "--markdown").out
    assert say("methods", "dare_ties", "--markdown").out in page


def test_inspect_shows_what_a_folder_holds(here: Path, say: Callable[..., Said]) -> None:
    said = say("inspect", "family/base", "family/ft1")
    assert said.code == 0
    assert all(part in said.out for part in ("LlamaForCausalLM", "model.layers", "4 layers", "bfloat16", "512"))
    first, second = say("inspect", "family/base", "family/ft1", "--json").report["models"]
    assert (first["tensors"], first["vocabulary_rows"], second["reference"]) == (39, 512, "family/ft1")
    assert first["stacks"] == [{"prefix": "model.layers", "layers": 4, "primary": True}]


def test_the_demo_merges_two_skills_into_one_model(here: Path, say: Callable[..., Said]) -> None:
    said = say("demo", "demo")
    assert said.code == 0
    assert (here / "demo" / "config.json").exists()
    assert replaces(here / "demo")
    assert not replaces(here / "new")
    *inputs, merged = [line.split() for line in said.out.splitlines()[-4:]]
    assert (merged[0], len(merged)) == ("merged", 3)
    weights = load_file(here / "demo" / "model.safetensors")
    for name, *_, distance in inputs:
        before = load_file(FOLDER / name / "model.safetensors")
        moved = sum(float((weights[key].double() - before[key].double()).square().sum()) for key in weights)
        size = sum(float(before[key].double().square().sum()) for key in weights)
        assert distance == f"{(moved / size) ** 0.5:.1%}"


def test_the_demo_replaces_only_what_a_demo_made(here: Path, say: Callable[..., Said]) -> None:
    before = {path.name: path.read_bytes() for path in (here / "family" / "base").iterdir()}
    said = say("demo", "family/base")
    assert (said.code, said.out) == (2, "")
    assert "is not empty, and not of a demo" in said.err
    assert {path.name: path.read_bytes() for path in (here / "family" / "base").iterdir()} == before
