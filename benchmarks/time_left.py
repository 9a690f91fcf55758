"""How well a run knows its end: the time left that it tells at each tenth, against how long it then took.

    python benchmarks/time_left.py recipe.yml other.yml      # recipes of your own
    python benchmarks/time_left.py --shape 1b                # dare_ties, ties, and a mixture of copies and a merge

Each row is a run: its seconds, what was predicted before it began, and at every tenth of it how far off the end was
that it told, as a part of the run (+: it took longer than it said). Where others use the machine meanwhile, that is in
the figures, too; --processor leaves it out: one worker, and every time in seconds of the processor.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import plait
from checkpoints import SHAPES
from measure import ensure_family
from plait.engine import execute
from recipes import recipe_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.engine.progress import Progress

TENTHS = tuple(tenth / 10 for tenth in range(1, 10))

MIXTURE = """\
merge_method: ties
base_model: {base}
models:
  - model: {other}
    parameters: {{weight: [{{filter: mlp, value: 0.5}}, {{value: 0}}], density: 0.5}}
dtype: bfloat16
"""
"""The matrices of the mlp are merged in several passes, everything else is a copy of the base's."""


def errors(seen: Sequence[Progress]) -> list[float | None]:
    """At each tenth of the tensors' time, how much later than told the end was, as a part of it."""
    moments = [now for now in seen if now.stage == "tensors"]
    end = moments[-1].seconds
    found: list[float | None] = []
    for tenth in TENTHS:
        now = next(now for now in moments if now.seconds >= tenth * end)
        found.append(None if now.seconds_left is None else 1.0 - (now.seconds + now.seconds_left) / end)
    return found


def family_recipes(folder: Path, shape: str) -> list[Path]:
    """The usual three over a family, written first if it is not there."""
    models = ensure_family(folder / shape, shape, finetunes=2)
    texts = {method: recipe_text(method, models) for method in ("dare_ties", "ties")}
    texts["mixture"] = MIXTURE.format(base=models[0], other=models[1])
    paths = []
    for name, text in texts.items():
        paths.append(folder / f"{shape}-{name}.yml")
        paths[-1].write_text(text)
    return paths


def main() -> None:
    """Run, one recipe after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", type=Path)
    parser.add_argument("--shape", default="1b", choices=SHAPES)
    parser.add_argument("--folder", type=Path, default=Path("build/families"), help="where families are, or are made")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--processor", action="store_true", help="count what the processor is at work, with one worker")
    parser.add_argument("--out", type=Path, help="where outputs go, and are removed again; default a temporary folder")
    options = parser.parse_args()
    if options.processor:
        setattr(execute, "time", SimpleNamespace(perf_counter=time.process_time))  # noqa: B010
        options.workers = 1
    print("recipe                         took  predicted  " + " ".join(f"{tenth:>5.0%}" for tenth in TENTHS))
    for recipe in options.recipes or family_recipes(options.folder, options.shape):
        out = Path(tempfile.mkdtemp(dir=options.out, prefix="time-left-"))
        seen: list[Progress] = []
        plan = plait.plan(recipe, workers=options.workers)
        try:
            result = plan.run(out, progress=seen.append)
        finally:
            shutil.rmtree(out)
        cells = " ".join("    ?" if each is None else f"{each:+5.0%}" for each in errors(seen))
        took = seen[-1].seconds if options.processor else result.seconds
        print(f"{recipe.stem:26} {took:7.1f} s {plan.predicted_seconds:8.1f} s  {cells}", flush=True)


if __name__ == "__main__":
    main()
