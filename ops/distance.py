"""How far apart two tensors are: the sums that norms, cosine and distance are made of, in one reading.

Every element is widened to float64 before anything is made of it. ‖a-b‖² is summed from the differences: worked out
from the norms and the dot product it would cancel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engine.graph import Attr, TensorSpec
from ..engine.opdef import REDUCE_BLOCK_ELEMENTS, GraphError, Reduction, Tile, op
from ..engine.units import align_up
from .reduce import block_count, place_blocks, sum_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUMS = ("a_squared", "b_squared", "dot", "distance_squared", "largest", "changed", "nonfinite_a", "nonfinite_b")
"""What `distances` gives, in this order; ``largest`` is max |a-b|, the last three are counts of elements."""

_LARGEST = SUMS.index("largest")
_LANES = 8
"""Rows of the scratch start at multiples of so many numbers: a dot product's last bits may depend on alignment."""

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_NUMBERS = frozenset(
    getattr(torch, name)
    for name in (
        *("float64", "float32", "float16", "bfloat16"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
    if hasattr(torch, name)
)


def has_numbers(dtype: torch.dtype) -> bool:
    """Whether elements are numbers that a distance can be taken of; else they are only the same or not."""
    return dtype in _NUMBERS


def _infer_distances(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    a, b = specs
    if a.shape != b.shape or "state" in (a.space, b.space):
        raise GraphError(f"distances: {list(a.shape)} {a.space} and {list(b.shape)} {b.space}")
    if a.dtype != b.dtype and not (has_numbers(a.dtype) and has_numbers(b.dtype)):
        raise GraphError(f"distances: {a.dtype} and {b.dtype}")
    return TensorSpec((len(SUMS),), torch.float64, "state")


def _distances_scratch_bytes(_specs: Sequence[TensorSpec], elements: int) -> int:
    most = align_up(min(elements, REDUCE_BLOCK_ELEMENTS), _LANES)
    return (2 * 8 + 1) * most


def _blocks_spec(_specs: Sequence[TensorSpec], elements: int, block_elements: int) -> TensorSpec:
    return TensorSpec((block_count(elements, block_elements), len(SUMS)), torch.float64, "state")


def _finish(state: torch.Tensor, out: torch.Tensor) -> None:
    sum_blocks(state, out)
    out[_LARGEST] = state[:, _LARGEST].max()


@op(
    "distances",
    locality="reduce",
    infer=_infer_distances,
    scratch_bytes=_distances_scratch_bytes,
    reduction=Reduction(_blocks_spec, _blocks_spec, place_blocks, _finish),
)
def distances(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, block_elements: int
) -> None:
    """‖a‖², ‖b‖², ⟨a, b⟩, ‖a-b‖², max |a-b|, elements that differ, and how many of each are NaN or infinity.

    An element that is not finite in one of the two is left out of everything but the counts. Elements of the same
    dtype differ if their bits do, others if their values do. What has no numbers is only counted.
    """
    a, b = ins
    out.zero_()
    rows = out.numpy().reshape(-1, len(SUMS))
    for row, start in enumerate(range(0, a.numel(), block_elements)):
        part = slice(start, start + block_elements)
        rows[row] = _block(a[part], b[part], scratch)


def _block(a: torch.Tensor, b: torch.Tensor, scratch: torch.Tensor) -> tuple[float, ...]:
    elements = a.numel()
    room = align_up(elements, _LANES)
    wide_a, wide_b = scratch[: 16 * room].view(torch.float64).view(2, room)[:, :elements]
    flags = scratch[16 * room : 16 * room + elements].view(torch.bool).numpy()
    changed = 0
    alike = a.dtype == b.dtype
    if alike:
        changed = _count_different(_bits(a), _bits(b), flags)
    if not has_numbers(a.dtype):
        return 0.0, 0.0, 0.0, 0.0, 0.0, changed, 0, 0
    identical = alike and not changed
    wide_a.copy_(a)
    if identical:
        wide_b = wide_a
    else:
        wide_b.copy_(b)
    if not alike:
        changed = _count_different(wide_a.numpy(), wide_b.numpy(), flags)
    a_squared = torch.dot(wide_a, wide_a).item()
    b_squared = torch.dot(wide_b, wide_b).item()
    nonfinite_a = nonfinite_b = 0
    if not math.isfinite(a_squared + b_squared):
        bad_a, bad_b = ~torch.isfinite(wide_a), ~torch.isfinite(wide_b)
        nonfinite_a, nonfinite_b = int(bad_a.sum().item()), int(bad_b.sum().item())
        if not alike:  # two NaN are no difference
            changed -= int((torch.isnan(wide_a) & torch.isnan(wide_b)).sum().item())
        bad = bad_a | bad_b
        wide_a.masked_fill_(bad, 0)
        wide_b.masked_fill_(bad, 0)
        a_squared = torch.dot(wide_a, wide_a).item()
        b_squared = torch.dot(wide_b, wide_b).item()
    if identical:
        return a_squared, a_squared, a_squared, 0.0, 0.0, 0, nonfinite_a, nonfinite_b
    dot = torch.dot(wide_a, wide_b).item()
    gap = torch.sub(wide_a, wide_b, out=wide_a)  # where it is in the cache
    low, high = torch.aminmax(gap)
    distance_squared = torch.dot(gap, gap).item()
    largest = max(-low.item(), high.item())
    return a_squared, b_squared, dot, distance_squared, largest, changed, nonfinite_a, nonfinite_b


def _bits(x: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    bits: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = x.view(_BITS[x.itemsize]).numpy()
    return bits


def _count_different(
    a: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    b: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    flags: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
) -> int:
    """Elements that differ; numpy's walk is the faster one, NaN differs from itself."""
    return int(np.count_nonzero(np.not_equal(a, b, out=flags)))
