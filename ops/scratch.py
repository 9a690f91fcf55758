"""Cutting a kernel's scratch into typed arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.units import align_up

if TYPE_CHECKING:
    import torch
    from numpy.typing import DTypeLike, NDArray

_ALIGN_BYTES = 64


def carved_bytes(*parts: tuple[DTypeLike, int]) -> int:
    """Scratch that `carve` needs for arrays of (dtype, elements)."""
    return sum(align_up(np.dtype(dtype).itemsize * elements, _ALIGN_BYTES) for dtype, elements in parts)


def carve(scratch: torch.Tensor, *parts: tuple[DTypeLike, int]) -> list[NDArray[Any]]:
    """Arrays of (dtype, elements), one after the other in the scratch; their contents are anything."""
    memory = scratch.numpy()
    arrays: list[NDArray[Any]] = []
    start = 0
    for dtype, elements in parts:
        size_bytes = np.dtype(dtype).itemsize * elements
        arrays.append(memory[start : start + size_bytes].view(dtype))
        start += align_up(size_bytes, _ALIGN_BYTES)
    return arrays
