"""What a finished run did, in figures: how far the result moved, what the task vectors are like, how they agree."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from ..ops.task_vectors import SIZE_BINS, SIZE_EDGES
from .diff_report import Figures, grouped, together

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..loaders.manifest_file import Manifest, RecordedInput
    from ..merge import MergePlan
    from .diff_report import TensorDiff

    KindKey = tuple[str | None, str]


@dataclass(frozen=True)
class Movement:
    """How far the result is from one input: in each ``Figures`` A is the input and B the result.

    ``cells`` are by (stack, layer, kind) of the result, ``kinds`` by (stack, kind). ``tensors`` were made from this
    input and compared, ``identical`` of them are as they were. ``farthest`` moved most.
    """

    reference: str
    tensors: int
    identical: int
    kinds: Mapping[KindKey, Figures]
    cells: Mapping[tuple[str, int, str], Figures]
    farthest: tuple[TensorDiff, ...]

    @cached_property
    def total(self) -> Figures:
        """All compared tensors together."""
        return together(self.kinds.values())

    def as_json(self) -> dict[str, object]:
        """One JSON object; figures as in the report of a comparison."""
        return {
            "reference": self.reference,
            "total": {"tensors": self.tensors, "identical_tensors": self.identical, **self.total.as_json()},
            "kinds": [{"stack": stack, "kind": kind, **each.as_json()} for (stack, kind), each in self.kinds.items()],
            "cells": [
                {"stack": stack, "layer": layer, "kind": kind, **each.as_json()}
                for (stack, layer, kind), each in self.cells.items()
            ],
            "farthest": [tensor.as_json() for tensor in self.farthest],
        }


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many elements have which size: ``positive`` and ``negative`` count by bins of `SIZE_EDGES`."""

    zeros: int
    nonfinite: int
    positive: tuple[int, ...]
    negative: tuple[int, ...]

    @property
    def elements(self) -> int:
        """All elements."""
        return self.zeros + self.nonfinite + sum(self.positive) + sum(self.negative)

    @property
    def either(self) -> tuple[int, ...]:
        """Counts by bin without the sign."""
        return tuple(map(sum, zip(self.positive, self.negative, strict=True)))

    def below(self, share: float) -> float | None:
        """About the size below which a share of the elements lies that are not 0; None where there are none."""
        counts = self.either
        wanted = share * sum(counts)
        if not wanted:
            return None
        before = 0
        for index, number in enumerate(counts):
            if before + number >= wanted:
                low = SIZE_EDGES[max(index - 1, 0)]
                return float(low * 2 ** ((wanted - before) / number)) if 0 < index < SIZE_BINS - 1 else low
            before += number
        return None

    def as_json(self) -> dict[str, object]:
        """One JSON object."""
        return {
            "zeros": self.zeros,
            "nonfinite": self.nonfinite,
            "positive": list(self.positive),
            "negative": list(self.negative),
            "elements": self.elements,
        }


def sizes_of(counts: Sequence[int]) -> Sizes:
    """From what `plait.ops.task_vectors.delta_histogram` gives."""
    middle = 2 + SIZE_BINS
    return Sizes(counts[0], counts[1], tuple(counts[2:middle]), tuple(counts[middle:]))


@dataclass(frozen=True)
class TaskVector:
    """The sizes of a model's differences to ``TaskVectors.relative_to``, by (stack, kind)."""

    reference: str
    kinds: Mapping[KindKey, Sizes]

    @cached_property
    def total(self) -> Sizes:
        """All tensors together."""
        parts = list(self.kinds.values())
        return Sizes(
            sum(part.zeros for part in parts),
            sum(part.nonfinite for part in parts),
            _added(part.positive for part in parts),
            _added(part.negative for part in parts),
        )

    def as_json(self) -> dict[str, object]:
        """One JSON object."""
        return {
            "reference": self.reference,
            "total": self.total.as_json(),
            "kinds": [{"stack": stack, "kind": kind, **each.as_json()} for (stack, kind), each in self.kinds.items()],
        }


@dataclass(frozen=True, slots=True)
class Signs:
    """Of the elements that two task vectors both move, how many they move the same way."""

    both: int
    same: int

    @property
    def share(self) -> float | None:
        """Part that is moved the same way, 0 to 1; a half is what chance gives. None where nothing is moved by both."""
        return self.same / self.both if self.both else None

    def as_json(self) -> dict[str, object]:
        """One JSON object."""
        return {"both_moved": self.both, "same_sign": self.same, "share": self.share}


