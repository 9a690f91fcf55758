"""Plait beside mergekit on one recipe, and the floor under both.

    python benchmarks/side_by_side.py --mergekit PATH/TO/mergekit-yaml --shape 1b --rounds 3 --json side_by_side.json

Each sample is a whole process: wall seconds, processor seconds, peak resident memory as the operating system counts it.
The inputs are read before each sample, every output goes to a new folder, and the tools take turns, so that neither has
the warmer machine. Seconds are medians over the rounds, less the median of the same command on the ``tiny`` shape:
starting Python and importing torch is not the merge. Peaks are whole processes, nothing taken off.

mergekit runs with its defaults and ``--lazy-unpickle``, which its documentation shows in every example (it matters for
pickled weights only); ``--no-copy-tokenizer``, as the families have none; and ``--quiet``. ``--mergekit-option`` adds
others. Plait runs with its defaults, and with ``--memory`` where it is given here. Plait puts its output on the disk
before it calls itself finished; mergekit and the floor leave it to the operating system.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from measure import BENCHMARKS, Measurement, ensure_family, machine, measure, median, model_bytes, warm
from recipes import DEFAULT_METHODS, METHODS, recipe_text
from rich.console import Console
from rich.table import Table

Tool: TypeAlias = Callable[[Path, Path, list[Path]], list["str | Path"]]
"""From a recipe, an output folder and the models to a command line."""

FINETUNES = 2


@dataclass(frozen=True)
class Comparison:
    """Samples of one tool on one method: of the merge, and of the same command on the tiny shape."""

    merges: list[Measurement]
    starts: list[Measurement]

    @property
    def net_seconds(self) -> float:
        """Median wall seconds less those of starting up."""
        return median(self.merges).wall_seconds - median(self.starts).wall_seconds

    @property
    def peak_bytes(self) -> int:
        """Median peak of the whole process."""
        return median(self.merges).peak_bytes


def tools_from(options: argparse.Namespace) -> dict[str, Tool]:
    """The tools to run, in the order in which they take turns."""

    def plait(recipe: Path, out: Path, _models: list[Path]) -> list[str | Path]:
        bounds = [
            part for name in ("memory", "workers") if (value := getattr(options, name)) for part in (f"--{name}", value)
        ]
        return [sys.executable, "-m", "plait", "run", recipe, out, "--quiet", *bounds]

    def mergekit(recipe: Path, out: Path, _models: list[Path]) -> list[str | Path]:
        return [
            options.mergekit,
            recipe,
            out,
            "--lazy-unpickle",
            "--no-copy-tokenizer",
            "--quiet",
            *options.mergekit_option,
        ]

    def floor(_recipe: Path, out: Path, models: list[Path]) -> list[str | Path]:
        return [sys.executable, BENCHMARKS / "floor.py", out, *models]

    tools: dict[str, Tool] = {"plait": plait, "mergekit": mergekit, "floor": floor}
    return {name: tool for name, tool in tools.items() if name in options.tools}


def sample(tool: Tool, method: str, models: list[Path], work: Path) -> Measurement:
    """Run one tool once on one family."""
    recipe = work / f"{method}.yml"
    recipe.write_text(recipe_text(method, models), encoding="utf-8")
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    warm(models)
    try:
        return measure(tool(recipe, out, models))
    finally:
        shutil.rmtree(out, ignore_errors=True)


def compare(
    tools: dict[str, Tool], method: str, models: list[Path], tiny: list[Path], options: argparse.Namespace
) -> dict[str, Comparison]:
    """Samples of every tool on one method, taken in turns."""
    compared = {name: Comparison([], []) for name in tools}
    for number in range(1, options.rounds + 1):
        for name, tool in tools.items():
            compared[name].starts.append(sample(tool, method, tiny, options.work))
            merge = sample(tool, method, models, options.work)
            compared[name].merges.append(merge)
            print(
                f"{method} {number}/{options.rounds} {name}: {merge.wall_seconds:.1f} s, "
                f"{merge.peak_bytes / 2**20:.0f} MiB, load {merge.load:.1f}",
                file=sys.stderr,
            )
    return compared


def show(results: dict[str, dict[str, Comparison]]) -> Table:
    """The table: ratios first, then what they are made of."""
    table = Table(title="seconds without start-up; peak resident memory of the whole process")
    names = next(iter(results.values())).keys()
    both = {"plait", "mergekit"} <= set(names)
    table.add_column("method")
    if both:
        table.add_column("faster", justify="right", style="bold")
        table.add_column("memory", justify="right", style="bold")
    for name in names:
        table.add_column(f"{name} s", justify="right")
    for name in names:
        table.add_column(f"{name} MiB", justify="right")
    for method, compared in results.items():
        row = [method]
        if both:
            ours, theirs = compared["plait"], compared["mergekit"]
            row += [f"{theirs.net_seconds / ours.net_seconds:.1f} ×", f"1/{theirs.peak_bytes / ours.peak_bytes:.1f}"]
        row += [_seconds(comparison) for comparison in compared.values()]
        row += [f"{comparison.peak_bytes / 2**20:.0f}" for comparison in compared.values()]
        table.add_row(*row)
    return table


def _seconds(comparison: Comparison) -> str:
    start = median(comparison.starts).wall_seconds
    walls = [merge.wall_seconds - start for merge in comparison.merges]
    return f"{comparison.net_seconds:.1f} ({min(walls):.1f}–{max(walls):.1f})"


def as_json(results: dict[str, dict[str, Comparison]], models: list[Path], options: argparse.Namespace) -> str:
    """Every sample and what was measured on."""
    methods = {
        method: {
            name: {
                "net_seconds": comparison.net_seconds,
                "peak_bytes": comparison.peak_bytes,
                "merges": [asdict(merge) for merge in comparison.merges],
                "starts": [asdict(start) for start in comparison.starts],
            }
            for name, comparison in compared.items()
        }
        for method, compared in results.items()
    }
    return json.dumps(
        {
            "machine": machine(),
            "shape": options.shape,
            "input_bytes": sum(map(model_bytes, models)),
            "memory": options.memory,
            "workers": options.workers,
            "rounds": options.rounds,
            "methods": methods,
        },
        indent=2,
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", type=Path, help="the mergekit-yaml executable, in an environment of its own")
    parser.add_argument("--mergekit-option", action="append", default=[], help="one more option for mergekit-yaml")
    parser.add_argument("--shape", default="1b", help="shape of the family, see checkpoints.py")
    parser.add_argument("--family", type=Path, help="folder of base, ft1, ft2; written if missing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT_METHODS), choices=METHODS)
    parser.add_argument("--tools", nargs="+", default=["plait", "mergekit", "floor"])
    parser.add_argument("--memory", help="plait's --memory")
    parser.add_argument("--workers", help="plait's --workers")
    parser.add_argument("--work", type=Path, default=Path("build/side_by_side"), help="folder for recipes and outputs")
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    options = parser.parse_args()
    if options.mergekit is None:
        options.tools = [name for name in options.tools if name != "mergekit"]
    return options


def main() -> None:
    """Measure and print."""
    options = parse()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    family: Path = (options.family or Path("build/families") / options.shape).resolve()
    models = ensure_family(family, options.shape, FINETUNES)
    tiny = ensure_family(Path("build/families/tiny").resolve(), "tiny", FINETUNES)
    tools = tools_from(options)
    results: dict[str, dict[str, Comparison]] = {}
    for method in options.methods:
        results[method] = compare(tools, method, models, tiny, options)
        if options.json:
            # After each method, so that an interrupted run leaves what it has.
            options.json.write_text(as_json(results, models, options) + "\n", encoding="utf-8")
    Console().print(show(results))


if __name__ == "__main__":
    main()
