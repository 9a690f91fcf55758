"""What an op is, and the registry of ops. A new op is one function with `@op`; nothing else changes.

Locality says how an op may be cut into tiles:

========  =====================================================================================
element   any range of flat elements on its own
row       ranges aligned to rows (the last dimension)
reduce    ends a pass: each tile gives a partial, partials fold into a small state
state     from states to a state, once, between two passes: a threshold, a few coefficients
panel     a matrix's rows, or its columns where it is wider than tall, in panels of a fixed number of them
whole     ends a pass too: what all panels say together, such as a Gram matrix. They come one after the other in
          their order, ``out`` is the state, and the plan says how many bytes that takes
========  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch

from .graph import Attr, Node, TensorSpec
from .portable import portable
from .row_map import RowMap

Locality: TypeAlias = Literal["element", "row", "reduce", "state", "panel", "whole"]

REDUCE_BLOCK_ELEMENTS = 1 << 16
"""Reductions add up fixed blocks of this many elements, so that no tile size can change a sum."""


def row_block_elements(row_elements: int) -> int:
    """Elements of a block in a pass over rows: as many rows as a block has room for, at least one."""
    row_elements = max(row_elements, 1)
    return max(REDUCE_BLOCK_ELEMENTS // row_elements, 1) * row_elements


class Tile(NamedTuple):
    """A half-open range of flat elements of one tensor."""

    lo: int
    hi: int

    @property
    def elements(self) -> int:
        """How many elements the tile has."""
        return self.hi - self.lo


class Site(NamedTuple):
    """Where a program runs: what its result may depend on besides the input values."""

    tensor_name: str
    seed: int


Infer: TypeAlias = Callable[[Sequence[TensorSpec], Mapping[str, Attr]], TensorSpec]
Kernel: TypeAlias = Callable[..., None]
ScratchBytes: TypeAlias = Callable[[Sequence[TensorSpec], int], int]
Bind: TypeAlias = Callable[[Mapping[str, Attr], Site], Mapping[str, Attr]]
Leaner: TypeAlias = Callable[[Sequence[Node]], Node]
KeepsNonfinite: TypeAlias = Callable[[Node], bool]
Simplify: TypeAlias = Callable[[Sequence[Node], Mapping[str, Attr]], "Node | None"]


class GraphError(ValueError):
    """An op was given inputs it is not defined for: a defect in a method, found before anything runs."""


def always(_node: Node) -> bool:
    """Of an op that keeps NaN and infinity, whatever its inputs are."""
    return True


def never(_node: Node) -> bool:
    """Of an op that may hide NaN or infinity."""
    return False


def no_scratch(_specs: Sequence[TensorSpec], _elements: int) -> int:
    """The scratch of an op that needs none."""
    return 0


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """How a reduce op goes from tiles to a result, the same for any order and size of tiles.

    A pass has a fixed ``block_elements``, and every tile starts at a multiple of it. The kernel (called with
    ``block_elements`` as a keyword) writes a tile's partial; ``fold(state, partial, tile, block_elements)`` puts
    it into the tensor's state, one caller at a time; ``finish(state, out)`` writes the result, a tensor of the
    node's spec, once every tile is in; without one the state is the result. The first two specs are those of
    ``(inputs, elements, block_elements)`` for a tile of so many elements and for the whole tensor.

    ``by_row``: a block is a row, and tiles hold whole ones.
    ``sampled``: a guess from a part of the tensor is enough; the part is fixed by the tensor's size alone.
    ``needed(states)``, given the node's inputs that are states, says whether there is anything to do: a pass whose
    reductions all have one and say no is not walked, and their results are those of no tile at all.
    """

    partial_spec: Callable[[Sequence[TensorSpec], int, int], TensorSpec]
    state_spec: Callable[[Sequence[TensorSpec], int, int], TensorSpec]
    fold: Callable[[torch.Tensor, torch.Tensor, Tile, int], None]
    finish: Callable[[torch.Tensor, torch.Tensor], None] | None = None
    by_row: bool = False
    sampled: bool = False
    needed: Callable[[Sequence[torch.Tensor]], bool] | None = None

    def result(self, state: torch.Tensor, spec: TensorSpec) -> torch.Tensor:
        """What a state comes to once every tile is in: a tensor of the node's spec."""
        if self.finish is None:
            return state
        out = torch.empty(spec.shape, dtype=spec.dtype)
        self.finish(state, out)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class DeviceForm:
    """How an op runs on a device that is not the host: the same bytes by another kernel, with scratch of its own."""

    kernel: Kernel
    scratch_bytes: ScratchBytes = no_scratch


