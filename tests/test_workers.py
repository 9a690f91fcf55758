"""Workers: what one of them raises is what the caller sees, and nobody is left waiting."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from merge_support import InMemory, graph_of, loads, plan_of, program_of
from plait.engine.errors import InputError, OutputError
from plait.engine.execute import execute
from plait.engine.graph import TensorSpec
from plait.engine.opdef import REDUCE_BLOCK_ELEMENTS, OpDef, Reduction
from plait.engine.progress import Progress
from plait.ops.elementwise import cast, scale
from plait.ops.reduce import abs_sum

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.engine.graph import Node, TensorGraph
    from plait.engine.model import StoredTensor

TILES = 24
ELEMENTS = TILES * REDUCE_BLOCK_ELEMENTS
PATIENCE_SECONDS = 30.0


def wide(slot_count: int = 1) -> list[Node]:
    return [cast(node, dtype=torch.float32) for node in loads(slot_count, (ELEMENTS,))]


def breaking(at_tile: int) -> OpDef:
    """An op whose kernel fails at one tile."""

    def kernel(out: torch.Tensor, ins: Any, scratch: torch.Tensor, tile: Any) -> None:
        if tile.lo == at_tile * REDUCE_BLOCK_ELEMENTS:
            raise ZeroDivisionError(f"tile {at_tile}")
        out.copy_(ins[0])

    return OpDef("breaking", "element", lambda specs, _: specs[0], kernel, "")


def broken_reduction(part: str) -> OpDef:
    """A sum that fails in its fold or in its finish."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError(part)

    def spec(specs: Any, elements: int, block: int) -> TensorSpec:
        return TensorSpec((max(-(-elements // block), 1),), torch.float64, "state")

    def kernel(out: torch.Tensor, ins: Any, scratch: torch.Tensor, tile: Any, *, block_elements: int) -> None:
        out.zero_()

    nothing = lambda *_: None  # noqa: E731
    reduction = Reduction(spec, spec, fail if part == "fold" else nothing, fail if part == "finish" else nothing)
    return OpDef(f"broken_{part}", "reduce", abs_sum.infer, kernel, "", reduction=reduction)


def in_time(work: Callable[[], object]) -> object:
    """What a function returns, or raises, within reasonable time; a deadlock is a failure and not a hanging test."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # handed on below
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive(), "the run hangs"
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def left_over() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("plait")]


def attempt(graph: TensorGraph, memory: InMemory, workers: int, **given: Any) -> object:
    plan = plan_of(graph, target_elements=REDUCE_BLOCK_ELEMENTS, workers=workers)
    return in_time(lambda: execute(plan, memory, memory, **given))


def inputs(graph: TensorGraph) -> InMemory:
    return InMemory({name: torch.ones(ELEMENTS, dtype=torch.bfloat16) for name in "ab"}, graph)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("at_tile", [0, 11, TILES - 1])
def test_a_kernels_error_reaches_the_caller(at_tile: int, workers: int) -> None:
    graph = graph_of(*[program_of(breaking(at_tile)(wide()[0]))] * 3)
    with pytest.raises(ZeroDivisionError, match=f"tile {at_tile}"):
        attempt(graph, inputs(graph), workers)
    assert left_over() == []


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("part", ["fold", "finish"])
def test_a_failing_reduction_does_not_leave_others_waiting_for_its_result(part: str, workers: int) -> None:
    (x,) = wide()
    norm = broken_reduction(part)(x)
    over = OpDef("over", "element", lambda specs, _: specs[0], lambda out, ins, *_: out.copy_(ins[0]), "")
    graph = graph_of(program_of(over(x, norm)), program_of(scale(x, factor=0.5)))
    with pytest.raises(ZeroDivisionError, match=part):
        attempt(graph, inputs(graph), workers)
    assert left_over() == []


class BadReader(InMemory):
    """Reads fail from some byte on, as from a disk with a bad sector."""

    def read_into(self, tensor: StoredTensor, offset_bytes: int, out: torch.Tensor) -> None:
        if offset_bytes >= ELEMENTS:
            raise InputError(f"{tensor.name}: no data at byte {offset_bytes}")
        super().read_into(tensor, offset_bytes, out)


class FullDisk(InMemory):
    """Writes fail from some byte on."""

    def write_from(self, name: str, offset_bytes: int, data: torch.Tensor) -> None:
        if offset_bytes >= ELEMENTS:
            raise OutputError(f"{name}: no space")
        super().write_from(name, offset_bytes, data)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(("memory", "error"), [(BadReader, InputError), (FullDisk, OutputError)])
def test_an_io_error_reaches_the_caller(memory: type[InMemory], error: type[Exception], workers: int) -> None:
    graph = graph_of(*[program_of(scale(wide()[0], factor=0.5))] * 2)
    ones = {"a": torch.ones(ELEMENTS, dtype=torch.bfloat16)}
    with pytest.raises(error):
        attempt(graph, memory(ones, graph), workers)
    assert left_over() == []


def test_the_others_stop_soon_after_an_error() -> None:
    class Slow(InMemory):
        reads = 0

        def read_into(self, tensor: StoredTensor, offset_bytes: int, out: torch.Tensor) -> None:
            self.reads += 1
            if self.reads == 3:
                raise InputError("third read")
            time.sleep(0.02)
            super().read_into(tensor, offset_bytes, out)

    graph = graph_of(*[program_of(scale(wide()[0], factor=0.5))] * 40)
    memory = Slow({"a": torch.ones(ELEMENTS, dtype=torch.bfloat16)}, graph)
    with pytest.raises(InputError, match="third read"):
        attempt(graph, memory, 4)
    assert memory.reads < 40


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_a_progress_callback_raises_ends_the_run(error: type[BaseException]) -> None:
    class Slow(InMemory):
        def read_into(self, tensor: StoredTensor, offset_bytes: int, out: torch.Tensor) -> None:
            time.sleep(0.005)
            super().read_into(tensor, offset_bytes, out)

    def callback(progress: Progress) -> None:
        raise error

    graph = graph_of(*[program_of(scale(wide()[0], factor=0.5))] * 40)
    memory = Slow({"a": torch.ones(ELEMENTS, dtype=torch.bfloat16)}, graph)
    with pytest.raises(error):
        attempt(graph, memory, 2, progress=callback, every_seconds=0.01)
    assert left_over() == []


def test_progress_never_goes_back_and_ends_with_everything_done() -> None:
    seen: list[Progress] = []
    graph = graph_of(*[program_of(scale(wide()[0], factor=0.5))] * 6)
    final = attempt(graph, inputs(graph), 3, progress=seen.append, every_seconds=0.001)
    assert isinstance(final, Progress)
    assert seen[-1] == final
    moved = [progress.bytes_read + progress.bytes_written for progress in seen]
    assert moved == sorted(moved)
    assert final.bytes_read == 6 * 2 * ELEMENTS
    assert final.bytes_written == 6 * 4 * ELEMENTS
    assert (final.tensors_done, final.tensors_total, final.share) == (6, 6, 1.0)


def test_torch_has_its_threads_again_after_a_run() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        graph = graph_of(program_of(scale(wide()[0], factor=0.5)))
        memory = inputs(graph)
        execute(plan_of(graph, target_elements=REDUCE_BLOCK_ELEMENTS, workers=2), memory, memory)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_more_workers_than_tiles_is_fine() -> None:
    graph = graph_of(program_of(scale(wide()[0], factor=0.5)))
    memory = inputs(graph)
    attempt(graph, memory, 64)
    assert torch.equal(memory.result(), torch.full((ELEMENTS,), 0.5))
