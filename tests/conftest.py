"""What all tests share, and fixtures that several modules use."""

from __future__ import annotations

import sys
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import plait
import pytest
import torch
from browser_support import started_browser
from checkpoints import Shape, write_family
from command_support import Said
from graph_page_support import TiesPage, write_ties_page
from hypothesis import settings
from plait.cli import main
from resume_support import merge, write_inputs
from view_support import LAYERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# How long an example takes depends on who else is at work on the machine; that is no test's business.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

# Test processes run side by side, one a core. Threads of one operation that wait for each other while another process
# has the core cost many times what the operation does; runs have one thread a tile in any case.
torch.set_num_threads(1)

# Files whose tests take longest. They begin first: one that begins last has a core to itself, and the other waits.
LONGEST = (
    *("methods_accuracy", "tile_invariance", "memory_bound", "kills", "process_deaths", "processes", "nonfinite"),
    *("hostile", "verify_memory", "report_page", "full_disk", "add_a_method", "scale", "graph_page_use", "catalogue"),
    *("resume", "report", "resume_faults", "ops", "before_the_work", "tokenizer_runs", "plan", "end_to_end"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first, else in the order they have."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Numbers that a test draws do not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture
def quick_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the journal often, and cut tensors into several tiles."""
    monkeypatch.setattr("plait.engine.recorder.BATCH_SECONDS", 0.005)
    monkeypatch.setattr("plait.engine.plan.FULL_SPEED_TILE_ELEMENTS", 4096)


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs a command line in this process, in a folder if there is one to be in, and catches what it says."""

    def run(*arguments: object, cwd: Path | None = None) -> Said:
        code = 0
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["plait", *map(str, arguments)])
            if cwd is not None:
                patch.chdir(cwd)
            try:
                main()
            except SystemExit as left:
                code = int(left.code or 0)
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Models and a recipe of which a run can be interrupted."""
    return write_inputs(tmp_path)


@pytest.fixture(scope="session")
def view_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models to be shown: a base, ft1 and ft2. Their paths are too long for a table, wherever the tests run."""
    folder = tmp_path_factory.mktemp("a-family-of-models-in-a-folder-of-a-long-name")
    write_family(folder, Shape(64, 176, LAYERS, 4, 2, 512))
    return folder


@pytest.fixture
def planned(view_family: Path, tmp_path: Path) -> Callable[..., plait.MergePlan]:
    """Plans a recipe in which ``BASE``, ``FT1`` and ``FT2`` are the models."""

    def plan(recipe: str, **options: object) -> plait.MergePlan:
        path = tmp_path / "recipe.yml"
        path.write_text(
            dedent(recipe).replace("BASE", str(view_family / "base")).replace("FT", str(view_family / "ft"))
        )
        return plait.plan(path, **options)

    return plan


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, a recipe, and what comes of it in one process."""
    folder = write_inputs(tmp_path_factory.mktemp("shared"), "ties")
    merge(folder, "expected")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless browser; tests that ask for it are skipped where there is none."""
    with started_browser() as found:
        yield found


@pytest.fixture(scope="session")
def ties_page(tmp_path_factory: pytest.TempPathFactory) -> TiesPage:
    """The page of a small plan's graph."""
    return write_ties_page(tmp_path_factory.mktemp("ties"))