@dataclass(frozen=True)
class Agreement:
    """How often the task vectors of two models have the same sign, by (stack, kind)."""

    a: str
    b: str
    kinds: Mapping[KindKey, Signs]

    @cached_property
    def total(self) -> Signs:
        """All tensors together."""
        return Signs(sum(each.both for each in self.kinds.values()), sum(each.same for each in self.kinds.values()))

    def as_json(self) -> dict[str, object]:
        """One JSON object."""
        return {
            "a": self.a,
            "b": self.b,
            "total": self.total.as_json(),
            "kinds": [{"stack": stack, "kind": kind, **each.as_json()} for (stack, kind), each in self.kinds.items()],
        }


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A tensor of the result that was not compared with an input, and why."""

    name: str
    reference: str
    why: str


@dataclass(frozen=True)
class Measured:
    """What reading the result and the inputs gave; the same for any workers and budget.

    ``relative_to`` is what task vectors are taken to: the base model, or None where there is none: then they are the
    inputs less the result.
    """

    movements: tuple[Movement, ...]
    relative_to: str | None
    task_vectors: tuple[TaskVector, ...]
    agreements: tuple[Agreement, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def size_edges(self) -> tuple[float, ...]:
        """Edges of the bins of `Sizes`; a first bin is below all of them, a last one above."""
        return SIZE_EDGES

    def as_json(self) -> dict[str, object]:
        """One JSON object."""
        return {
            "moved": [each.as_json() for each in self.movements],
            "relative_to": self.relative_to,
            "size_edges": list(SIZE_EDGES),
            "task_vectors": [each.as_json() for each in self.task_vectors],
            "sign_agreement": [each.as_json() for each in self.agreements],
            "left_out": [asdict(each) for each in self.left_out],
        }


@dataclass(frozen=True, slots=True)
class Effort:
    """What this report took: nothing of it is about the run."""

    workers: int
    bytes_read: int
    seconds: float
    predicted_peak_bytes: int
    measured_peak_bytes: int


@dataclass(frozen=True)
class RunReport:
    """What a finished run did.

    ``recipe`` is its text, ``merge`` the same merge planned again, ``measured`` what the tensors tell; None where a
    file for it is not there any more or it was not asked for. ``notes`` say what is missing and why.
    """

    folder: str
    manifest: Manifest
    method: str | None
    recipe: str | None
    base: str | None
    has_card: bool
    merge: MergePlan | None = field(repr=False, compare=False)
    measured: Measured | None
    notes: tuple[str, ...]
    effort: Effort | None = field(default=None, compare=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the run warned of; where that was not recorded, what planning it again warns of."""
        recorded = self.manifest.run.warnings
        return recorded if recorded is not None else self.merge.warnings if self.merge is not None else ()

    def as_json(self) -> dict[str, object]:
        """One JSON object: the same bytes for any workers and budget."""
        run = asdict(self.manifest.run)
        samples = run.pop("samples")
        return {
            "output": self.folder,
            "version": self.manifest.version,
            "method": self.method,
            "base_model": self.base,
            "recipe": self.recipe,
            "run": run | {"warnings": list(self.warnings)},
            "samples": samples,
            "inputs": [_input_json(each) for each in self.manifest.inputs],
            **(self.measured.as_json() if self.measured is not None else {"moved": None}),
            "notes": list(self.notes),
        }


def movement_of(
    reference: str,
    figures: Iterable[tuple[tuple[str | None, int | None, str], Figures]],
    farthest: Sequence[TensorDiff],
) -> Movement:
    """Put the figures of tensors together; each comes with its stack, layer and kind."""
    found = list(figures)
    return Movement(
        reference=reference,
        tensors=len(found),
        identical=sum(each.identical for _, each in found),
        kinds=grouped(((stack, kind), each) for (stack, _, kind), each in found),
        cells=grouped(
            ((stack, layer, kind), each)
            for (stack, layer, kind), each in found
            if stack is not None and layer is not None
        ),
        farthest=tuple(farthest),
    )


def _input_json(each: RecordedInput) -> dict[str, object]:
    return {
        "reference": each.reference,
        "revision": each.revision,
        "bytes": each.size_bytes,
        "tensors": each.tensors,
        "unused": [asdict(unused) for unused in each.unused or ()],
        "nonfinite": list(each.nonfinite),
    }


def _added(rows: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*rows, strict=True))) or (0,) * SIZE_BINS
