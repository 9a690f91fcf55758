"""The guide's "Add a method", followed to the letter: its block in one new file of a copy of the package, and no more.

A copy, in processes of its own, because a method once registered stays, and no other test should meet it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from command_support import each_of
from merge_support import write_recipe
from test_imports import BESIDE, ROOMS, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from command_support import Said

NAME = "clipped_arithmetic"

RECIPE = """
    merge_method: clipped_arithmetic
    base_model: ./base
    models:
      - {model: ./one, parameters: {wieght: 0.5}}
      - {model: ./two, parameters: {weight: 0.5}}
    parameters: {bond: 0.01, lambda: many}
    """


def block() -> str:
    """The file that the guide shows."""
    section = (ROOT / "docs/contributing.md").read_text(encoding="utf-8").split("\n## Add a method\n")[1]
    return section.split("```python\n")[1].split("```\n")[0]


def copy_of_the_package(folder: Path, new_file: str) -> Path:
    """The package with its tests and docs, and one file more."""
    package = folder / "plait"
    for name in (*ROOMS, *BESIDE):
        shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.py"), ROOT / "pyproject.toml"):
        shutil.copy(path, package)
    (package / "ops/methods/clipped.py").write_text(new_file, encoding="utf-8")
    return package


def environment(package: Path) -> dict[str, str]:
    """In which ``plait`` is the copy."""
    return {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONIOENCODING": "utf-8"}


def python(package: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A process in which ``plait`` is the copy."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=package,
        env=environment(package),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def outcomes(package: Path, *files: str, words: str = "", options: tuple[str, ...] = ()) -> dict[str, str]:
    """What came of each test that these files have for the new method."""
    chosen = f"{NAME} and {words}" if words else NAME
    paths = [f"tests/{file}" for file in files]
    done = python(package, "-m", "pytest", "-v", "-p", "no:cacheprovider", *options, "-k", chosen, *paths)
    found = dict(re.findall(r"::(\S.*) (PASSED|FAILED|ERROR|SKIPPED)", done.stdout))
    assert found, done.stdout + done.stderr
    return found


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = copy_of_the_package(tmp_path_factory.mktemp("one_file_more"), block())
    where = python(found, "-c", "import plait; print(plait.__file__)")
    assert where.stdout.strip() == str(found / "__init__.py")
    return found


@pytest.fixture(scope="module")
def said(package: Path) -> dict[str, Said]:
    """What the command line says with the new method."""
    write_recipe(package / "recipe.yml", RECIPE)
    commands = [["run", "recipe.yml", "--dry-run"], ["methods", NAME], ["methods", "--markdown"]]
    told = each_of(commands, package, environment=environment(package))
    return dict(zip(("run", "shown", "page"), told, strict=True))


def test_recipes_are_checked_and_the_likely_word_is_named(said: dict[str, Said]) -> None:
    code, _, mistakes = said["run"]
    assert code == 2
    assert f"'wieght' is not a parameter of {NAME}; did you mean 'weight'?" in mistakes
    assert f"'bond' is not a parameter of {NAME}; did you mean 'bound'?" in mistakes
    assert "many" in mistakes


def test_it_is_shown_with_what_it_declares(said: dict[str, Said]) -> None:
    shown = said["shown"].out
    for text in ("cut off at a bound", "clamp(Δᵢ, -bound, bound)", "how far one weight may move", "bound: 0.001"):
        assert text in shown
    assert re.search(r"passes +1\n", shown)


def test_the_page_of_methods_has_a_section_more_and_is_else_the_same(said: dict[str, Said]) -> None:
    page = said["page"].out
    heading = f"## Task vectors cut off: no single weight moves far\n\n### {NAME}\n"
    before, _, after = page.partition(heading)
    section, following, others = after.partition("\n## ")
    assert section.startswith("\nTask arithmetic with task vectors cut off at a bound.\n")
    assert "| `bound` | float | per tensor | required | at least 0 | how far one weight may move |" in section
    rest = (before + following + others).splitlines()
    rows = [line for line in rest if line.startswith(f"| [{NAME}](#{NAME}) | Task arithmetic with ")]
    assert len(rows) == 1
    committed = (ROOT / "docs/methods.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in rest if line and line not in rows] == [line for line in committed if line]


def test_it_is_held_to_the_same_bytes_and_to_its_definition(package: Path) -> None:
    files = ("test_tile_invariance.py", "test_methods_accuracy.py", "test_method_pages.py", "test_trial.py")
    found = outcomes(package, *files)
    assert {name for name, outcome in found.items() if outcome != "PASSED"} == set()
    for name in (
        "test_bytes_do_not_depend_on_tiles_and_workers",
        "test_bytes_do_not_depend_on_the_budget",
        "test_two_runs_give_the_same_bytes",
        "test_any_settings_give_what_the_definition_gives",
        "test_what_does_not_move_stays_to_the_last_bit",
        "test_an_example_is_read_and_planned",
        "test_a_section_says_all_that_is_declared",
    ):
        assert f"{name}[{NAME}]" in found
    definitions = [name for name in found if name.startswith(f"test_a_method_is_its_definition[{NAME}-")]
    assert len(definitions) == 8 * 3  # one to eight models, three dtypes


def test_a_method_that_is_not_its_definition_is_found(tmp_path: Path) -> None:
    right, wrong = 'factor=inputs.number("lambda")', 'factor=1.001 * inputs.number("lambda")'
    assert block().count(right) == 1
    package = copy_of_the_package(tmp_path, block().replace(right, wrong))
    words = "test_a_method_is_its_definition and f32"
    found = outcomes(package, "test_methods_accuracy.py", words=words, options=("--maxfail=2",))
    assert "FAILED" in found.values()
