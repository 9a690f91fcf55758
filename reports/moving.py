"""How far a result moved from what it was made of: one reading of the result and of all inputs."""

from __future__ import annotations

import heapq
import threading
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from ..engine.graph import Island, Program, TensorGraph
from ..engine.opdef import load, write
from ..ops.distance import SUMS, distances, has_numbers
from ..ops.elementwise import cast, sub
from ..ops.task_vectors import delta_histogram, side_by_side, sign_agreement
from .diff_report import TensorDiff, farthest_first, figures_of, kind_of
from .run_report import Agreement, LeftOut, Measured, Signs, TaskVector, movement_of, sizes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ..engine.graph import Node, TensorSpec
    from ..engine.mapping import OutputTensor
    from ..engine.model import Model, StoredTensor, TensorRole
    from ..merge import MergePlan
    from .diff_report import Figures
    from .run_report import Movement

_MOST_LISTED = 25
"""Tensors that moved farthest, for each input."""

_ARITHMETIC = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
_WIDE = (torch.float32, torch.float64)
_HISTOGRAM = delta_histogram.reduction
assert _HISTOGRAM is not None
_COUNTS = _HISTOGRAM.state_spec((), 0, 0).elements


@dataclass(frozen=True, slots=True)
class Made:
    """A tensor of the result and the inputs it was made from, each once.

    ``origin`` is what task vectors are taken to: the base, which is the first of the inputs then, or the result; ""
    where there are none.
    """

    result: StoredTensor
    role: TensorRole
    inputs: tuple[StoredTensor, ...]
    origin: Literal["base", "result", ""]

    @property
    def key(self) -> tuple[str | None, int | None, str]:
        """Stack, layer and kind."""
        return self.role.stack, self.role.layer, kind_of(self.role.suffix or self.result.name)

    @property
    def dtype(self) -> torch.dtype:
        """What the task vectors are computed in, as a merge does."""
        return torch.float64 if any(each.spec.dtype in _WIDE for each in (self.result, *self.inputs)) else torch.float32

    @property
    def moved(self) -> tuple[StoredTensor, ...]:
        """The inputs that have a task vector."""
        return {"base": self.inputs[1:], "result": self.inputs, "": ()}[self.origin]


def made_from(merge: MergePlan, result: Model) -> tuple[list[Made], list[LeftOut]]:
    """For each tensor of a result what it was made from, and what cannot be compared."""
    found, left_out = [], []
    moved_rows = {
        name
        for island in merge.plan.graph.islands
        if any(node.op.name == "gather" for node in island.program.nodes)
        for name in island.outputs
    }
    with_base = any(tensor.base is not None for tensor in merge.compiled.mapping.tensors)
    for tensor in merge.compiled.mapping.tensors:
        stored = result.tensors[tensor.name]
        kept: list[StoredTensor] = []
        for source in _sources(tensor):
            why = "its rows were put in another order" if tensor.name in moved_rows else _in_the_way(source, stored)
            if why:
                left_out.append(LeftOut(tensor.name, source.model, why))
            else:
                kept.append(source)
        if kept:
            found.append(Made(stored, result.roles[tensor.name], tuple(kept), _origin(tensor, kept, stored, with_base)))
    return found, left_out


def _origin(
    tensor: OutputTensor, kept: Sequence[StoredTensor], result: StoredTensor, with_base: bool
) -> Literal["base", "result", ""]:
    """What a tensor's task vectors are taken to: all of a merge the same, or nothing."""
    if not all(each.spec.dtype in _ARITHMETIC for each in (result, *kept)):
        return ""
    if with_base:
        return "base" if tensor.base is not None and tensor.base in kept else ""
    return "result"


def _sources(tensor: OutputTensor) -> Iterable[StoredTensor]:
    """The base and the inputs of an output tensor, each once."""
    base = (tensor.base,) if tensor.base is not None else ()
    return dict.fromkeys((*base, *(source.stored for source in tensor.sources)))


def _in_the_way(source: StoredTensor, result: StoredTensor) -> str:
    a, b = source.spec, result.spec
    if a.shape != b.shape:
        return f"{list(a.shape)} in the input, {list(b.shape)} in the result"
    if a.dtype != b.dtype and not (has_numbers(a.dtype) and has_numbers(b.dtype)):
        return f"{a.dtype} in the input, {b.dtype} in the result".replace("torch.", "")
    return ""


def graph_of(made: Iterable[Made]) -> TensorGraph:
    """An island a tensor of the result; tensors with equal specs share a program."""
    programs: dict[object, Program] = {}
    islands = []
    for each in made:
        leaves = (*each.inputs, each.result)
        key = (tuple(leaf.spec for leaf in leaves), each.origin)
        if key not in programs:
            programs[key] = _program([leaf.spec for leaf in leaves], each)
        islands.append(Island(programs[key], leaves, (each.result.name,)))
    return TensorGraph(tuple(islands))


