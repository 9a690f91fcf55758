"""What task vectors are like: how large their elements are, and how often two of them point the same way.

Counts only, of float32 or float64 as a merge computes them: exact, and the same for any tiles.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..engine.graph import Attr, TensorSpec
from ..engine.opdef import REDUCE_BLOCK_ELEMENTS, GraphError, Reduction, Tile, op, require_space, same_shape
from .reduce import add_up
from .scratch import carve, carved_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


LOWEST_EXPONENT, HIGHEST_EXPONENT = -40, 16

SIZE_EDGES = tuple(2.0**exponent for exponent in range(LOWEST_EXPONENT, HIGHEST_EXPONENT + 1))
"""Edges between the bins of `delta_histogram`, 2⁻⁴⁰ to 2¹⁶; a first bin is below, a last one above all of them."""

SIZE_BINS = len(SIZE_EDGES) + 1

_BITS: Mapping[torch.dtype, tuple[type[np.unsignedinteger[Any]], type[np.signedinteger[Any]], int, int]] = {
    torch.float32: (np.uint32, np.int32, 23, 8),
    torch.float64: (np.uint64, np.int64, 52, 11),
}
"""By dtype: the bits without and with a sign, those of the fraction and of the exponent."""


def _require_deltas(specs: Sequence[TensorSpec], op_name: str) -> None:
    require_space(specs, "delta", op_name)
    if same_shape(specs, op_name).dtype not in _BITS:
        raise GraphError(f"{op_name} works in float32 or float64, not {specs[0].dtype}")


# ------------------------------------------------------------------------------------------------ sizes


def _histogram_spec(_specs: Sequence[TensorSpec], _elements: int, _block_elements: int) -> TensorSpec:
    return TensorSpec((2 + 2 * SIZE_BINS,), torch.int64, "state")


def _infer_histogram(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    _require_deltas(specs, "delta_histogram")
    return _histogram_spec(specs, 0, 0)


def _histogram_scratch_bytes(specs: Sequence[TensorSpec], elements: int) -> int:
    return carved_bytes((_BITS[specs[0].dtype][0], min(elements, REDUCE_BLOCK_ELEMENTS)))


@op(
    "delta_histogram",
    locality="reduce",
    infer=_infer_histogram,
    scratch_bytes=_histogram_scratch_bytes,
    reduction=Reduction(_histogram_spec, _histogram_spec, add_up),
)
def delta_histogram(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, **_: object
) -> None:
    """How many elements of a Δ are 0, NaN or infinity, and in each bin of |Δ| where Δ > 0, and where Δ < 0.

    A bin goes from an edge up to below the next one, twice as large.
    """
    (delta,) = ins
    unsigned, signed, fraction_bits, exponent_bits = _BITS[delta.dtype]
    exponents = 1 << exponent_bits
    codes_of = np.zeros(2 * exponents, dtype=np.int64)  # by sign and exponent
    zeros = subnormal = 0
    # A block at a time, which stays in the cache.
    for start in range(0, delta.numel(), REDUCE_BLOCK_ELEMENTS):
        part = delta[start : start + REDUCE_BLOCK_ELEMENTS].numpy()
        (codes,) = carve(scratch, (unsigned, len(part)))
        np.right_shift(part.view(unsigned), unsigned(fraction_bits), out=codes)
        # torch's count, unlike numpy's, lets the other workers go on.
        found = torch.bincount(torch.from_numpy(codes.view(signed)), minlength=2 * exponents).numpy()
        codes_of += found
        zeros_here, positive_zeros = int(found[0] + found[exponents]), len(part) - np.count_nonzero(part.view(signed))
        if zeros_here != positive_zeros:  # negative zeros, or what is too small for an exponent
            zeros_here = len(part) - int(np.count_nonzero(part))
            subnormal += int(np.count_nonzero((part > 0) & (part < np.finfo(part.dtype).smallest_normal)))
        zeros += zeros_here
    tiny = int(codes_of[0] + codes_of[exponents]) - zeros
    by_sign = codes_of.reshape(2, exponents)
    result = out.numpy()
    result[:] = 0
    result[0], result[1] = zeros, by_sign[:, -1].sum()
    by_sign[:, -1] = 0
    by_sign[0, 0], by_sign[1, 0] = subnormal, tiny - subnormal
    first = LOWEST_EXPONENT + exponents // 2 - 1  # the code of the lowest edge
    stop = first + SIZE_BINS - 2
    for counts, own in zip(by_sign, (result[2 : 2 + SIZE_BINS], result[2 + SIZE_BINS :]), strict=True):
        own[0], own[1:-1], own[-1] = counts[:first].sum(), counts[first:stop], counts[stop:].sum()


# ------------------------------------------------------------------------------------------------ signs


def _agreement_spec(specs: Sequence[TensorSpec], _elements: int, _block_elements: int) -> TensorSpec:
    return TensorSpec((len(specs) * (len(specs) - 1) // 2, 2), torch.int64, "state")


def _infer_agreement(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    _require_deltas(specs, "sign_agreement")
    if len(specs) < 2:
        raise GraphError("signs of one task vector agree with nothing")
    return _agreement_spec(specs, 0, 0)


def _agreement_scratch_bytes(specs: Sequence[TensorSpec], elements: int) -> int:
    most = min(elements, REDUCE_BLOCK_ELEMENTS)
    return carved_bytes(*((_BITS[spec.dtype][0], most) for spec in (*specs, specs[0])))


@op(
    "sign_agreement",
    locality="reduce",
    infer=_infer_agreement,
    scratch_bytes=_agreement_scratch_bytes,
    reduction=Reduction(_agreement_spec, _agreement_spec, add_up),
)
def sign_agreement(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, **_: object
) -> None:
    """For each pair of Δ how many elements are not 0 in both, and in how many of these the signs are the same.

    Pairs are (1, 2), (1, 3) … (2, 3) …. NaN has no sign, infinity has one.
    """
    result = np.zeros((len(ins) * (len(ins) - 1) // 2, 2), dtype=np.int64)
    for start in range(0, ins[0].numel(), REDUCE_BLOCK_ELEMENTS):
        parts = [delta[start : start + REDUCE_BLOCK_ELEMENTS] for delta in ins]
        *signs, both = _memory(scratch, parts)
        for delta, sign in zip(parts, signs, strict=True):
            torch.sign(delta, out=sign)
        for row, (one, other) in enumerate(combinations(signs, 2)):
            # Sums of 1 and -1 over a block: whole numbers that the dtype holds, in any order.
            torch.mul(one, other, out=both)
            moved, same_less_other = torch.dot(both, both).item(), torch.dot(one, other).item()
            if moved != moved:  # NaN
                both.nan_to_num_(0.0)
                moved, same_less_other = torch.dot(both, both).item(), both.sum(dtype=torch.float64).item()
            result[row] += int(moved), int(moved + same_less_other) // 2
    out.copy_(torch.from_numpy(result).view(out.shape))


def _memory(scratch: torch.Tensor, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    dtype = parts[0].dtype
    arrays = carve(scratch, *((_BITS[dtype][0], parts[0].numel()) for _ in range(len(parts) + 1)))
    return [torch.from_numpy(array).view(dtype) for array in arrays]


# ------------------------------------------------------------------------------------------------ together


def _infer_side_by_side(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "state", "side_by_side")
    return TensorSpec((sum(spec.elements for spec in specs),), torch.float64, "state")


@op("side_by_side", locality="state", infer=_infer_side_by_side)
def side_by_side(out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile) -> None:
    """States one after the other as float64: counts up to 2⁵³ stay exact."""
    torch.cat([state.reshape(-1).double() for state in ins], out=out)
