"""The output's vocabulary: where each of its rows comes from, model by model. Whoever knows tokenizers makes these.

A vocabulary tensor (input embedding, head) has a row for each token. Where models number their tokens differently, a
model's own rows have to be put in the output's order before anything can be merged, and a model that lacks a token
needs a row for it from somewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .recipe import ModelRef

ZEROS, MEAN, AVERAGE = -1, -2, -3
"""Sources that are no model: zeros; the mean of the rows of the models that have the token; the average embedding."""


@dataclass(frozen=True, eq=False)
class RowSources:
    """For each output row what one model contributes: row ``row[r]`` of model number ``model[r]``.

    ``model``, int16 [rows], counts in ``Vocabulary.models``, or is `ZEROS`, `MEAN` or `AVERAGE`; ``row``, int32 [rows],
    is 0 there. A model may borrow rows of others: its own number need not come up.
    """

    model: NDArray[np.int16]
    row: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The rows of the output's vocabulary tensors.

    Rows below ``tokens`` stand for tokens, those up to ``rows`` are padding. ``models`` are all inputs, the base among
    them; ``sources`` has what each contributes, ``own`` (int32 [rows]) its own row of each token, −1 where it lacks
    the token: what a `MEAN` is taken over. The average embedding is the mean of a model's rows below ``tokens`` as
    they are after everything else has been put in place.
    """

    tokens: int
    rows: int
    models: tuple[ModelRef, ...]
    sources: Mapping[ModelRef, RowSources]
    own: Mapping[ModelRef, NDArray[np.int32]]

    @property
    def digest(self) -> str:
        """Names the assignment of rows, whatever made it."""
        found = hashlib.sha256(f"{self.tokens} {self.rows} {[str(ref) for ref in self.models]}".encode())
        for ref in self.models:
            for column in (self.sources[ref].model, self.sources[ref].row, self.own[ref]):
                found.update(np.ascontiguousarray(column).tobytes())
        return found.hexdigest()
