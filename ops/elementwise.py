"""Ops that treat every element on its own: cast, sub, add, scale, divide, fill.

A multiplication and an addition are two operations everywhere (never ``addcmul`` or ``alpha=``): the vector
body and the scalar tail of a fused one may round differently, and then bytes would depend on the tile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..engine.graph import Attr, Node, TensorSpec
from ..engine.opdef import GraphError, Tile, always, op, require_space, same_shape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH_BITS = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24, torch.float64: 53}


def is_zero(node: Node) -> bool:
    """Whether a node is zero everywhere by construction."""
    return node.op.name == "fill" and node.attr("value") == 0


# ------------------------------------------------------------------------------------------------ cast


def _infer_cast(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    dtype = attrs["dtype"]
    if not isinstance(dtype, torch.dtype) or dtype not in _WIDTH_BITS or specs[0].dtype not in _WIDTH_BITS:
        raise GraphError(f"cast from {specs[0].dtype} to {dtype} is not defined")
    return specs[0].with_(dtype=dtype)


def _simplify_cast(inputs: Sequence[Node], attrs: Mapping[str, Attr]) -> Node | None:
    """A cast to the same dtype is nothing; there and back through a type that holds all values is nothing."""
    (node,) = inputs
    if node.spec.dtype == attrs["dtype"]:
        return node
    if node.op.name == "cast":
        (origin,) = node.inputs
        if origin.spec.dtype == attrs["dtype"] and _holds(node.spec.dtype, origin.spec.dtype):
            return origin
    if is_zero(node):
        return zeros(_infer_cast([node.spec], attrs))
    return None


def _holds(wide: torch.dtype, narrow: torch.dtype) -> bool:
    """Whether every value of ``narrow`` is a value of ``wide``."""
    return wide == narrow or wide == torch.float64 or (wide == torch.float32 and narrow.itemsize == 2)


def _cast_scratch_bytes(specs: Sequence[TensorSpec], elements: int) -> int:
    return elements * 8 if specs[0].dtype == torch.float64 else 0


@op("cast", infer=_infer_cast, simplify=_simplify_cast, scratch_bytes=_cast_scratch_bytes, keeps_nonfinite=always)
def cast(
    out: torch.Tensor, ins: Sequence[torch.Tensor], scratch: torch.Tensor, _tile: Tile, *, dtype: torch.dtype
) -> None:
    """Convert to another dtype, rounding once to nearest even."""
    (x,) = ins
    if x.dtype == torch.float64 and dtype.itemsize == 2:
        x = _round_to_odd(x, scratch)
    out.copy_(x)


def _round_to_odd(x: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
    """Cut float64 to float32's 24 bits, setting the last bit where anything was cut off.

    Torch goes from float64 to 16 bits by way of float32, which rounds twice; after this the first rounding is
    exact and the second decides as if it were the only one. Boldo and Melquiond, "When double rounding is
    odd" (2005). Below the normal range of float32 (1e-38) two roundings remain.
    """
    low_bits = (1 << 29) - 1
    bits = x.view(torch.int64)
    odd = scratch[: 8 * x.numel()].view(torch.int64)
    torch.bitwise_and(bits, low_bits, out=odd)
    odd.add_(low_bits).bitwise_and_(1 << 29)  # the carry says that a low bit was set
    torch.bitwise_or(bits, odd, out=odd)
    odd.bitwise_and_(~low_bits)
    return odd.view(torch.float64)


# ------------------------------------------------------------------------------------------------ fill


def _infer_fill(_specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    shape, dtype, space = attrs["shape"], attrs["dtype"], attrs["space"]
    if not isinstance(shape, tuple) or not isinstance(dtype, torch.dtype) or space not in ("weight", "delta"):
        raise GraphError("fill takes a shape, a dtype and a space")
    return TensorSpec(tuple(int(extent) for extent in shape), dtype, "weight" if space == "weight" else "delta")


@op("fill", infer=_infer_fill)
def fill(
    out: torch.Tensor, _ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, value: float, **_: object
) -> None:
    """The same value everywhere; nothing is read."""
    out.fill_(value)


def zeros(spec: TensorSpec) -> Node:
    """A fill node of zeros with the given spec."""
    return fill(shape=spec.shape, dtype=spec.dtype, space=spec.space, value=0)


# ------------------------------------------------------------------------------------------------ sub, add


def _infer_sub(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "weight", "sub")
    return same_shape(specs, "sub").with_(space="delta")


def _simplify_sub(inputs: Sequence[Node], _attrs: Mapping[str, Attr]) -> Node | None:
    x, base = inputs
    return zeros(x.spec.with_(space="delta")) if x is base else None


@op("sub", infer=_infer_sub, simplify=_simplify_sub, inplace=(0,), keeps_nonfinite=always)
def sub(out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile) -> None:
    """Task vector: weights minus base weights."""
    x, base = ins
    torch.sub(x, base, out=out)


def _infer_add(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    """A weight plus deltas is a weight; otherwise all must be of one space."""
    spec = same_shape(specs, "add")
    spaces = {other.space for other in specs}
    if "sign" in spaces or "state" in spaces:
        raise GraphError("add takes weights and deltas")
    if spaces == {"weight", "delta"}:
        require_space(specs[1:], "delta", "add after its first weight")
    return spec


def _simplify_add(inputs: Sequence[Node], _attrs: Mapping[str, Attr]) -> Node | None:
    kept = [node for node in inputs if not is_zero(node)]
    if len(kept) == len(inputs) and len(kept) > 1:
        return None
    if not kept:
        return inputs[0]
    if inputs[0].spec.space == "weight" and kept[0].spec.space == "delta":
        return None  # zeros stand for the weight: the sum must stay a weight
    return kept[0] if len(kept) == 1 else add(*kept)


@op("add", infer=_infer_add, simplify=_simplify_add, inplace=(0,), keeps_nonfinite=always)
def add(out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile) -> None:
    """Sum in the order of the inputs."""
    torch.add(ins[0], ins[1], out=out)
    for x in ins[2:]:
        torch.add(out, x, out=out)


# ------------------------------------------------------------------------------------------------ scale, divide


def _infer_scale(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    if specs[0].space not in ("weight", "delta") or not isinstance(attrs["factor"], (int, float)):
        raise GraphError("scale takes a weight or a delta, and a number")
    return specs[0]


def _simplify_scale(inputs: Sequence[Node], attrs: Mapping[str, Attr]) -> Node | None:
    (x,), factor = inputs, attrs["factor"]
    assert isinstance(factor, (int, float))
    if factor == 1:
        return x
    if factor == 0 or is_zero(x):
        return zeros(x.spec)
    if x.op.name == "scale":
        inner = x.attr("factor")
        assert isinstance(inner, (int, float))
        return scale(*x.inputs, factor=inner * factor)
    return None


@op("scale", infer=_infer_scale, simplify=_simplify_scale, inplace=(0,), keeps_nonfinite=always)
def scale(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, factor: float
) -> None:
    """Multiply by a number."""
    torch.mul(ins[0], factor, out=out)


def _infer_divide(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    require_space(specs, "delta", "divide")
    return same_shape(specs, "divide")


def _simplify_divide(inputs: Sequence[Node], _attrs: Mapping[str, Attr]) -> Node | None:
    return inputs[0] if is_zero(inputs[0]) else None


@op("divide", infer=_infer_divide, simplify=_simplify_divide, inplace=(0,))
def divide(out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile) -> None:
    """Divide element by element."""
    torch.div(ins[0], ins[1], out=out)
