"""Every op as one plain expression over whole tensors, and a way to run its kernel on a range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plain_distance
import plain_fusion
import plain_gram
import plain_overlap
import plain_select
import plain_spectrum
import plain_task_vectors
import plain_triplets
import plain_vocabulary
import plait.ops
import reference
import reference_ranks
import torch
from plait.engine.graph import TensorSpec
from plait.engine.opdef import OpDef, Site, Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from plait.engine.graph import Space

assert plait.ops  # registers them

SITE = Site("layers.0.weight", 7)


# ------------------------------------------------------------------------------------------------ plain


def _in_order(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def _cast(ins: Sequence[torch.Tensor], *, dtype: torch.dtype) -> torch.Tensor:
    (x,) = ins
    # What rounding once gives is a number of the dtype, so that the last step is exact.
    return torch.from_numpy(reference.rounded(x.double().numpy(), dtype)).to(dtype)


def _elect(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    total, size = _in_order([p.double() for p in ins]), _in_order([p.double().abs() for p in ins])
    negative = total < -reference.CANCELS[ins[0].dtype] * size
    return torch.where(negative, -1.0, 1.0).to(ins[0].dtype)


def _agree_sum(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    sign, *parts = ins
    return _in_order([torch.where(p.sign() == sign, p, 0) for p in parts])


def _agree_weight(ins: Sequence[torch.Tensor], *, weights: Sequence[float]) -> torch.Tensor:
    sign, *parts = ins
    total = _in_order([torch.where(p.sign() == sign, w, 0.0).to(p.dtype) for p, w in zip(parts, weights, strict=True)])
    return torch.where(total == 0, 1, total)


def _drop(ins: Sequence[torch.Tensor], *, density: float, ordinal: int) -> torch.Tensor:
    (delta,) = ins
    if density >= 1 or density <= 0:
        return delta if density >= 1 else torch.zeros_like(delta)
    key = reference.stream_key(SITE.seed, SITE.tensor_name, ordinal)
    mask = torch.from_numpy(reference.mask(delta.numel(), density, key))
    return torch.where(mask.reshape(delta.shape), delta, 0)


def _drop_ranked(
    ins: Sequence[torch.Tensor], *, density: float, epsilon: float, ordinal: int, row_elements: int, divided: bool
) -> torch.Tensor:
    (delta,) = ins
    rows = delta.reshape(-1, row_elements)
    chances = reference_ranks.chances(rows.double().numpy(), density, epsilon).reshape(-1)
    key = reference.stream_key(SITE.seed, SITE.tensor_name, ordinal)
    kept = torch.where(torch.from_numpy(reference.mask(delta.numel(), chances, key)), delta.reshape(-1), 0)
    return (kept.double() / torch.from_numpy(chances)).to(delta.dtype) if divided else kept


def _match_l1(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    kept, before, after = ins
    small = float(before) < 1e-7 or float(after) < 1e-7
    return kept.clone() if small else kept * (float(before) / float(after))


def _fill(_ins: Sequence[torch.Tensor], *, shape: tuple[int, ...], dtype: torch.dtype, space: str, value: float) -> Any:
    return torch.full(shape, value, dtype=dtype)


def _block(x: torch.Tensor) -> int:
    """Elements of a block in a pass over rows: as many whole rows as 65536 elements have room for."""
    return max((1 << 16) // x.shape[-1], 1) * x.shape[-1]


def _marks(ins: Sequence[torch.Tensor]) -> torch.Tensor:
    block = _block(ins[0])
    flags = (ins[0] != 0).reshape(-1).numpy()
    rows = [np.packbits(np.resize(part, block) & (np.arange(block) < len(part))) for part in _split(flags, block)]
    return torch.from_numpy(np.stack(rows))


def _split(x: Any, size: int) -> Sequence[Any]:
    return [x[start : start + size] for start in range(0, len(x), size)]


def _keep_marked(ins: Sequence[torch.Tensor], *, row_elements: int) -> torch.Tensor:
    x, bits = ins
    kept = [
        torch.where(torch.from_numpy(np.unpackbits(row.numpy(), count=len(block))) == 1, block, 0)
        for block, row in zip(_split(x.reshape(-1), _block(x.reshape(-1, row_elements))), bits, strict=True)
    ]
    return torch.cat(kept)


PLAIN: Mapping[str, Callable[..., torch.Tensor]] = {
    "abs_sum": lambda ins: ins[0].double().abs().sum().reshape(1),
    "add": _in_order,
    "agree_sum": _agree_sum,
    "agree_weight": _agree_weight,
    "cast": _cast,
    "divide": lambda ins: ins[0] / ins[1],
    "drop": _drop,
    "drop_ranked": _drop_ranked,
    "elect": _elect,
    "fill": _fill,
    "keep_marked": _keep_marked,
    "marks": _marks,
    "match_l1": _match_l1,
    "scale": lambda ins, factor: ins[0] * factor,
    "sub": lambda ins: ins[0] - ins[1],
    **plain_select.PLAIN,
    **plain_fusion.PLAIN,
    **plain_overlap.PLAIN,
    **plain_gram.PLAIN,
    **plain_spectrum.PLAIN,
    **plain_triplets.PLAIN,
    **plain_vocabulary.PLAIN,
    **plain_distance.PLAIN,
    **plain_task_vectors.PLAIN,
}
"""An op's value by its name; exact where the op is: one rounding an operation, inputs in order."""


