"""Ops that drop a part of a task vector, and what makes up for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engine.opdef import DeviceForm, GraphError, Site, Tile, always, op, require_space
from . import counter_rng, device_rng
from .elementwise import is_zero, zeros

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine.graph import Attr, Node, TensorSpec


def _infer_drop(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "delta", "drop")
    if not isinstance(attrs["density"], (int, float)) or not isinstance(attrs["ordinal"], int):
        raise GraphError("drop takes a density and the ordinal of its input")
    return specs[0]


def _simplify_drop(inputs: Sequence[Node], attrs: Mapping[str, Attr]) -> Node | None:
    """Density 1 and more keeps everything, 0 and less nothing; zeros stay zeros."""
    (delta,) = inputs
    density = attrs["density"]
    assert isinstance(density, (int, float))
    if density >= 1 or is_zero(delta):
        return delta
    return zeros(delta.spec) if density <= 0 else None


def bind_stream(attrs: Mapping[str, Attr], site: Site) -> Mapping[str, Attr]:
    """The key of an input's random stream."""
    ordinal = attrs["ordinal"]
    assert isinstance(ordinal, int)
    return {"key": counter_rng.stream_key(site.seed, site.tensor_name, ordinal)}


def _drop_on_device(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    scratch: torch.Tensor,
    tile: Tile,
    *,
    density: float,
    key: int,
    **_: object,
) -> None:
    torch.mul(ins[0], device_rng.mask(tile.lo, tile.hi, density, key, scratch, out.dtype), out=out)


@op(
    "drop",
    infer=_infer_drop,
    simplify=_simplify_drop,
    bind=bind_stream,
    scratch_bytes=lambda _specs, elements: counter_rng.scratch_bytes(elements),
    inplace=(0,),
    keeps_nonfinite=always,
    device=DeviceForm(_drop_on_device, lambda _specs, elements: device_rng.scratch_bytes(elements)),
)
def drop(
    out: torch.Tensor,
    ins: Sequence[torch.Tensor],
    scratch: torch.Tensor,
    tile: Tile,
    *,
    density: float,
    key: int,
    **_: object,
) -> None:
    """Keep each element with probability ``density``, the others become zero.

    Yu et al., "Language Models are Super Mario" (2023), without its rescaling.
    """
    mask = counter_rng.kept(tile.lo, tile.hi, density, key, scratch.numpy())
    # A product and not a masked copy: a random mask makes branches unpredictable, and that is 15 times slower.
    np.multiply(ins[0].numpy(), mask, out=out.numpy())


def _infer_match_l1(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs[:1], "delta", "match_l1")
    require_space(specs[1:], "state", "match_l1's norms")
    return specs[0]


_NEGLIGIBLE_L1 = 1e-7


def _simplify_match_l1(inputs: Sequence[Node], _attrs: Mapping[str, Attr]) -> Node | None:
    kept, before, after = inputs
    return kept if before is after or is_zero(kept) else None


@op("match_l1", infer=_infer_match_l1, simplify=_simplify_match_l1, inplace=(0,))
def match_l1(out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile) -> None:
    """Scale what was kept so that its L1 norm is that of the whole: inputs kept, Σ|Δ|, Σ|kept|.

    The factor is 1 where either norm is below 1e-7.
    """
    kept, before, after = ins
    whole, part = float(before[0]), float(after[0])
    factor = 1.0 if whole < _NEGLIGIBLE_L1 or part < _NEGLIGIBLE_L1 else whole / part
    torch.mul(kept, factor, out=out)
