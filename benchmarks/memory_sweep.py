"""One merge over memory bounds and worker counts: is the peak what was promised, and are the bytes the same?

    python benchmarks/memory_sweep.py --shape 1b --method dare_ties --memory 300MiB 400MiB 1GiB 4GiB --workers 1 2 4

Ends with 1 if a run went over its bound or its prediction, or if two runs differ in a byte.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from measure import Measurement, digest, ensure_family, machine, measure, warm
from plait.engine.units import parse_size
from recipes import METHODS, recipe_text
from rich.console import Console
from rich.table import Table

FINETUNES = 2


@dataclass(frozen=True)
class Point:
    """One run. Peaks in bytes: ``predicted`` by the plan, ``measured`` from outside the process."""

    memory: str
    workers: int
    predicted_peak_bytes: int
    measured: Measurement
    sha256: str

    @property
    def faults(self) -> list[str]:
        """What the run broke of its promises."""
        over = {"bound": parse_size(self.memory), "prediction": self.predicted_peak_bytes}
        return [f"over its {name}" for name, limit in over.items() if self.measured.peak_bytes > limit]


def run(recipe: Path, models: list[Path], work: Path, memory: str, workers: int) -> Point:
    """Merge once and keep nothing but the figures."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    warm(models)
    try:
        command: list[str | Path] = [sys.executable, "-m", "plait", "run", recipe, out, "--json", "--quiet"]
        printed = work / "run.json"
        measured = measure([*command, "--memory", memory, "--workers", str(workers)], printed)
        report = json.loads(printed.read_text(encoding="utf-8"))
        return Point(memory, workers, report["predicted_peak_bytes"], measured, digest(out))
    finally:
        shutil.rmtree(out, ignore_errors=True)


def show(points: list[Point]) -> Table:
    """The table, a row a run."""
    table = Table(title="whole processes; MiB")
    for heading in ("memory", "workers", "predicted", "measured", "of predicted", "seconds", "sha256", ""):
        table.add_column(heading, justify="left" if heading in ("sha256", "") else "right")
    for point in points:
        measured = point.measured
        table.add_row(
            point.memory,
            str(point.workers),
            f"{point.predicted_peak_bytes / 2**20:.0f}",
            f"{measured.peak_bytes / 2**20:.0f}",
            f"{measured.peak_bytes / point.predicted_peak_bytes:.1%}",
            f"{measured.wall_seconds:.1f}",
            point.sha256[:12],
            ", ".join(point.faults),
        )
    return table


def main() -> int:
    """Run every combination and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="100m", help="shape of the family, see checkpoints.py")
    parser.add_argument("--family", type=Path, help="folder of base, ft1, ft2; written if missing")
    parser.add_argument("--method", default="dare_ties", choices=METHODS)
    parser.add_argument("--memory", nargs="+", default=["300MiB", "400MiB", "1GiB", "4GiB"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--work", type=Path, default=Path("build/memory_sweep"), help="folder for recipe and outputs")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    family: Path = (options.family or Path("build/families") / options.shape).resolve()
    models = ensure_family(family, options.shape, FINETUNES)
    recipe = work / f"{options.method}.yml"
    recipe.write_text(recipe_text(options.method, models), encoding="utf-8")
    points = [run(recipe, models, work, memory, workers) for memory in options.memory for workers in options.workers]
    Console().print(show(points))
    digests = {point.sha256 for point in points}
    print(f"{len(points)} runs, {len(digests)} different output{'s' if len(digests) > 1 else ''}")
    if options.json:
        report = {
            "machine": machine(),
            "shape": options.shape,
            "method": options.method,
            "points": [asdict(point) for point in points],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if len(digests) > 1 or any(point.faults for point in points) else 0


if __name__ == "__main__":
    sys.exit(main())
