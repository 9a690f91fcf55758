"""How far two outputs of one merge lie apart, and where by more than rounding.

Two merges that round every step to float32 may differ by a few units in the last place of the largest number they
handled. So an element's difference is measured in ulps: the spacing of float32 numbers at the largest of |output|,
|base| and |inputs| at that element. Up to ``ROUNDING_ULPS`` of them are rounding.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

ROUNDING_ULPS = 8.0
FAR_SHARE = 1e-5
"""Of the mean |ΔW| of its tensor: elements that differ by more are counted."""

CHUNK_ELEMENTS = 1 << 18


@dataclass
class Difference:
    """The difference of two models, or of a tensor of each, in the units of the weights unless named otherwise.

    ``far`` counts elements that differ by more than ``FAR_SHARE`` of their tensor's mean |ΔW|; ``beyond`` those that
    differ by more than rounding, ``causes`` what explains them.
    """

    elements: int = 0
    largest: float = 0.0
    total: float = 0.0
    largest_ulps: float = 0.0
    far: int = 0
    beyond: int = 0
    causes: Counter[str] = field(default_factory=Counter)

    @property
    def mean(self) -> float:
        """Mean difference of an element."""
        return self.total / max(1, self.elements)

    @property
    def unexplained(self) -> int:
        """Elements that differ by more than rounding for no known reason."""
        return self.beyond - sum(self.causes.values())

    def add(self, other: Difference) -> None:
        """Take in another tensor."""
        self.elements += other.elements
        self.largest = max(self.largest, other.largest)
        self.total += other.total
        self.largest_ulps = max(self.largest_ulps, other.largest_ulps)
        self.far += other.far
        self.beyond += other.beyond
        self.causes += other.causes


def compare_tensor(
    ours: Tensor, theirs: Tensor, base: Tensor | None, models: Sequence[Tensor]
) -> tuple[Difference, Tensor]:
    """Compare one tensor; also the flat indices, int64, of the elements that differ by more than rounding.

    ``base`` and ``models`` are what it was merged from: ΔW is the change from the base or, without one, from the
    mean of the models.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"shapes differ: {tuple(ours.shape)} and {tuple(theirs.shape)}")
    inputs = [*models] if base is None else [base, *models]
    change = 0.0
    for out, *parts in chunks(ours, *inputs):
        origin = parts[0] if base is not None else torch.stack(parts).mean(dim=0)
        change += float((out - origin).abs_().sum())
    limit = FAR_SHARE * change / max(1, ours.numel())
    found, beyond, start = Difference(), [], 0
    for out, other, *parts in chunks(ours, theirs, *inputs):
        error = (out - other).abs_()
        ulps = error / spacing(out, *parts)
        # A number that is no number differs from everything, and by as much as can be.
        wrong = ~torch.isfinite(error)
        far = (error > limit) | wrong
        too_far = (ulps > ROUNDING_ULPS) | wrong
        indices = torch.nonzero(too_far).flatten() + start
        largest, largest_ulps = float(error.max()), float(ulps.max())
        found.add(
            Difference(
                out.numel(), largest, float(error.sum()), largest_ulps, int(far.sum()), indices.numel(), Counter()
            )
        )
        beyond.append(indices)
        start += out.numel()
    return found, torch.cat(beyond) if beyond else torch.zeros(0, dtype=torch.int64)


def spacing(*tensors: Tensor) -> Tensor:
    """The distance of neighbouring float32 numbers at the largest of some float64 tensors, element by element."""
    size = tensors[0].abs()
    for tensor in tensors[1:]:
        torch.maximum(size, tensor.abs(), out=size)
    # The exponent alone, by its bits, is the power of two below; 23 more bits follow it.
    power = size.float().view(torch.int32).bitwise_and_(0x7F800000).view(torch.float32).double()
    return power.clamp_(min=torch.finfo(torch.float32).smallest_normal).mul_(2.0**-23)


def chunks(*tensors: Tensor) -> Iterator[list[Tensor]]:
    """Tensors of one size side by side, flat, in float64, a chunk at a time."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    for start in range(0, flat[0].numel(), CHUNK_ELEMENTS):
        yield [tensor[start : start + CHUNK_ELEMENTS].double() for tensor in flat]
