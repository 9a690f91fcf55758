"""Ops of every locality that are not the package's own, to cut and run. They are not registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from merge_support import loads
from plait.engine.graph import Node, TensorSpec
from plait.engine.opdef import OpDef, Reduction, Tile
from plait.engine.panels import lines_of
from plait.ops.elementwise import cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

F32 = torch.float32


def _same(specs: Sequence[TensorSpec], _attrs: Mapping[str, Any]) -> TensorSpec:
    return specs[0]


def _row_maximum(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, row: int
) -> None:
    torch.sub(ins[0].view(-1, row), ins[0].view(-1, row).amax(1, keepdim=True), out=out.view(-1, row))


def _lines(x: torch.Tensor, width: int, columns: bool) -> torch.Tensor:
    return x.view(width, -1).mT if columns else x.view(-1, width)


def _fading(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, width: int, columns: bool
) -> None:
    for line in _lines(ins[0], width, columns):
        out.mul_(0.5).add_(line)


def _minus(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, width: int, columns: bool
) -> None:
    torch.sub(_lines(ins[0], width, columns), ins[1], out=_lines(out, width, columns))


def _largest(
    out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile, *, block_elements: int
) -> None:
    for block, part in enumerate(ins[0].split(block_elements)):
        out[block] = part.abs().amax()


def _fold(state: torch.Tensor, partial: torch.Tensor, tile: Tile, block_elements: int) -> None:
    torch.maximum(state, partial[: -(-tile.elements // block_elements)].amax(), out=state)


def _over_largest(out: torch.Tensor, ins: Sequence[torch.Tensor], _scratch: torch.Tensor, _tile: Tile) -> None:
    torch.div(ins[0], ins[1], out=out)


below_row_maximum = OpDef("below_row_maximum", "row", _same, _row_maximum, "x minus the largest of its row")
fading = OpDef(
    "fading",
    "whole",
    lambda specs, _: TensorSpec((min(specs[0].shape),), specs[0].dtype, "state"),
    _fading,
    "a sum of a matrix's lines in which the last ones count most, so that another order shows",
)
minus = OpDef("minus", "panel", _same, _minus, "each line of a matrix minus a line")
largest = OpDef(
    "largest",
    "reduce",
    lambda specs, _: TensorSpec((1,), specs[0].dtype, "state"),
    _largest,
    "the largest size of any element",
    reduction=Reduction(
        lambda specs, elements, block: TensorSpec((max(-(-elements // block), 1),), specs[0].dtype, "state"),
        lambda specs, _elements, _block: TensorSpec((1,), specs[0].dtype, "state"),
        _fold,
        lambda state, out: out.copy_(state),
    ),
)
over_largest = OpDef("over_largest", "element", _same, _over_largest, "x divided by a number")


def wide(shape: tuple[int, ...]) -> Node:
    return cast(loads(1, shape)[0], dtype=F32)


def normalized(node: Node) -> Node:
    return over_largest(node, largest(node))


def unfaded(shape: tuple[int, int]) -> Node:
    lines = lines_of(shape)
    x = wide(shape)
    geometry = {"width": lines.width, "columns": lines.columns}
    return minus(x, fading(x, **geometry), **geometry)


def values(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
