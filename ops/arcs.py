"""Interpolation along great circles: from dot products to coefficients, for one pair of vectors or for many.

Shoemake 1985, "Animating rotation with quaternion curves".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..engine.graph import Attr, TensorSpec
from ..engine.opdef import GraphError, Tile, op, require_space

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from .gram import Floats

_LEAST_NORM = 1e-7
_COLINEAR = 1e-14
"""The square of a sine that the rounding of the sums, some 1e-15, cannot make of parallel vectors."""


def arc(dots: Floats, t: float) -> Floats:
    """Coefficients of NuSLERP, (2, vectors), from the dot products (3, vectors): ⟨0,0⟩, ⟨0,1⟩, ⟨1,1⟩.

    Norms count as 1e-7 at least. Parallel and antiparallel vectors are interpolated linearly.
    """
    squares0, products, squares1 = dots
    norms = np.maximum(np.sqrt(squares0), _LEAST_NORM) * np.maximum(np.sqrt(squares1), _LEAST_NORM)
    cosine = np.clip(products / norms, -1.0, 1.0)
    return _along(cosine, (1.0 - cosine) * (1.0 + cosine) <= _COLINEAR, t)


def _along(cosine: Floats, straight: NDArray[np.bool_], t: float) -> Floats:
    """Coefficients (2, vectors) at ``t`` of the arc, or of the chord where ``straight``."""
    angle = np.arccos(np.where(straight, 0.0, cosine))
    sine = np.sin(angle)
    return np.stack(
        [
            np.where(straight, 1.0 - t, np.sin((1.0 - t) * angle) / sine),
            np.where(straight, t, np.sin(t * angle) / sine),
        ]
    )


_NO_NORM = 1e-8
_NEARLY_COLINEAR = 0.9995


def _infer_pair(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "state", "an arc's dot products")
    if specs[0].shape != (3,) or not isinstance(attrs["t"], (int, float)):
        raise GraphError("an arc takes the dot products of two vectors, and a position")
    return TensorSpec((2,), specs[0].dtype, "state")


@op("slerp_coefficients", locality="state", infer=_infer_pair)
def slerp_coefficients(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, t: float
) -> None:
    """From the dot products of two vectors to SLERP's coefficients; a norm up to 1e-8 counts as 1."""
    squares0, product, squares1 = ins[0].numpy()
    norms = [np.sqrt(squares) if np.sqrt(squares) > _NO_NORM else 1.0 for squares in (squares0, squares1)]
    cosine = np.clip(np.array([product / norms[0] / norms[1]]), -1.0, 1.0)
    out.numpy()[:] = _along(cosine, np.abs(cosine) > _NEARLY_COLINEAR, t)[:, 0]


@op("nuslerp_coefficients", locality="state", infer=_infer_pair)
def nuslerp_coefficients(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, t: float
) -> None:
    """From the dot products of two vectors to NuSLERP's coefficients."""
    out.numpy()[:] = arc(ins[0].numpy().reshape(3, 1), t)[:, 0]