@dataclass(frozen=True, slots=True, eq=False)
class OpDef:
    """One op.

    ``kernel(out, ins, scratch, tile, **attrs)`` computes one tile: ``out`` and ``ins`` are 1-D tensors of the
    tile's elements (a state comes whole, and for a state op the tile is the whole tensor), ``scratch`` a 1-D uint8
    tensor of ``scratch_bytes``. It allocates nothing of a tile's size and keeps no state. ``infer(specs, attrs)``
    gives the output's spec or raises GraphError. ``inplace`` lists the inputs whose storage the output may take
    over.
    For a ``whole`` op ``out`` is the state, zeros before the first tile. A ``state`` op gets no scratch: its
    ``scratch_bytes`` are what the libraries that it calls may take.
    ``bind(attrs, site)`` gives the attrs that depend on the tensor's name and the seed, merged over the node's.
    ``leaner(inputs)`` gives a node with the same value that costs more time but keeps less from one pass to the next;
    the plan takes it where memory is short. ``simplify(inputs, attrs)`` may return a node with the same value that
    costs less. ``keeps_nonfinite(node)``: whether the output is NaN or infinity wherever one of the inputs is.
    ``device`` is how it runs on a device; without it the kernel itself runs there if it is `portable`.
    Ops without a kernel (load, gather, write) are IO.
    """

    name: str
    locality: Locality
    infer: Infer
    kernel: Kernel | None
    doc: str
    scratch_bytes: ScratchBytes = no_scratch
    inplace: tuple[int, ...] = ()
    bind: Bind | None = None
    simplify: Simplify | None = None
    reduction: Reduction | None = None
    leaner: Leaner | None = None
    keeps_nonfinite: KeepsNonfinite = never
    device: DeviceForm | None = None

    @property
    def device_form(self) -> DeviceForm | None:
        """The kernel for a device that is not the host; None where the op has to stay there."""
        if self.device is not None or self.locality != "element" or self.kernel is None:
            return self.device
        return DeviceForm(self.kernel, self.scratch_bytes) if portable(self.kernel) else None

    def __call__(self, *inputs: Node, **attrs: Attr) -> Node:
        """Build the node: ``sub(x, base)``. Raises GraphError if the specs do not fit."""
        spec = self.infer([node.spec for node in inputs], attrs)
        simpler = self.simplify(inputs, attrs) if self.simplify is not None else None
        return simpler if simpler is not None else Node(self, inputs, attrs.items(), spec)


_OPS: dict[str, OpDef] = {}


def op(
    name: str,
    *,
    locality: Locality = "element",
    infer: Infer,
    scratch_bytes: ScratchBytes = no_scratch,
    inplace: tuple[int, ...] = (),
    bind: Bind | None = None,
    simplify: Simplify | None = None,
    reduction: Reduction | None = None,
    leaner: Leaner | None = None,
    keeps_nonfinite: KeepsNonfinite = never,
    device: DeviceForm | None = None,
) -> Callable[[Kernel], OpDef]:
    """Register a kernel as an op. The kernel's docstring becomes the op's description."""

    def register(kernel: Kernel) -> OpDef:
        if (locality == "reduce") != (reduction is not None):
            raise ValueError(f"op {name!r}: a reduce op, and no other, has a reduction")
        doc = (kernel.__doc__ or "").strip()
        return _add(
            OpDef(
                name,
                locality,
                infer,
                kernel,
                doc,
                scratch_bytes,
                inplace,
                bind,
                simplify,
                reduction,
                leaner,
                keeps_nonfinite,
                device,
            )
        )

    return register


def io_op(name: str, *, infer: Infer, doc: str) -> OpDef:
    """Register an op that the executor itself carries out (load, gather, write)."""
    return _add(OpDef(name, "element", infer, None, doc))


def _add(definition: OpDef) -> OpDef:
    if definition.name in _OPS:
        raise ValueError(f"op {definition.name!r} is defined twice")
    _OPS[definition.name] = definition
    return definition


def ops() -> Mapping[str, OpDef]:
    """Every registered op by name."""
    return dict(_OPS)


def same_shape(specs: Sequence[TensorSpec], op_name: str) -> TensorSpec:
    """The specs' common shape and dtype as the first spec; GraphError if they differ."""
    first = specs[0]
    for spec in specs[1:]:
        if spec.shape != first.shape or spec.dtype != first.dtype:
            raise GraphError(f"{op_name}: {list(first.shape)} {first.dtype} and {list(spec.shape)} {spec.dtype}")
    return first


def require_space(specs: Sequence[TensorSpec], space: str, op_name: str) -> None:
    """GraphError unless every spec is in ``space``."""
    for spec in specs:
        if spec.space != space:
            raise GraphError(f"{op_name} takes a {space}, not a {spec.space}")


def _infer_load(_specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    shape, dtype = attrs["shape"], attrs["dtype"]
    if not isinstance(shape, tuple) or not isinstance(dtype, torch.dtype):
        raise GraphError("load takes a shape and a dtype")
    return TensorSpec(tuple(int(extent) for extent in shape), dtype, "weight")


def _infer_gather(specs: Sequence[TensorSpec], attrs: Mapping[str, Attr]) -> TensorSpec:
    spec, rows = _infer_load(specs, attrs), attrs["rows"]
    if not isinstance(rows, RowMap) or spec.elements % max(len(rows.values), 1):
        raise GraphError(f"gather takes a map of the rows of {list(spec.shape)}")
    return spec


def _infer_write(specs: Sequence[TensorSpec], _attrs: Mapping[str, Attr]) -> TensorSpec:
    if specs[0].space != "state":  # what a program has measured may be written as it is
        require_space(specs, "weight", "write")
    return specs[0]


load = io_op("load", infer=_infer_load, doc="Read a stored tensor; ``slot`` counts the tensor's leaves.")
gather = io_op(
    "gather",
    infer=_infer_gather,
    doc="Read rows of stored tensors in another order; ``rows`` counts in ``slots``, which count the tensor's leaves.",
)
write = io_op("write", infer=_infer_write, doc="Write the tensor into its shard.")
