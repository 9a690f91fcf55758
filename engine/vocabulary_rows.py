"""Vocabulary tensors whose rows have to be put in the output's order before a method sees them.

Each input becomes a gather of its own rows, and of borrowed ones. Rows that are a mean of several models, or an
average over the vocabulary, are computed and put in their places. Nothing of a vocabulary's size is ever held.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError
from .opdef import gather, load, ops
from .row_map import RowMap, RowTable
from .vocabulary import AVERAGE, MEAN, ZEROS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from .graph import Node
    from .model import Model, StoredTensor
    from .recipe import ModelRef
    from .vocabulary import Vocabulary

_COUNTED_OTHERWISE = re.compile(r"position|token_type|segment")
"""Embeddings of something else; that there are as many as tokens is chance."""


def is_vocabulary_tensor(model: Model, stored: StoredTensor) -> bool:
    """Whether a tensor has a row for each token of its model."""
    role = model.roles.get(stored.name)
    if model.vocabulary_rows is None or role is None or role.stack is not None:
        return False
    return _rows(stored.spec.shape) == model.vocabulary_rows and not _COUNTED_OTHERWISE.search(stored.name)


def _rows(shape: tuple[int, ...]) -> int:
    """Rows of a vocabulary tensor: its first extent that is not 1, as some heads' biases are [1, rows]."""
    return next((extent for extent in shape if extent != 1), 1)


