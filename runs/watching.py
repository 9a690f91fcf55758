"""What a run tells of itself on the way: to a callback, to the manifest's samples, to the profile."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ..engine import host
from ..engine.progress import Progress
from ..engine.samples import Sample, Samples

if TYPE_CHECKING:
    from ..engine.progress import Callback

STAGES = ("tensors", "finish", "verify")
"""What a callback is told of; the flush to the disk is the first of what finishes a run."""


class Watch:
    """Follows a run through its stages: prepare, tensors, flush, finish, verify.

    Seconds of each are in ``stage_seconds`` once the next has begun.

    ``check_seconds`` is what the last stage is predicted to take, 0 where the folder is not verified; with
    ``children`` the memory is that of the processes that this one started, too.
    """

    def __init__(
        self, callback: Callback | None, *, predicted_seconds: float, check_seconds: float, children: bool = False
    ) -> None:
        self.samples = Samples()
        self.stage_seconds: dict[str, float] = {}
        self._callback, self._children = callback, children
        self._stages = STAGES if check_seconds else STAGES[:-1]
        self._predicted_seconds, self._check_seconds = predicted_seconds, check_seconds
        self._stage, self._entered = "prepare", time.perf_counter()
        self._last = Progress(0, 0, 0, 0, 0, 0.0)

    def enter(self, stage: str) -> None:
        """The next stage begins."""
        now = time.perf_counter()
        self.stage_seconds[self._stage] = self.stage_seconds.get(self._stage, 0.0) + now - self._entered
        self._stage, self._entered = stage, now
        if stage == "tensors":
            self._sample(Progress(0, 0, 0, 0, 0, 0.0))
        elif stage == "flush":
            self._tell(replace(self._last, seconds_left=self._later_seconds(self._last)))

    def tensors(self, now: Progress) -> None:
        """How far the tensors are."""
        held_bytes = self._sample(now)
        left = now.seconds_left
        if left is not None:
            left += self._later_seconds(now)
        self._last = replace(now, seconds_left=left, resident_bytes=held_bytes, device_bytes=host.device_bytes())
        self._tell(self._last)

    def verifying(self, now: Progress) -> None:
        """How far the check of the written folder is."""
        left = now.seconds * (1.0 / now.share - 1.0) if now.share else self._later_seconds(self._last)
        self._tell(replace(now, seconds_left=left, resident_bytes=host.resident_bytes()))

    def _later_seconds(self, now: Progress) -> float:
        """What comes after the tensors, on a machine that was found to be as fast as it is."""
        expected = self._predicted_seconds * (now.work_share or 0.0)
        return self._check_seconds * (now.seconds / expected if expected else 1.0)

    def _sample(self, now: Progress) -> int:
        held_bytes = host.resident_bytes(children=self._children)
        self.samples.add(Sample(now.seconds, now.bytes_read, now.bytes_written, held_bytes))
        return held_bytes

    def _tell(self, now: Progress) -> None:
        if self._callback is not None:
            shown = "finish" if self._stage == "flush" else self._stage
            self._callback(replace(now, stage=shown, stages=self._stages))
