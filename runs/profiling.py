"""The profile of a run that has ended: its table, and its trace in the output folder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..engine.trace import write_trace
from ..loaders.folder import TRACE_FILE

if TYPE_CHECKING:
    from ..engine.plan import Plan
    from ..engine.timing import Profiler
    from ..loaders.folder import OutputFolder
    from ..merge import MergeResult
    from .watching import Watch


def profiled(
    folder: OutputFolder, plan: Plan, profiler: Profiler, watch: Watch, flush_seconds: float, result: MergeResult
) -> MergeResult:
    """The result with its profile. A trace that cannot be written is a warning: the model is complete."""
    trace: str | None = str(folder.out / TRACE_FILE)
    warnings = result.warnings
    try:
        write_trace(folder.path / TRACE_FILE, profiler.tracks(plan), watch.samples.rows())
    except OSError as error:
        trace, warnings = None, (*warnings, f"{folder.out / TRACE_FILE} cannot be written: {error.strerror}")
    return replace(result, warnings=warnings, profile=profiler.profile(plan, watch.stage_seconds, flush_seconds, trace))
