"""Compare two models, tensor by tensor: what ``plait diff`` does, for programs.

To the engine this is a merge whose tensors are figures: a program reads a tensor of each model, reduces both to a few
sums and writes these. So tiles, workers, the memory bound and the independence of both are the engine's, and what
takes the "shards" is a dictionary.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .diff_report import DiffReport, TensorDiff, figures_of
from .engine import host
from .engine.errors import UsageError
from .engine.execute import execute
from .engine.graph import Island, Program, TensorGraph
from .engine.opdef import load, write
from .engine.plan import make_plan
from .engine.schedule import Place
from .engine.units import parse_size
from .identity import refuse_changed
from .loaders.checkpoint import locate, open_model
from .loaders.positioned_io import FilePool
from .ops.distance import distances, has_numbers
from .pairing import Pair, Pairing, pair_up
from .running import CACHED_SHARE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .engine.graph import TensorSpec
    from .engine.model import Model, StoredTensor
    from .engine.plan import Plan
    from .engine.progress import Callback, Progress

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
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers: at least one is needed")
    models = [open_model(str(model), locate(str(model), recipe_folder=Path.cwd(), maps={})) for model in (a, b)]
    pairing = pair_up(*models)
    graph = _graph_of(pairing.pairs)
    plan = make_plan(
        graph,
        {island.name: Place(0, position) for position, island in enumerate(graph.islands)},
        workers=workers or host.usable_cores(),
        seed=0,
        budget_bytes=parse_size(memory) if isinstance(memory, str) else memory,
        free_bytes=host.free_memory_bytes(),
        reserved_bytes=host.resident_bytes() + REPORT_TENSOR_BYTES * len(pairing.pairs),
        peak_so_far_bytes=host.peak_resident_bytes(),
        header_bytes=0,
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
        expected = {file.path: file.size_bytes for model in (self.a, self.b) for file in model.files}
        direct = sum(expected.values()) > host.free_memory_bytes() * CACHED_SHARE
        found = _Collected()
        with FilePool(expected_bytes=expected, direct=direct) as files:
            # What is not finite is counted, so all of it is let through.
            final = execute(self.plan, files, found, progress, let_through=set())
        refuse_changed((self.a, self.b))
        return self._report(found.rows, final, time.perf_counter() - started)

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


class _Collected:
    """A TensorWriter that keeps the figures; each tensor's come in one piece."""

    def __init__(self) -> None:
        self.rows: dict[str, list[float]] = {}

    def write_from(self, name: str, offset_bytes: int, data: torch.Tensor) -> None:
        assert offset_bytes == 0
        self.rows[name] = data.view(torch.float64).tolist()

    def copy_from(self, name: str, offset_bytes: int, tensor: StoredTensor, size_bytes: int) -> bool:  # noqa: ARG002
        raise AssertionError("figures are not copied")


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
