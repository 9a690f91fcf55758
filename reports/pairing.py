"""Which tensors of two models belong together: those of the same name, and what is in the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..engine.errors import InputError
from ..ops.distance import has_numbers
from .diff_report import StackLayers, Unlike

if TYPE_CHECKING:
    from ..engine.model import Model, StoredTensor, TensorRole


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of both models, cut to the rows that both have; ``rows`` are A's and B's where they differ."""

    name: str
    a: StoredTensor
    b: StoredTensor
    role: TensorRole
    rows: tuple[int, int] | None


@dataclass(frozen=True)
class Pairing:
    """All tensors of two models: pairs in A's order, and what has none or cannot be compared."""

    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    unlike: tuple[Unlike, ...]
    stacks: tuple[StackLayers, ...]
    notes: tuple[str, ...]


def pair_up(a: Model, b: Model) -> Pairing:
    """Match the tensors of two models by name. Raises InputError if not one can be compared.

    A head that one model ties to its embedding and the other stores is compared with that embedding.
    """
    held_a, held_b = _held(a, b), _held(b, a)
    pairs: list[Pair] = []
    unlike: list[Unlike] = []
    notes = [
        f"{name} is {model.aliases[name]} in {which}, and compared as such"
        for which, model, other in (("A", a, b), ("B", b, a))
        for name in model.aliases
        if name in other.tensors
    ]
    for name, one in held_a.items():
        other = held_b.get(name)
        if other is None:
            continue
        rows = _different_rows(one, other, a, b)
        what = _in_the_way(one, other) if rows is None else ""
        if what:
            unlike.append(Unlike(name, what, _said(one), _said(other)))
            continue
        if rows is not None:
            notes.append(f"{name} has {rows[0]} rows in A and {rows[1]} in B: the first {min(rows)} are compared")
            one, other = _first_rows(one, min(rows)), _first_rows(other, min(rows))
        pairs.append(Pair(name, one, other, a.roles.get(name) or b.roles[name], rows))
    if not pairs:
        first = unlike[0] if unlike else None
        why = (
            f"of one name but not alike, such as {first.name}: {first.a} and {first.b}"
            if first is not None
            else f"{a.reference} has {next(iter(a.tensors))}, {b.reference} has {next(iter(b.tensors))}"
        )
        raise InputError(f"{a.reference} and {b.reference} have no tensor that can be compared: {why}")
    recast = sum(pair.a.spec.dtype != pair.b.spec.dtype for pair in pairs)
    if recast:
        have = "has" if recast == 1 else "have"
        notes.append(f"{recast} of the compared tensors {have} another dtype in B: their values are compared")
    return Pairing(
        pairs=tuple(pairs),
        only_a=tuple(name for name in held_a if name not in held_b),
        only_b=tuple(name for name in held_b if name not in held_a),
        unlike=tuple(unlike),
        stacks=tuple(
            StackLayers(prefix, *(model.stacks[prefix].layers if prefix in model.stacks else 0 for model in (a, b)))
            for prefix in dict.fromkeys((*a.stacks, *b.stacks))
        ),
        notes=tuple(notes),
    )


def _held(model: Model, other: Model) -> dict[str, StoredTensor]:
    """A model's tensors by name, and under its own name what is tied in this model and stored in the other."""
    tied = {name: model.tensors[target] for name, target in model.aliases.items() if name in other.tensors}
    return {**model.tensors, **tied}


def _different_rows(one: StoredTensor, other: StoredTensor, a: Model, b: Model) -> tuple[int, int] | None:
    """Both numbers of rows where two tensors differ in nothing but the rows of their vocabularies."""
    x, y = one.spec.shape, other.spec.shape
    if not x or not y or x[0] == y[0] or x[1:] != y[1:] or _in_the_way(_first_rows(one, 0), _first_rows(other, 0)):
        return None
    return (x[0], y[0]) if (x[0], y[0]) == (a.vocabulary_rows, b.vocabulary_rows) else None


def _in_the_way(one: StoredTensor, other: StoredTensor) -> str:
    """What two tensors have that keeps them from being compared: another shape, or a dtype without numbers."""
    if one.spec.shape != other.spec.shape:
        return "shape"
    alike = one.spec.dtype == other.spec.dtype
    return "" if alike or (has_numbers(one.spec.dtype) and has_numbers(other.spec.dtype)) else "dtype"


def _first_rows(tensor: StoredTensor, rows: int) -> StoredTensor:
    """The same tensor as if it ended after so many rows."""
    return replace(tensor, spec=replace(tensor.spec, shape=(rows, *tensor.spec.shape[1:])))


def _said(tensor: StoredTensor) -> str:
    return f"{list(tensor.spec.shape)} {str(tensor.spec.dtype).removeprefix('torch.')}"
