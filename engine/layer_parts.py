"""Tensors outside of the stacks that hold a part for every layer, where slices move the layers.

Such is a table of embeddings for each layer, [tokens, layers · width], or the projection that makes it. The parts are
put together as the layers are: each is a range of one axis, so that a gather over rows of one part's width reads them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .errors import InputError
from .opdef import gather
from .row_map import RowMap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .graph import Node
    from .model import Model, StoredTensor
    from .regions import Region
    from .slices import Slice, Source


class LayerPart(NamedTuple):
    """A part of a stored tensor: the one of number ``layer`` of ``layers`` along ``axis``."""

    stored: StoredTensor
    layer: int
    layers: int
    axis: int


Parts = tuple[tuple[LayerPart, ...], ...]
"""For each input of an output tensor, the base first, what its parts come from, in the order of the output's layers."""


def moved_parts(slices: Sequence[Slice], region: Region) -> Mapping[str, Parts]:
    """The parts of every tensor that has some, if layers move. Raises InputError where they cannot be told."""
    lead = slices[0].lead
    if lead.stack is None:
        return {}
    taken = [layer for part in slices for layer in part.lead.layers or ()]
    in_place = taken == list(range(lead.model.stacks[lead.stack].layers))
    if in_place and len(slices) == 1:
        return {}
    roles = {name: role for name, role in lead.model.roles.items() if role.per_layer and region.holds(name)}
    return {name: _parts(name, slices) for name, role in roles.items() if not in_place or role.part_axis is not None}


def _parts(name: str, slices: Sequence[Slice]) -> Parts:
    rows = [[*([part.base] if part.base is not None else ()), *part.sources] for part in slices]
    if len({len(row) for row in rows}) > 1:
        raise _refusal(slices[0].lead.model, name, "slices of different numbers of models cannot share it")
    return tuple(
        tuple(
            _part(name, source, position)
            for part, row in zip(slices, rows, strict=True)
            for source in (row[number],)
            for position in range(part.layers)
        )
        for number in range(len(rows[0]))
    )


def _part(name: str, source: Source, position: int) -> LayerPart:
    stored, role = source.model.tensors.get(name), source.model.roles.get(name)
    if stored is None or role is None or role.part_axis is None:
        raise _refusal(source.model, name, "the config does not say how large a layer's part is")
    assert source.layers is not None
    assert source.stack is not None
    return LayerPart(stored, source.layers[position], source.model.stacks[source.stack].layers, role.part_axis)


def _refusal(model: Model, name: str, why: str) -> InputError:
    shape = list(model.tensors[name].spec.shape) if name in model.tensors else "missing"
    return InputError(
        f"{model.reference}: {name} ({shape}) holds a part for each layer, and {why}; merge whole stacks with models:"
    )


class LayerParts:
    """The inputs of one such tensor; ``leaves`` are what their nodes read, in the order of the slots."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.leaves: list[StoredTensor] = []

    def input(self, number: int) -> Node:
        """One of the inputs, with the output's layers. Raises InputError where parts differ in size or dtype."""
        parts = self._parts[number]
        first = parts[0]
        shape, axis = list(first.stored.spec.shape), first.axis
        for part in parts:
            if _size(part) != _size(first):
                raise InputError(
                    f"{part.stored.model}: {part.stored.name} has parts of another size than in {first.stored.model}"
                )
            if part.stored.spec.dtype != first.stored.spec.dtype:
                raise InputError(
                    f"{part.stored.model}: {part.stored.name} is {part.stored.spec.dtype}, but "
                    f"{first.stored.spec.dtype} in {first.stored.model}"
                )
        shape[axis] = shape[axis] // first.layers * len(parts)
        before = np.arange(math.prod(shape[:axis]), dtype=np.int64)[:, None]
        row = before * [part.layers for part in parts] + [part.layer for part in parts]
        stored = list(dict.fromkeys(part.stored for part in parts))
        source = np.broadcast_to(np.array([stored.index(part.stored) for part in parts], np.int16), row.shape)
        self.leaves += [each for each in stored if each not in self.leaves]
        return gather(
            slots=tuple(self.leaves.index(each) for each in stored),
            shape=tuple(shape),
            dtype=first.stored.spec.dtype,
            rows=RowMap(source.ravel(), row.ravel()),
        )


def _size(part: LayerPart) -> tuple[int, ...]:
    shape = list(part.stored.spec.shape)
    shape[part.axis] //= part.layers
    return tuple(shape)
