"""Compare Plait's output with mergekit's, element by element, for every method both have.

    python benchmarks/against_mergekit.py --mergekit PATH/TO/mergekit-yaml --shape tiny --json against_mergekit.json

Both tools merge the same family with the same recipe, `dtype: float32`. A row of the first table is a recipe of a
method without randomness: the largest and the mean difference, the largest in ulps of the weights it is made of, the
share of elements that differ by more than 1e-5 of their tensor's mean |ΔW| (ΔW is the change from the base, or from
the mean of the inputs), the share that differs by more than rounding (8 ulps), and what explains those. Each
explanation is checked on each element, see `explanations.py`. Where |ΔW| is small against W, 1e-5 of it is less than
an ulp of W.

A row of the second table is a recipe with random masks; z-scores compare what the two tools drew with each other and
with what is to be expected of such masks, see `mask_statistics.py`.

Ends with 1 if a difference beyond rounding has no explanation, or a z-score is beyond 5.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plait.ops  # makes the methods known
import torch
from cases import DETERMINISTIC, FINETUNES, RANDOMISED, Case
from differences import Difference, compare_tensor
from explanations import of_choices, of_float32, of_samples, of_sce
from mask_statistics import Draws
from measure import BENCHMARKS, ensure_family, machine
from plait.engine.methoddef import methods
from rich.console import Console
from rich.table import Table
from stored import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

LARGEST_Z = 5.0


class Mergekit:
    """mergekit in a process of its own, which runs one recipe after another."""

    def __init__(self, executable: Path) -> None:
        # The script of an environment stands beside its Python; a link to it must not be followed.
        python = executable.absolute().parent / "python"
        worker = [str(python), str(BENCHMARKS / "mergekit_worker.py")]
        self._process = subprocess.Popen(worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, recipe: str, out: Path, seed: int) -> None:
        """Merge to a folder. Raises RuntimeError with mergekit's message."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"recipe": recipe, "out": str(out), "seed": seed}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the process ended"}
        if "error" in answer:
            raise RuntimeError(f"mergekit: {answer['error']}")

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@dataclass(frozen=True)
class Bench:
    """What a comparison needs: a family, mergekit, and a folder for outputs."""

    family: Path
    mergekit: Mergekit
    work: Path

    def plait(self, case: Case, seed: int = 0) -> Path:
        """Merge with Plait."""
        recipe = self.work / "recipe.yml"
        recipe.write_text(case.recipe(self.family, "float32"), encoding="utf-8")
        plait.plan(recipe, seed=seed).run(self._empty("plait"))
        return self.work / "plait"

    def theirs(self, case: Case, dtype: str, seed: int = 0) -> Path:
        """Merge with mergekit."""
        out = self._empty(dtype)
        self.mergekit.run(case.recipe(self.family, dtype), out, seed)
        return out

    def _empty(self, name: str) -> Path:
        shutil.rmtree(self.work / name, ignore_errors=True)
        return self.work / name


class Inputs:
    """The inputs of a case, tensor by tensor."""

    def __init__(self, case: Case, family: Path) -> None:
        self._base = Stored(family / "base") if case.base else None
        self._models = [Stored(family / name) for name in case.tuned]

    def __getitem__(self, name: str) -> tuple[Tensor | None, list[Tensor]]:
        return self._base[name] if self._base else None, [model[name] for model in self._models]


def compare(case: Case, bench: Bench) -> Difference:
    """Merge with both and compare; again with mergekit in float64 where that is needed to explain."""
    inputs, found, open_questions = Inputs(case, bench.family), Difference(), {}
    with Stored(bench.plait(case)) as ours, Stored(bench.theirs(case, "float32")) as theirs:
        if sorted(ours.names) != sorted(theirs.names):
            raise RuntimeError(f"other tensors: {set(ours.names) ^ set(theirs.names)}")
        for name in ours.names:
            base, models = inputs[name]
            difference, beyond = compare_tensor(ours[name], theirs[name], base, models)
            if base is not None:
                difference.causes, beyond = of_choices(case, base, models, (ours[name], theirs[name]), beyond)
            found.add(difference)
            if beyond.numel():
                open_questions[name] = beyond
        if open_questions:
            with Stored(bench.theirs(case, "float64")) as exact:
                for name, beyond in open_questions.items():
                    base, models = inputs[name]
                    causes, left = of_float32(ours[name], exact[name], beyond)
                    found.causes += causes
                    if base is None:
                        continue
                    causes, left = of_sce(case, base, models, (ours[name], exact[name]), left)
                    found.causes += causes
                    causes, left = of_samples(case, base, models[0], (ours[name], exact[name]), left)
                    found.causes += causes
    return found


def draw(case: Case, bench: Bench, seed: int) -> dict[str, dict[str, float]]:
    """Merge with both and compare what was drawn: z-scores by statistic."""
    rescaled = bool(case.params.get("rescale", True))
    draws = Draws(case, {"plait": rescaled and case.method.startswith("della"), "mergekit": rescaled})
    inputs = Inputs(case, bench.family)
    with Stored(bench.plait(case, seed)) as ours, Stored(bench.theirs(case, "float32", seed)) as theirs:
        for name in ours.names:
            base, models = inputs[name]
            assert base is not None
            columns = base.shape[-1]
            rows, *others = (
                tensor.float().reshape(-1, columns).numpy() for tensor in (base, *models, ours[name], theirs[name])
            )
            draws.add(rows, others[:-2], dict(zip(("plait", "mergekit"), others[-2:], strict=True)))
    return draws.scores()