class VocabularyRows:
    """The inputs of one vocabulary tensor: ``leaves`` are what its nodes read, in the order of their slots.

    ``stored`` has the tensor as every model of the vocabulary holds it; ``compute`` is the dtype of arithmetic.
    """

    def __init__(self, vocabulary: Vocabulary, stored: Mapping[ModelRef, StoredTensor], compute: torch.dtype) -> None:
        self._vocabulary, self._stored, self._compute = vocabulary, stored, compute
        some = next(iter(stored.values()))
        extents = list(some.spec.shape)
        extents[extents.index(_rows(some.spec.shape))] = vocabulary.rows
        self._shape = tuple(extents)
        self._columns = some.spec.elements // max(_rows(some.spec.shape), 1)
        self.leaves: list[StoredTensor] = []

    def input(self, ref: ModelRef) -> Node:
        """What one model contributes: rows of the output in their order, in its own dtype or in ``compute``."""
        sources = self._vocabulary.sources[ref]
        model, row = sources.model, sources.row
        average, mean = model == AVERAGE, model == MEAN
        if average.any() and not self._has_columns:
            average[:] = False  # an average of biases is no better than none
        parts = self._gathers(model, row)
        node = parts[0][0]
        if len(parts) == 1 and not (mean.any() or average.any()):
            return node
        node = ops()["cast"](node, dtype=self._compute)
        for other, chosen in parts[1:]:
            node = self._put(node, ops()["cast"](other, dtype=self._compute), chosen)
        if mean.any():
            node = self._put(node, self._mean(mean), mean)
        return self._with_average(node, average) if average.any() else node

    @property
    def _has_columns(self) -> bool:
        return self._shape[0] == self._vocabulary.rows

    def _put(self, node: Node, other: Node, chosen: NDArray[np.bool_]) -> Node:
        return ops()["put_rows"](node, other, rows=RowTable(chosen), columns=self._columns)

    def _gathers(self, model: NDArray[np.int16], row: NDArray[np.int32]) -> list[tuple[Node, NDArray[np.bool_]]]:
        """Gathers of the given rows, one for each dtype, with the rows that each of them has; zeros elsewhere."""
        needed = [int(number) for number in np.unique(model) if number >= 0]
        tensors = {number: self._tensor(number, int(row[model == number].max())) for number in needed}
        dtypes = dict.fromkeys(tensor.spec.dtype for tensor in tensors.values())
        found = []
        for dtype in dtypes or {self._some_dtype: None}:
            numbers = [number for number in needed if tensors[number].spec.dtype == dtype]
            source = np.full(len(model), -1, np.int16)
            for index, number in enumerate(numbers):
                source[model == number] = index
            slots = tuple(self._slot(tensors[number]) for number in numbers)
            found.append((self._node(slots, dtype, RowMap(source, row)), source >= 0))
        return found

    def _node(self, slots: tuple[int, ...], dtype: torch.dtype, rows: RowMap) -> Node:
        if not slots:
            return ops()["fill"](shape=self._shape, dtype=dtype, space="weight", value=0)
        if rows.is_identity and self.leaves[slots[0]].spec.shape == self._shape:
            return load(slot=slots[0], shape=self._shape, dtype=dtype)
        return gather(slots=slots, shape=self._shape, dtype=dtype, rows=rows)

    @property
    def _some_dtype(self) -> torch.dtype:
        return next(iter(self._stored.values())).spec.dtype

    def _tensor(self, number: int, last_row: int) -> StoredTensor:
        ref = self._vocabulary.models[number]
        stored = self._stored.get(ref)
        if stored is None:
            name = next(iter(self._stored.values())).name
            raise InputError(f"{ref} has no tensor {name}, needed for rows of tokens that other models lack")
        rows = _rows(stored.spec.shape)
        if last_row >= rows:
            raise InputError(f"{ref}: {stored.name} has {rows} rows, and its tokenizer a token for row {last_row}")
        columns = stored.spec.elements // max(rows, 1)
        if columns != self._columns:
            raise InputError(f"{ref}: {stored.name} has {columns} elements a row, and other models {self._columns}")
        return stored

    def _slot(self, stored: StoredTensor) -> int:
        if stored not in self.leaves:
            self.leaves.append(stored)
        return self.leaves.index(stored)

    def _mean(self, wanted: NDArray[np.bool_]) -> Node:
        """The mean, in the wanted rows, over those models that have a row of their own."""
        parts, counts = [], np.zeros(len(wanted), np.int64)
        for number, ref in enumerate(self._vocabulary.models):
            own = self._vocabulary.own[ref]
            has = wanted & (own >= 0)
            if not has.any() or ref not in self._stored:
                continue
            counts += has
            ((part, _),) = self._gathers(np.where(has, number, ZEROS).astype(np.int16), np.where(has, own, 0))
            parts.append(ops()["cast"](part, dtype=self._compute))
        return ops()["divide_rows"](ops()["add"](*parts), rows=RowTable(counts), columns=self._columns)

    def _with_average(self, node: Node, chosen: NDArray[np.bool_]) -> Node:
        """The average over the rows of tokens in the chosen rows, which are zeros so far."""
        tokens = self._vocabulary.tokens
        sizes = ops()["column_sizes"](node, columns=self._columns)
        sums = ops()["column_sums"](node, sizes, columns=self._columns, rows=tokens)
        means = ops()["column_means"](sums, sizes, rows=tokens)
        return ops()["put_means"](node, means, rows=RowTable(chosen), columns=self._columns)


def stored_under(name: str, vocabulary: Vocabulary, models: Mapping[ModelRef, Model]) -> dict[ModelRef, StoredTensor]:
    """A tensor as every model of a vocabulary holds it, by its name or as the one that it is tied to."""
    found = {}
    for ref in vocabulary.models:
        model: Model | None = models.get(ref)
        stored = model and (model.tensors.get(name) or model.tensors.get(model.aliases.get(name, "")))
        if stored:
            found[ref] = stored
    return found


def vocabularies_differ(name: str, rows: Sequence[tuple[str, int]]) -> InputError:
    """What to say of models whose vocabularies differ in size, given each one's rows."""
    by_rows: dict[int, list[str]] = {}
    for reference, count in rows:
        by_rows.setdefault(count, []).append(reference)
    text = ", ".join(f"{' and '.join(dict.fromkeys(refs))} {count}" for count, refs in by_rows.items())
    return InputError(
        f"the vocabularies differ: rows of {name}: {text}; say in the recipe whose tokens the result has "
        "(union, base or a model):",
        "  tokenizer:",
        "    source: union",
    )
