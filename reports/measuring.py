"""Reading models to measure them: to the engine a merge whose tensors are figures.

A program reads what belongs together, reduces it to a few numbers and writes these. So tiles, workers, the memory bound
and the independence of both are the engine's, and what takes the "shards" is in memory.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ..engine import host
from ..engine.errors import UsageError
from ..engine.execute import execute
from ..engine.plan import make_plan
from ..engine.schedule import Place
from ..engine.units import parse_size
from ..loaders.positioned_io import FilePool
from ..runs.identity import refuse_changed
from ..runs.writing import CACHED_SHARE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from ..engine.graph import TensorGraph
    from ..engine.model import Model, StoredTensor
    from ..engine.plan import Plan
    from ..engine.progress import Callback, Progress


def plan_measuring(
    graph: TensorGraph,
    *,
    memory: str | int | None,
    workers: int | None,
    report_bytes: int,
    tile_elements: int | None = None,
) -> Plan:
    """Plan the reading of a graph of measuring programs; ``report_bytes`` are what the figures will take.

    ``tile_elements`` asks for tiles of about that size. Raises UsageError, or PlanError where the bound is too small.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers: at least one is needed")
    return make_plan(
        graph,
        {island.name: Place(0, position) for position, island in enumerate(graph.islands)},
        workers=workers or host.usable_cores(),
        seed=0,
        budget_bytes=parse_size(memory) if isinstance(memory, str) else memory,
        free_bytes=host.free_memory_bytes(),
        reserved_bytes=host.resident_bytes() + report_bytes,
        peak_so_far_bytes=host.peak_resident_bytes(),
        header_bytes=0,
        tile_elements=tile_elements,
    )


def measure(
    plan: Plan,
    models: Iterable[Model],
    take: Callable[[str, NDArray[np.float64]], None],
    progress: Callback | None = None,
) -> Progress:
    """Read models through; ``take`` gets each tensor's name and figures, from several threads.

    Raises InputError, also where a file has changed since its header was read.
    """
    opened = tuple(models)
    expected = {file.path: file.size_bytes for model in opened for file in model.files}
    direct = sum(expected.values()) > host.free_memory_bytes() * CACHED_SHARE
    with FilePool(expected_bytes=expected, direct=direct) as files:
        # What is not finite is counted, so all of it is let through.
        final = execute(plan, files, _Taker(take), progress and _only_reading(plan, progress), let_through=set())
    refuse_changed(opened)
    return final


def _only_reading(plan: Plan, progress: Callback) -> Callback:
    """Tells of what is read alone: figures are not written anywhere."""

    def tell(now: Progress) -> None:
        progress(replace(now, bytes_written=0, bytes_total=now.bytes_total - plan.bytes_written))

    return tell


class _Taker:
    """A TensorWriter that hands figures on; each tensor's come in one piece."""

    def __init__(self, take: Callable[[str, NDArray[np.float64]], None]) -> None:
        self._take = take

    def write_from(self, name: str, offset_bytes: int, data: torch.Tensor) -> None:
        assert offset_bytes == 0
        self._take(name, data.view(torch.float64).numpy())

    def copy_from(self, name: str, offset_bytes: int, tensor: StoredTensor, size_bytes: int) -> bool:  # noqa: ARG002
        raise AssertionError("figures are not copied")
