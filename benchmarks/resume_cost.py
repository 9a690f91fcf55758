"""What the journal costs, and how long the rest takes of a run that was interrupted near its end.

    python benchmarks/resume_cost.py --shape 1b --rounds 3

The journal costs time in two places: workers note each tile, and a thread writes batches. Both are counted in
processor time, because the seconds that its thread waits for the disk are nobody else's.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plait
from checkpoints import SHAPES, write_family
from plait.engine import recorder
from plait.engine.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.engine.progress import Progress

RECIPE = """\
merge_method: dare_linear
base_model: family/base
models:
  - {model: family/ft1, parameters: {weight: 0.6, density: 0.5}}
dtype: bfloat16
"""

spent_seconds = {"note": 0.0, "write": 0.0}


def _timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*given: Any) -> Any:
        started = time.thread_time()
        try:
            return work(*given)
        finally:
            spent_seconds[name] += time.thread_time() - started

    return timed


def _run(recipe: Path, out: Path, **options: Any) -> tuple[float, float]:
    """Seconds and seconds of processor time of a run, planning included."""
    wall, processor = time.perf_counter(), time.process_time()
    plait.plan(recipe).run(out, **options)
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    """Measure, round by round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/resume"))
    parser.add_argument("--shape", default="1b", choices=SHAPES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.9, help="where the run is interrupted")
    options = parser.parse_args()
    recipe, out = options.folder / "recipe.yml", options.folder / "out"
    if not recipe.exists():
        write_family(options.folder / "family", options.shape, finetunes=1)
        recipe.write_text(RECIPE)

    def stop(now: Progress) -> None:
        if now.share >= options.share:
            raise KeyboardInterrupt

    setattr(recorder.Recorder, "finished", _timed("note", recorder.Recorder.finished))  # noqa: B010
    setattr(recorder.Recorder, "flush", _timed("write", recorder.Recorder.flush))  # noqa: B010
    for _ in range(options.rounds):
        shutil.rmtree(out, ignore_errors=True)
        spent_seconds.update(note=0.0, write=0.0)
        whole, processor = _run(recipe, out)
        shares = {name: seconds / processor for name, seconds in spent_seconds.items()}
        shutil.rmtree(out)
        kept = 1.0
        try:
            _run(recipe, out, progress=stop)
        except Interrupted as interruption:
            kept = interruption.kept_share
        rest, _ = _run(recipe, out, resume=True)
        print(
            f"whole {whole:.1f} s; journal: notes {shares['note']:.2%}, batches {shares['write']:.2%} of the processor "
            f"time; {kept:.0%} kept, the rest took {rest / whole:.0%} of the whole"
        )


if __name__ == "__main__":
    main()
