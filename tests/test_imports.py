"""The layout of the house: which room may import which, and that rooms stay small.

Every import counts, also one inside a function or under TYPE_CHECKING: the direction is about what a module knows.
Only the search for cycles leaves TYPE_CHECKING out, because such an import never runs.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import networkx as nx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("engine", "ops", "loaders", "runs", "reports", "views", "examples")
OPEN_ROOMS = ("", "examples")
"""What stands above all other rooms, and puts them together."""
UNSEEN_ROOMS = ("runs", "reports")
"""What puts engine, ops and loaders together and knows nothing of screens: a callback tells how far it is."""
BESIDE = ("tests", "docs", "benchmarks")
GENERATED = ("build", "dist", "demo-output", "__pycache__")
MOST_LINES = 330

DEFINITIONS = frozenset(
    {"errors", "graph", "methoddef", "model", "opdef", "panels", "portable", "rates", "recipe", "row_map", "units"}
    | {"vocabulary"}
)
"""The leaf modules of engine: data and declarations. They import each other and no machinery."""

OPS_MAY_IMPORT = frozenset({"errors", "graph", "methoddef", "opdef", "panels", "row_map", "units"})
LOADERS_MAY_IMPORT = frozenset(
    {"errors", "graph", "model", "rates", "recipe", "signals", "suggest", "units", "vocabulary"}
)
VIEWS_MAY_IMPORT = DEFINITIONS | {
    "mapping",
    "plan",
    "profile",
    "progress",
    "reading",
    "simulate",
    "tiling",
    "time_model",
    "trial",
}
"""A merge's map, its plan, its replay and its time, how far a run is and what it took, a method's cost."""

VIEWS_SHOW = {"plait.merge", *(f"plait.reports.{name}" for name in ("diff_report", "run_report", "verification"))}
"""The plan and the results that views show."""

LIBRARIES = {
    # What a room needs beyond Python itself, torch and numpy. Formats belong to loaders, the screen to views.
    "engine": {"accelerate", "networkx", "psutil", "yaml"},
    "ops": set(),
    "loaders": {"jinja2", "psutil", "safetensors", "tokenizers", "yaml"},
    "views": {"networkx", "rich"},
}


def modules() -> list[Path]:
    """Every module of the package, relative to the root."""
    found = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in [*ROOT.glob("*.py"), *found])


def dotted(path: Path) -> str:
    """``engine/graph.py`` as ``plait.engine.graph``; a package's ``__init__.py`` as the package."""
    parts = path.with_suffix("").parts
    return ".".join(("plait", *(parts[:-1] if parts[-1] == "__init__" else parts)))


NAMES = {dotted(path): path for path in modules()}


def imports(path: Path, *, running: bool = False) -> Iterator[str]:
    """The dotted names that a module imports; ``running`` leaves out those under TYPE_CHECKING."""
    pending: list[ast.AST] = [ast.parse((ROOT / path).read_text(encoding="utf-8"))]
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    while pending:
        node = pending.pop()
        if running and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending.extend(node.orelse)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            # `from .engine import graph` names a module, `from .engine.graph import Node` something in one.
            for alias in node.names:
                yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in NAMES else source
        else:
            pending.extend(ast.iter_child_nodes(node))


def room_of(name: str) -> str:
    """``plait.ops.methods.dare`` is in ``ops``; a module beside the rooms is in the room called ''."""
    part = f"{name}..".split(".")[1]
    return part if part in ROOMS else ""


def allowed(room: str, name: str) -> bool:
    """Whether a module in ``room`` may import the module called ``name`` (both inside plait)."""
    if room in OPEN_ROOMS or room_of(name) == room or name == "plait.version":
        return True
    if room in UNSEEN_ROOMS:
        return room_of(name) != "views" and name not in ("plait.cli", "plait.options")
    if room == "views" and name in VIEWS_SHOW:
        return True
    if room_of(name) != "engine":
        return False
    leaf = name.removeprefix("plait.engine").removeprefix(".")
    return {
        "engine": True,
        "ops": leaf in OPS_MAY_IMPORT,
        "loaders": leaf in LOADERS_MAY_IMPORT,
        "views": leaf in VIEWS_MAY_IMPORT,
    }[room]


@pytest.mark.parametrize("path", modules(), ids=str)
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    room = room_of(dotted(path))
    inside = [name for name in imports(path) if name.split(".")[0] == "plait"]
    assert [name for name in inside if not allowed(room, name)] == []


@pytest.mark.parametrize("path", [path for path in modules() if path.parts[0] in LIBRARIES], ids=str)
def test_a_room_uses_only_its_own_libraries(path: Path) -> None:
    usual = {*sys.stdlib_module_names, "plait", "torch", "numpy"}
    top_level = {name.split(".")[0] for name in imports(path)}
    assert top_level - usual - LIBRARIES[path.parts[0]] == set()


@pytest.mark.parametrize("leaf", sorted(DEFINITIONS))
def test_definitions_import_no_machinery(leaf: str) -> None:
    path = Path("engine") / f"{leaf}.py"
    inside = {name for name in imports(path) if name.startswith("plait.")}
    assert inside <= {f"plait.engine.{other}" for other in DEFINITIONS}


def test_no_module_imports_itself_through_others() -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    for name, path in NAMES.items():
        graph.add_edges_from((name, other) for other in imports(path, running=True) if other in NAMES)
    assert [sorted(cycle) for cycle in nx.strongly_connected_components(graph) if len(cycle) > 1] == []


def test_modules_are_short() -> None:
    paths = [*modules(), *(path.relative_to(ROOT) for beside in BESIDE for path in (ROOT / beside).rglob("*.py"))]
    lengths = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


def test_the_top_level_is_fixed() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    extra = {name for name in folders - {*ROOMS, *BESIDE, *GENERATED} if not name.endswith(".egg-info")}
    assert extra == set()
    assert {*ROOMS, *BESIDE} <= folders


def test_every_package_is_in_the_wheel() -> None:
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = [dotted(path) for path in modules() if path.name == "__init__.py"]
    assert [package for package in packages if f'"{package}",' not in declared] == []


def test_importing_the_package_is_quick(tmp_path: Path) -> None:
    # `plait --version`, completion and error messages must not wait a second for torch.
    code = "import sys, plait; print(plait.__version__); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, stdout=subprocess.PIPE)


def test_a_dry_run_imports_only_what_it_needs(tmp_path: Path) -> None:
    # Each of these is a tenth of a second or more, and what torch brings is there anyway.
    code = """
import sys, torch
known = set(sys.modules)
import plait.api, plait.views.dry_run, plait.graphs
assert not {"accelerate", "jinja2", "networkx", "pydantic", "transformers"} & (sys.modules.keys() - known)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
