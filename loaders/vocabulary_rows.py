"""Where each row of the output's vocabulary tensors comes from, model by model: tokens become numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..engine.errors import InputError
from ..engine.vocabulary import AVERAGE, MEAN, ZEROS, RowSources, Vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ..engine.recipe import ModelRef, TokenRow
    from .tokenizer_union import Vocabularied


def vocabulary_of(
    ids: Mapping[str, int],
    models: Mapping[ModelRef, Vocabularied],
    *,
    merged: Sequence[ModelRef],
    base: ModelRef | None,
    source: ModelRef,
    rows_of: Mapping[str, TokenRow],
    pad_to_multiple_of: int | None,
) -> tuple[Vocabulary, tuple[str, ...]]:
    """The assignment of rows, and lines for the log.

    ``ids`` are the output's tokens; ``merged`` the inputs among ``models``, the others only lend rows; ``source`` the
    model whose vocabulary the output's begins with; ``rows_of`` what the recipe says about single tokens.
    Raises InputError where the recipe takes a row that is not there.
    """
    tokens = max(ids.values(), default=-1) + 1
    lenders = {row.model for row in rows_of.values()} | ({source} if tokens > len(ids) else set())
    refs = tuple(ref for ref in models if ref in merged or ref in lenders)
    rows = max(tokens, models[source].rows)
    if pad_to_multiple_of is not None:
        rows = -(-tokens // pad_to_multiple_of) * pad_to_multiple_of
    is_token = np.zeros(rows, bool)
    is_token[np.fromiter(ids.values(), np.int64, len(ids))] = True
    own = {ref: _own_rows(ids, models[ref], rows) for ref in refs}
    usual_model, usual_row = _usual(own, refs, merged, base)
    notes = []
    nowhere = [token for token, index in ids.items() if usual_model[index] == ZEROS and token not in rows_of]
    if nowhere:
        shown = ", ".join(map(repr, nowhere[:5])) + (" …" if len(nowhere) > 5 else "")
        notes.append(f"tokens that no model has a row for start as zeros: {shown}")
    forced = np.zeros(rows, bool)
    for token, row in rows_of.items():
        index = ids[token]
        forced[index] = row.force
        if row.zero:
            usual_model[index], usual_row[index] = ZEROS, 0
        elif row.model is not None:
            usual_model[index] = refs.index(row.model)
            usual_row[index] = _lent_row(token, row, models[row.model])
    sources = {}
    for number, ref in enumerate(refs):
        has = (own[ref] >= 0) & ~forced
        model = np.where(has, np.int16(number), usual_model)
        row_numbers = np.where(has, own[ref], usual_row)
        _fill_padding(
            model, row_numbers, is_token, tokens, number, models[ref], averaged=pad_to_multiple_of is not None
        )
        if ref != source and source in refs:
            _fill_gaps(model, row_numbers, is_token, tokens, refs.index(source))
        sources[ref] = RowSources(model, row_numbers)
    for ref in refs:
        if ref not in merged:  # it lends rows and has no part in means
            own[ref] = np.full(rows, -1, np.int32)
    return Vocabulary(tokens, rows, refs, sources, own), tuple(notes)


def is_plain(vocabulary: Vocabulary, models: Mapping[ModelRef, Vocabularied]) -> bool:
    """Whether every model's rows are the output's rows already, in number and order."""
    straight = np.arange(vocabulary.rows, dtype=np.int32)
    return all(
        models[ref].rows == vocabulary.rows
        and bool((vocabulary.sources[ref].model == number).all())
        and np.array_equal(vocabulary.sources[ref].row, straight)
        for number, ref in enumerate(vocabulary.models)
    )


def _own_rows(ids: Mapping[str, int], model: Vocabularied, rows: int) -> NDArray[np.int32]:
    """The model's row of each output token, int32 [rows]; −1 where it has none."""
    theirs = model.tokenizer.ids
    numbers = np.fromiter((theirs.get(token, -1) for token in ids), np.int32, len(ids))
    numbers[numbers >= model.rows] = -1
    found = np.full(rows, -1, np.int32)
    found[np.fromiter(ids.values(), np.int64, len(ids))] = numbers
    return found


def _usual(
    own: Mapping[ModelRef, NDArray[np.int32]],
    refs: Sequence[ModelRef],
    merged: Sequence[ModelRef],
    base: ModelRef | None,
) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
    """Where a model that lacks a token takes its row from, unless the recipe says: model and row, [rows]."""
    rows = own[refs[0]].size
    model, row = np.full(rows, MEAN, np.int16), np.zeros(rows, np.int32)
    count = np.zeros(rows, np.int32)
    for ref in merged:
        count += own[ref] >= 0
    for ref in merged:
        only = (count == 1) & (own[ref] >= 0)
        if ref == base:
            only = own[ref] >= 0
        model[only], row[only] = refs.index(ref), own[ref][only]
    model[count == 0] = ZEROS
    return model, row


def _lent_row(token: str, row: TokenRow, model: Vocabularied) -> int:
    """The number of the row that the recipe takes for a token. Raises InputError if the model has none."""
    wanted = row.token if row.token is not None else token
    index = row.token_id if row.token_id is not None else model.tokenizer.ids.get(wanted)
    if index is None:
        raise InputError(f"tokenizer: token {token!r}: the model {model.name} has no token {wanted!r}")
    if index >= model.rows:
        raise InputError(f"tokenizer: token {token!r}: row {index} of {model.name} is not there: it has {model.rows}")
    return index


def _fill_padding(
    model: NDArray[np.int16],
    row: NDArray[np.int32],
    is_token: NDArray[np.bool_],
    tokens: int,
    number: int,
    source: Vocabularied,
    *,
    averaged: bool,
) -> None:
    """Rows that are no token: the model's own row of that number if it is no token there either, else the average."""
    free = ~is_token
    model[free], row[free] = AVERAGE, 0
    kept = np.zeros(is_token.size, bool)
    kept[: tokens if averaged else source.rows] = True
    kept[source.rows :] = False
    taken = np.fromiter(source.tokenizer.ids.values(), np.int64, len(source.tokenizer.ids))
    kept[taken[taken < kept.size]] = False
    kept &= free
    model[kept], row[kept] = number, np.flatnonzero(kept)


def _fill_gaps(
    model: NDArray[np.int16],
    row: NDArray[np.int32],
    is_token: NDArray[np.bool_],
    tokens: int,
    number: int,
) -> None:
    """Ids without a token below the last one: the average is taken over them too, so they cannot be it."""
    gaps = np.flatnonzero(~is_token[:tokens] & (model[:tokens] == AVERAGE))
    model[gaps], row[gaps] = number, gaps