def _program(specs: Iterable[TensorSpec], made: Made) -> Program:
    """Distances of every input to the result, sizes of the task vectors, signs of each pair of them."""
    *inputs, result = (load(slot=slot, shape=spec.shape, dtype=spec.dtype) for slot, spec in enumerate(specs))
    states = [distances(each, result) for each in inputs]
    deltas: list[Node] = []
    if made.origin:
        origin, moved = (inputs[0], inputs[1:]) if made.origin == "base" else (result, inputs)
        deltas = [sub(cast(each, dtype=made.dtype), cast(origin, dtype=made.dtype)) for each in moved]
    states += [delta_histogram(delta) for delta in deltas]
    if made.origin == "base" and len(deltas) > 1:
        states.append(sign_agreement(*deltas))
    return Program(write(side_by_side(*states)))


class Collected:
    """Figures as they come in, from several threads and in any order.

    Counts are added up at once, by kind. Sums wait for all of them, so that they are added up in one order.
    """

    def __init__(self, made: Iterable[Made]) -> None:
        self._made = {each.result.name: each for each in made}
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._sizes: dict[tuple[str, str | None, str], NDArray[np.int64]] = {}
        self._signs: dict[tuple[str, str, str | None, str], NDArray[np.int64]] = {}
        self._lock = threading.Lock()

    def take(self, name: str, row: NDArray[np.float64]) -> None:
        """Take the figures of one tensor."""
        made = self._made[name]
        stack, _, kind = made.key
        end = len(made.inputs) * len(SUMS)
        counts = row[end:].astype(np.int64)
        with self._lock:
            self._sums[name] = row[:end].reshape(-1, len(SUMS)).copy()
            for index, model in enumerate(made.moved):
                own = self._sizes.setdefault((model.model, stack, kind), np.zeros(_COUNTS, dtype=np.int64))
                own += counts[index * _COUNTS : (index + 1) * _COUNTS]
            pairs = counts[len(made.moved) * _COUNTS :].reshape(-1, 2)
            for (one, other), found in zip(combinations(made.moved, 2), pairs, strict=False):
                if one.model != other.model:  # a model's layers merged with each other say nothing of two models
                    signs = self._signs.setdefault((one.model, other.model, stack, kind), np.zeros(2, dtype=np.int64))
                    signs += found

    def measured(self, references: Iterable[str], base: str | None, left_out: Iterable[LeftOut]) -> Measured:
        """All figures, models in the order of ``references``."""
        order = list(references)
        sizes: dict[str, dict[tuple[str | None, str], NDArray[np.int64]]] = defaultdict(dict)
        signs: dict[tuple[str, str], dict[tuple[str | None, str], NDArray[np.int64]]] = defaultdict(dict)
        for made in self._made.values():  # in the result's order, whichever came in first
            stack, _, kind = made.key
            for model in made.moved:
                sizes[model.model][stack, kind] = self._sizes[model.model, stack, kind]
            for one, other in combinations(made.moved, 2):
                if (one.model, other.model, stack, kind) in self._signs:
                    signs[one.model, other.model][stack, kind] = self._signs[one.model, other.model, stack, kind]
        with_base = any(made.origin == "base" for made in self._made.values())
        return Measured(
            movements=tuple(movement for each in order if (movement := self._movement(each)).tensors),
            relative_to=base if with_base else None,
            task_vectors=tuple(
                TaskVector(each, {key: sizes_of(counts.tolist()) for key, counts in sizes[each].items()})
                for each in order
                if each in sizes
            ),
            agreements=tuple(
                Agreement(*pair, {key: Signs(*counts.tolist()) for key, counts in found.items()})
                for pair, found in sorted(signs.items(), key=lambda item: tuple(map(order.index, item[0])))
            ),
            left_out=tuple(left_out),
        )

    def _movement(self, reference: str) -> Movement:
        """How far the result is from one input."""
        own: list[tuple[Made, StoredTensor, Figures]] = []
        for made in self._made.values():
            for index, source in enumerate(made.inputs):
                if source.model == reference:
                    spec = source.spec
                    sums = self._sums[made.result.name][index].tolist()
                    own.append(
                        (made, source, figures_of(sums, elements=spec.elements, numeric=has_numbers(spec.dtype)))
                    )
        differing = [_diff(*each) for each in own if not each[2].identical]
        return movement_of(
            reference,
            ((made.key, figures) for made, _, figures in own),
            heapq.nsmallest(_MOST_LISTED, differing, key=farthest_first),
        )


def _diff(made: Made, source: StoredTensor, figures: Figures) -> TensorDiff:
    role, name = made.role, made.result.name
    dtype_a, dtype_b = (str(each.spec.dtype).removeprefix("torch.") for each in (source, made.result))
    suffix = role.suffix or name
    return TensorDiff(name, role.stack, role.layer, suffix, source.spec.shape, dtype_a, dtype_b, None, figures)