STATES: Mapping[str, Sequence[int]] = {
    "keep_marked": (1,),
    "match_l1": (1, 2),
    **plain_select.STATES,
    **plain_fusion.STATES,
    **plain_overlap.STATES,
    **plain_gram.STATES,
    **plain_spectrum.STATES,
    **plain_vocabulary.STATES,
}
"""The inputs that are reductions, which a kernel gets whole, by the op's name."""

# ------------------------------------------------------------------------------------------------ kernels


def specs_of(ins: Sequence[torch.Tensor]) -> list[TensorSpec]:
    """What the tensors are."""
    return [TensorSpec(tuple(x.shape), x.dtype) for x in ins]


def bound(definition: OpDef, attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that a kernel is called with at SITE."""
    return {**attrs, **(definition.bind(attrs, SITE) if definition.bind is not None else {})}


def dirty(definition: OpDef, ins: Sequence[torch.Tensor], elements: int) -> torch.Tensor:
    """The working memory that a kernel asks for, not a byte more, and not clean."""
    return torch.full((definition.scratch_bytes(specs_of(ins), elements),), 0xA5, dtype=torch.uint8)


def run_kernel(
    definition: OpDef,
    ins: Sequence[torch.Tensor],
    dtype: torch.dtype,
    tile: Tile,
    attrs: Mapping[str, Any],
    *,
    in_place: int | None = None,
) -> torch.Tensor:
    """Run an element op on a range; the output starts dirty, or as the input it may take over."""
    whole = STATES.get(definition.name, ())
    parts = [x if position in whole else x[tile.lo : tile.hi].clone() for position, x in enumerate(ins)]
    out = parts[in_place] if in_place is not None else _unset(TensorSpec((tile.elements,), dtype))
    assert definition.kernel is not None
    definition.kernel(out, parts, dirty(definition, parts, tile.elements), tile, **bound(definition, attrs))
    return out


def reduce_in_tiles(
    definition: OpDef,
    ins: Sequence[torch.Tensor],
    tiles: Sequence[Tile],
    block_elements: int,
    attrs: Mapping[str, Any] | None = None,
    *,
    space: Space = "weight",
) -> torch.Tensor:
    """Run a reduction over tiles in the order given; ``space`` is that of the inputs."""
    reduction, specs, total = definition.reduction, specs_of(ins), ins[0].numel()
    assert reduction is not None
    assert definition.kernel is not None
    attrs, whole = attrs or {}, STATES.get(definition.name, ())
    specs = [spec.with_(space="state" if position in whole else space) for position, spec in enumerate(specs)]
    state = _unset(reduction.state_spec(specs, total, block_elements), 0)
    for tile in tiles:
        partial = _unset(reduction.partial_spec(specs, tile.elements, block_elements))
        parts = [x if position in whole else x[tile.lo : tile.hi] for position, x in enumerate(ins)]
        scratch = dirty(definition, ins, tile.elements)
        definition.kernel(partial, parts, scratch, tile, block_elements=block_elements, **attrs)
        reduction.fold(state, partial, tile, block_elements)
    return reduction.result(state, definition.infer(specs, attrs))


def _unset(spec: TensorSpec, value: float | None = None) -> torch.Tensor:
    """A tensor that holds a value, or something that must not be left in a result."""
    nothing = float("nan") if spec.dtype.is_floating_point else -1
    return torch.full(spec.shape, nothing if value is None else value, dtype=spec.dtype)