def difference_row(case: Case, found: Difference) -> list[str]:
    """A row of the first table."""
    causes = [f"{cause} {share(count, found.elements)}" for cause, count in found.causes.most_common()]
    if found.unexplained:
        causes.append(f"UNEXPLAINED {share(found.unexplained, found.elements)}")
    return [
        case.method,
        case.label,
        f"{found.largest:.1e}",
        f"{found.mean:.1e}",
        f"{found.largest_ulps:.2g}",
        share(found.far, found.elements),
        share(found.beyond, found.elements),
        ", ".join(causes) or "rounding",
    ]


def share(count: int, of: int) -> str:
    """A part in percent; none at all is told from hardly any."""
    percent = 100 * count / of
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %" if count else "0"


def draw_row(case: Case, scores: dict[str, dict[str, float]]) -> list[str]:
    """A row of the second table."""
    return [case.method, case.label, *(f"{z:+.1f}" for values in scores.values() for z in values.values())]


DIFFERENCE_HEADINGS = ("method", "parameters", "max", "mean", "max, ulps", "> 1e-5·ΔW", "> rounding", "because of")
DRAW_HEADINGS = (
    "method",
    "parameters",
    *(f"{statistic}: {side}" for statistic in ("kept", "mean", "variance") for side in ("Plait", "mergekit", "both")),
)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as it stands in the documentation."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for the screen."""
    made = Table(title=title)
    for heading in headings:
        made.add_column(heading)
    for row in rows:
        made.add_row(*row)
    return made


def few_of_each(cases: Sequence[Case], count: int) -> list[Case]:
    """The first so many cases of each method."""
    seen: Counter[str] = Counter()
    chosen = []
    for case in cases:
        seen[case.method] += 1
        chosen += [case] if seen[case.method] <= count else []
    return chosen


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", type=Path, required=True, help="mergekit-yaml, in an environment of its own")
    parser.add_argument("--shape", default="tiny", help="shape of the family, see checkpoints.py")
    parser.add_argument("--stored", default="bfloat16", help="dtype in which a family is written")
    parser.add_argument("--family", type=Path, help="folder of base, ft1, ft2, ft3; written if missing")
    known = list(dict.fromkeys(case.method for case in (*DETERMINISTIC, *RANDOMISED)))
    parser.add_argument("--methods", nargs="+", default=known, choices=known)
    parser.add_argument("--sets", type=int, default=100, help="compare at most so many sets of parameters a method")
    parser.add_argument("--work", type=Path, default=Path("build/against_mergekit"), help="folder for outputs")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser.parse_args()


def main() -> int:
    """Compare, print, and say whether all is well."""
    options = parse()
    torch.set_num_threads(1)  # comparing goes in small chunks, not worth sharing
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    family: Path = (options.family or Path("build/families") / f"{options.shape}-{options.stored}").resolve()
    ensure_family(family, options.shape, FINETUNES, options.stored)
    missing = [name for name in options.methods if name not in methods()]
    for name in missing:
        print(f"{name}: left out, Plait does not have it", file=sys.stderr)
    chosen = [name for name in options.methods if name not in missing]
    bench = Bench(family, Mergekit(options.mergekit), work)
    compared: list[tuple[Case, Difference]] = []
    drawn: list[tuple[Case, dict[str, dict[str, float]]]] = []
    for case in few_of_each(DETERMINISTIC, options.sets):
        if case.method in chosen:
            compared.append((case, compare(case, bench)))
            print(" | ".join(difference_row(*compared[-1])), file=sys.stderr, flush=True)
    few = few_of_each(RANDOMISED, options.sets)
    for seed, case in enumerate(RANDOMISED):
        if case.method in chosen and case in few:
            drawn.append((case, draw(case, bench, seed)))
            print(" | ".join(draw_row(*drawn[-1])), file=sys.stderr, flush=True)
    bench.mergekit.close()
    for title, headings, rows in (
        ("differences of elements", DIFFERENCE_HEADINGS, [difference_row(*entry) for entry in compared]),
        ("random masks, z-scores", DRAW_HEADINGS, [draw_row(*entry) for entry in drawn]),
    ):
        if rows and options.markdown:
            print(f"{markdown(headings, rows)}\n")
        elif rows:
            Console().print(table(title, headings, rows))
    if options.json:
        report: dict[str, Any] = {
            "machine": machine(),
            "shape": options.shape,
            "stored": options.stored,
            "left_out": missing,
            "differences": [
                {"method": case.method, "parameters": case.label}
                | vars(found)
                | {"mean": found.mean, "unexplained": found.unexplained}
                for case, found in compared
            ],
            "z_scores": [{"method": case.method, "parameters": case.label, "z": scores} for case, scores in drawn],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    scores = [z for _, found in drawn for values in found.values() for z in values.values()]
    faults = sum(found.unexplained > 0 for _, found in compared) + sum(not abs(z) <= LARGEST_Z for z in scores)
    print(f"{len(compared) + len(drawn)} recipes, {faults} faults")
    return 0 if (compared or drawn) and not faults else 1


if __name__ == "__main__":
    sys.exit(main())
