"""Keeps the journal of a run under way: has what was written made durable, in batches, and then writes it down.

Workers only say which tile they are done with. A thread of its own waits for the disk, so that nobody else does.
"""

from __future__ import annotations

import threading
import time
import zlib
from typing import TYPE_CHECKING

from .journal import Batch, Finished, Journal, Stretch
from .opdef import Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .model import DurableWriter, ReadBack, StoredTensor
    from .plan import Plan

BATCH_SECONDS = 1.0
"""Between two batches: what an interrupted run does again is at most about that much work."""

_BUSY_SHARE = 0.25
"""The most of the time that is spent waiting for the disk, where that is slow."""

_PROBES, _PROBE_BYTES = 8, 1 << 16
"""The last so many stretches of a batch are read back at their ends, and so many bytes of each."""


class Recorder:
    """The journal's side of a run. ``finished`` may be called from several threads.

    ``finished`` starts as what earlier runs have done. ``let_through`` is the set that the run adds tensors to.
    """

    def __init__(
        self,
        journal: Journal,
        plan: Plan,
        writer: DurableWriter,
        finished: Finished,
        let_through: set[StoredTensor] | None = None,
    ) -> None:
        self._journal, self._plan, self._writer = journal, plan, writer
        self._durable, self._let_through = finished, let_through
        self._noted = set(let_through or ())
        self._pending = Finished()
        self._broken = False
        self.flush_seconds = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def finished(self, position: int, tile: Tile, overflowed: int) -> None:
        """Take note that a tile of a tensor's last pass is written, with so many elements that became infinity."""
        with self._lock:
            self._pending.add(position, tile.lo, tile.hi)
            self._pending.count(position, overflowed)

    def start(self, failed: Callable[[BaseException], None]) -> None:
        """Begin to write batches; ``failed`` is told where that is not possible."""
        thread = threading.Thread(target=self._work, args=(failed,), name="plait-journal")
        thread.start()
        self._thread = thread

    def stop(self) -> None:
        """Write down everything that is finished, and end. Raises OutputError."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def flush(self) -> None:
        """Make durable what is finished and write it down."""
        with self._lock:
            pending, self._pending = self._pending, Finished()
            # A copy first: workers add to it meanwhile.
            noted = set(self._let_through or ()) - self._noted
        if not pending.positions() and not noted:
            return
        islands = self._plan.graph.islands
        if self._broken:
            return
        # A disk that failed once is not believed again: the system tells of lost writes only once.
        self._broken = True
        self._writer.sync(name for position in pending.positions() for name in islands[position].outputs)
        self._noted |= noted
        batch = batch_of(self._plan, self._writer, pending, noted)
        self._journal.append(batch)
        for stretch in batch.stretches:
            self._durable.add(stretch.position, stretch.lo, stretch.hi)
        for position, overflowed in batch.overflows:
            self._durable.count(position, overflowed)
        self._broken = False

    def _work(self, failed: Callable[[BaseException], None]) -> None:
        wait_seconds = BATCH_SECONDS
        while not self._stop.wait(wait_seconds):
            started = time.perf_counter()
            try:
                self.flush()
            except BaseException as error:  # the run has to end, whatever it is
                failed(error)
                return
            seconds = time.perf_counter() - started
            self.flush_seconds += seconds
            wait_seconds = max(BATCH_SECONDS, seconds * (1 / _BUSY_SHARE - 1))


def counts_panels(plan: Plan, position: int) -> bool:
    """Whether a tensor's last pass counts a matrix's elements line by line."""
    return plan.programs[plan.graph.islands[position].program].passes[-1].granularity == "panel"


def batch_of(plan: Plan, disk: ReadBack, finished: Finished, nonfinite: Iterable[StoredTensor]) -> Batch:
    """What is finished as one batch, the last stretches of the plan's own with checksums of what the disk has."""
    stretches = [
        Stretch(position, lo, hi, counts_panels(plan, position))
        for position in finished.positions()
        for lo, hi in finished.ranges(position)
    ]
    own = [index for index, stretch in enumerate(stretches) if stretch.position in plan.positions]
    for index in own[-_PROBES:]:
        stretches[index] = stretches[index]._replace(probe=probe(plan, disk, stretches[index]))
    names = tuple((tensor.model, tensor.name) for tensor in nonfinite)
    return Batch(tuple(stretches), names, tuple(finished.overflows.items()))


def probe(plan: Plan, disk: ReadBack, stretch: Stretch) -> int:
    """A checksum of the last bytes of a stretch, in every file that has them."""
    island = plan.graph.islands[stretch.position]
    last, itemsize = plan.programs[island.program].passes[-1], island.spec.dtype.itemsize
    step = max(last.tile_elements(1), 1)
    *_, end = last.ranges(Tile(max(stretch.lo, (stretch.hi - 1) // step * step), stretch.hi))
    size_bytes = min(end.elements * itemsize, _PROBE_BYTES)
    digest = 0
    for name in island.outputs:
        digest = zlib.crc32(disk.read_back(name, end.hi * itemsize - size_bytes, size_bytes), digest)
    return digest
