"""Compare two models, tensor by tensor: what ``plait diff`` does, for programs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine import host
from ..engine.graph import Island, Program, TensorGraph
from ..engine.opdef import load, write
from ..loaders.checkpoint import locate, open_model
from ..ops.distance import distances, has_numbers
from .diff_report import DiffReport, TensorDiff, figures_of
from .measuring import measure, plan_measuring
from .pairing import Pair, Pairing, pair_up

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..engine.graph import TensorSpec
    from ..engine.model import Model
    from ..engine.plan import Plan
    from ..engine.progress import Callback, Progress

REPORT_TENSOR_BYTES = 3 << 10
"""What the report holds of a tensor, as a page or as JSON too: it adds up where experts make tens of thousands."""


def diff(
    a: str | Path,
    b: str | Path,
    *,
    memory: str | int | None = None,
    workers: int | None = None,
    progress: Callback | None = None,
) -> DiffReport:
    """How far the model in folder ``b`` is from the one in ``a``.

    ``memory`` bounds the peak resident memory of this process, in bytes or as text (``2GiB``). NaN and infinity are
    counted. Raises UsageError, InputError, or PlanError where the bound is too small.
    """
    started = time.perf_counter()
    comparison = plan_diff(a, b, memory=memory, workers=workers)
    return comparison.run(progress, started=started)


def plan_diff(
    a: str | Path,
    b: str | Path,
    *,
    memory: str | int | None = None,
    workers: int | None = None,
    tile_elements: int | None = None,
) -> Comparison:
    """Open two models, headers only, and plan their comparison; ``tile_elements`` asks for tiles of about that size."""
    models = [open_model(str(model), locate(str(model), recipe_folder=Path.cwd(), maps=None)) for model in (a, b)]
    pairing = pair_up(*models)
    graph = _graph_of(pairing.pairs)
    plan = plan_measuring(
        graph,
        memory=memory,
        workers=workers,
        report_bytes=REPORT_TENSOR_BYTES * len(pairing.pairs),
        tile_elements=tile_elements,
    )
    return Comparison(models[0], models[1], pairing, plan)


class Comparison:
    """Two models, paired up and planned; nothing but headers is read yet."""

    def __init__(self, a: Model, b: Model, pairing: Pairing, plan: Plan) -> None:
        self.a, self.b, self.pairing, self.plan = a, b, pairing, plan

    def run(self, progress: Callback | None = None, *, started: float | None = None) -> DiffReport:
        """Read both models. Raises InputError, also where a file has changed since its header was read."""
        started = time.perf_counter() if started is None else started
        rows: dict[str, list[float]] = {}
        final = measure(self.plan, (self.a, self.b), lambda name, sums: rows.__setitem__(name, sums.tolist()), progress)
        return self._report(rows, final, time.perf_counter() - started)

    def _report(self, rows: Mapping[str, list[float]], final: Progress, seconds: float) -> DiffReport:
        pairing = self.pairing
        return DiffReport(
            a=self.a.reference,
            b=self.b.reference,
            tensors=tuple(_tensor_diff(pair, rows[pair.name]) for pair in pairing.pairs),
            only_a=pairing.only_a,
            only_b=pairing.only_b,
            unlike=pairing.unlike,
            stacks=pairing.stacks,
            notes=pairing.notes,
            workers=self.plan.workers,
            bytes_read=final.bytes_read,
            seconds=round(seconds, 3),
            predicted_peak_bytes=self.plan.predicted_peak_bytes,
            measured_peak_bytes=host.peak_resident_bytes(),
        )


def _graph_of(pairs: tuple[Pair, ...]) -> TensorGraph:
    """An island a pair; pairs with equal specs share a program."""
    programs: dict[tuple[TensorSpec, TensorSpec], Program] = {}
    islands = []
    for pair in pairs:
        specs = pair.a.spec, pair.b.spec
        if specs not in programs:
            loads = [load(slot=slot, shape=spec.shape, dtype=spec.dtype) for slot, spec in enumerate(specs)]
            programs[specs] = Program(write(distances(*loads)))
        islands.append(Island(programs[specs], (pair.a, pair.b), (pair.name,)))
    return TensorGraph(tuple(islands))


def _tensor_diff(pair: Pair, sums: list[float]) -> TensorDiff:
    role, spec = pair.role, pair.a.spec
    dtype_a, dtype_b = (str(each.spec.dtype).removeprefix("torch.") for each in (pair.a, pair.b))
    figures = figures_of(sums, elements=spec.elements, numeric=has_numbers(spec.dtype))
    suffix = role.suffix or pair.name
    return TensorDiff(pair.name, role.stack, role.layer, suffix, spec.shape, dtype_a, dtype_b, pair.rows, figures)
