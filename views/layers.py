"""The output's layers, folded: neighbours that are made alike become one line."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..engine.graph import Island, Program
    from ..engine.mapping import OutputTensor
    from ..merge import MergePlan
    from .kinds import Kind


_LISTED = 6
"""Tensors in a row outside of the stacks that have a line each; more of them share one."""


@dataclass(frozen=True)
class Made:
    """One output tensor: its name, without the layer's prefix if it is in a layer, how it is made, and from what."""

    name: str
    island: Island
    mapped: OutputTensor


@dataclass(frozen=True)
class Layer:
    """One output layer, or what stands between the stacks (``stack`` None). ``given`` are the models' own layers."""

    stack: str | None
    number: int
    tensors: tuple[Made, ...]
    given: tuple[tuple[str, int | None], ...]

    @property
    def prefix(self) -> str:
        """What the names of its tensors begin with in the output."""
        return f"{self.stack}.{self.number}." if self.stack is not None else ""

    def likeness(self, kinds: Mapping[Program, Kind]) -> object:
        """What layers must share to be one line, but for which layers of the models they take."""
        made = tuple((tensor.name, kinds[tensor.island.program].number) for tensor in self.tensors)
        return self.stack, made, tuple(model for model, _ in self.given)

    @property
    def sources(self) -> tuple[int | None, ...]:
        """The models' layers, as they come."""
        return tuple(layer for _, layer in self.given)

    @property
    def shifts(self) -> tuple[int | None, ...]:
        """How far the models' layers are from this one."""
        return tuple(None if layer is None else layer - self.number for layer in self.sources)


@dataclass(frozen=True)
class Run:
    """Consecutive layers made alike: each from its own layers of the models, or all from the same ones."""

    layers: tuple[Layer, ...]

    @property
    def title(self) -> str:
        """What the output calls it."""
        first, last = self.layers[0], self.layers[-1]
        if first.stack is None:
            one, *others = first.tensors
            return f"{len(first.tensors)} tensors in no layer, {one.name} and others" if others else one.name
        return f"{first.stack}.{first.number}" + (f"–{last.number}" if last is not first else "")

    @property
    def tensors(self) -> int:
        """How many tensors it holds."""
        return sum(len(layer.tensors) for layer in self.layers)

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes in the output."""
        return sum(made.island.spec.size_bytes for layer in self.layers for made in layer.tensors)

    @property
    def given(self) -> Mapping[str, str]:
        """For each model the layers it gives: ``0–31``, ``31 (12 times)``, nothing outside of the stacks."""
        found: dict[str, list[str]] = {}
        for (model, low), (_, high) in zip(self.layers[0].given, self.layers[-1].given, strict=True):
            texts = found.setdefault(model, [])
            if low is not None:
                again = f" ({len(self.layers)} times)" if len(self.layers) > 1 else ""
                texts.append(f"{low}–{high}" if low != high else f"{low}{again}")
        return {model: ", ".join(texts) for model, texts in found.items()}


def runs(merge: MergePlan, kinds: Mapping[Program, Kind]) -> list[Run]:
    """Fold the output in its own order."""
    found: list[list[Layer]] = []
    for layer in _layers(merge):
        if found and _continues(found[-1], layer, kinds):
            found[-1].append(layer)
        else:
            found.append([layer])
    return [Run(tuple(layers)) for layers in found]


def alone(merge: MergePlan, tensor_name: str) -> Run:
    """One output tensor as a run of its own, under its whole name. KeyError if the merge does not write it."""
    island = merge.plan.island_of(tensor_name)
    mapped = next(tensor for tensor in merge.compiled.mapping.tensors if tensor.name == tensor_name)
    made = Made(tensor_name, island, mapped)
    return Run((_layer(None, 0, (made,), tuple(merge.compiled.mapping.stacks)),))


def _continues(run: Sequence[Layer], layer: Layer, kinds: Mapping[Program, Kind]) -> bool:
    """Whether a layer goes on with a run: made alike, from the models' next layers or from the same again."""
    first = run[0]
    if layer.stack is None or layer.likeness(kinds) != first.likeness(kinds):
        return False
    moving = all(each.shifts == first.shifts for each in (*run[1:2], layer))
    return moving or all(each.sources == first.sources for each in (*run[1:2], layer))


def _layers(merge: MergePlan) -> Iterator[Layer]:
    islands = {name: island for island in merge.plan.graph.islands for name in island.outputs}
    stacks = tuple(merge.compiled.mapping.stacks)
    split = (_split(tensor.name, stacks) for tensor in merge.compiled.mapping.tensors)
    made = zip(split, merge.compiled.mapping.tensors, strict=True)
    for (stack, number), group in groupby(made, key=lambda each: each[0][:2]):
        tensors = tuple(Made(name, islands[tensor.name], tensor) for (_, _, name), tensor in group)
        if stack is None and len(tensors) <= _LISTED:
            for tensor in tensors:
                yield _layer(None, 0, (tensor,), stacks)
        else:
            yield _layer(stack, number, tensors, stacks)


def _layer(stack: str | None, number: int, tensors: tuple[Made, ...], stacks: Sequence[str]) -> Layer:
    given: dict[tuple[str, int | None], None] = {}
    for made in tensors:
        for leaf in made.island.leaves:
            source_stack, layer, _ = _split(leaf.name, stacks)
            given[(leaf.model, layer if source_stack is not None else None)] = None
    return Layer(stack, number, tensors, tuple(given))


def _split(name: str, stacks: Sequence[str]) -> tuple[str | None, int, str]:
    """A tensor's stack, layer and name inside of the layer; no stack and its whole name where it is in none."""
    for stack in stacks:
        if name.startswith(stack + "."):
            number, _, suffix = name[len(stack) + 1 :].partition(".")
            if number.isdecimal():
                return stack, int(number), suffix
    return None, 0, name
