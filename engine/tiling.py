"""Cut a program into passes, and passes into tiles.

A pass reads the inputs once. ``element`` ops are cut anywhere and ``row`` ops between rows; a ``reduce`` ends a
pass, because what depends on it can only start when every tile is in; ``whole`` does so too, and takes the panels of a
matrix in their order. A tile of panels is a range of a matrix's longer side, so it may be made of columns.
What a later pass needs of an earlier one's values is computed again: reading twice is cheap, keeping is not.
A pass of guesses reads a sample only, and a pass that makes up for a wrong guess is walked where there was one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

from .opdef import REDUCE_BLOCK_ELEMENTS, GraphError, Tile, row_block_elements
from .panels import PANEL_LINES, lines_of
from .reading import read_elements
from .units import align_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .graph import Node, Program, TensorSpec

Granularity: TypeAlias = Literal["element", "row", "panel"]

TILE_ALIGN_ELEMENTS = 1 << 12
"""Tiles of element passes start at multiples of this, which keeps file ranges aligned to pages."""

SAMPLE_RUNS, SAMPLE_RUN_ELEMENTS = 128, 1 << 11
"""A sample is so many runs of so many elements, spread evenly: rows of a weight matrix differ a lot."""

SAMPLE_ELEMENTS = SAMPLE_RUNS * SAMPLE_RUN_ELEMENTS
"""Elements of a sample; a tensor that has no more is its own."""


@dataclass(frozen=True, eq=False)
class Pass:
    """One walk over a tensor's tiles.

    ``nodes`` in execution order, loads included; ``targets`` are what the pass is for: reductions, or the write.
    ``conclusions`` are the state ops that follow from its reductions. ``aligned``: tiles start at multiples of a
    reduction's block, here and in the program's other passes, so that a later pass can use counts per block.
    """

    nodes: tuple[Node, ...]
    targets: tuple[Node, ...]
    granularity: Granularity
    spec: TensorSpec
    conclusions: tuple[Node, ...] = ()
    aligned: bool = False

    @cached_property
    def loads(self) -> tuple[Node, ...]:
        """The loads and gathers of this pass."""
        return tuple(node for node in self.nodes if node.slots)

    @cached_property
    def reductions(self) -> tuple[Node, ...]:
        """The reductions that this pass computes."""
        return tuple(node for node in self.targets if node.op.reduction is not None)

    @cached_property
    def wholes(self) -> tuple[Node, ...]:
        """The ``whole`` ops that this pass computes: one worker at a time, tiles in their order."""
        return tuple(node for node in self.targets if node.op.locality == "whole")

    @cached_property
    def taken(self) -> frozenset[Node]:
        """The results of passes, this one's among them, that this pass and its conclusions take."""
        users = (*self.nodes, *self.conclusions)
        return frozenset(source for node in users for source in node.inputs if source.settled)

    @cached_property
    def block_elements(self) -> int:
        """Elements of a reduction's block: fixed by the program, never by the budget.

        In a pass over rows whole rows: one where a reduction goes by rows, else as many as a block has room for.
        """
        if self.granularity != "row":
            return REDUCE_BLOCK_ELEMENTS
        if any(node.op.reduction is not None and node.op.reduction.by_row for node in self.reductions):
            return max(self.spec.row_elements, 1)
        return row_block_elements(self.spec.row_elements)

    @cached_property
    def sampled(self) -> bool:
        """Whether a sample is enough for everything that the pass is for."""
        return all(node.op.reduction is not None and node.op.reduction.sampled for node in self.targets)

    @cached_property
    def optional(self) -> bool:
        """Whether the pass is walked only where one of its reductions turns out to be needed."""
        return all(node.op.reduction is not None and node.op.reduction.needed is not None for node in self.targets)

    @cached_property
    def elements(self) -> int:
        """Elements that the tiles cover: all of the tensor's, or those of the sample."""
        return min(self.spec.elements, SAMPLE_ELEMENTS) if self.sampled else self.spec.elements

    @cached_property
    def bytes_read(self) -> int:
        """Bytes that a walk over the tiles reads."""
        parts = [Tile(0, self.elements)] if self.granularity == "panel" else list(self.ranges(Tile(0, self.elements)))
        return sum(load.spec.dtype.itemsize * read_elements(load, part) for load in self.loads for part in parts)

    def ranges(self, tile: Tile) -> Iterator[Tile]:
        """The contiguous ranges of the tensor that a tile is made of, in its order.

        A tile of a sample counts its runs as if nothing lay between, one of panels counts line by line.
        """
        if self.granularity == "panel":
            yield from lines_of(self.spec.shape).ranges(tile)
            return
        if self.elements == self.spec.elements:
            yield tile
            return
        for run in range(tile.lo // SAMPLE_RUN_ELEMENTS, tile.hi // SAMPLE_RUN_ELEMENTS):
            start = run * self.spec.elements // SAMPLE_RUNS // SAMPLE_RUN_ELEMENTS * SAMPLE_RUN_ELEMENTS
            yield Tile(start, start + SAMPLE_RUN_ELEMENTS)

    def tile_elements(self, target_elements: int) -> int:
        """Elements of a full tile when about ``target_elements`` are wanted; at most all of them."""
        total = self.elements
        if total <= target_elements:
            return total
        if self.granularity == "panel":
            step = PANEL_LINES * lines_of(self.spec.shape).width
        elif self.aligned:
            step = self.block_elements
        else:
            step = max(self.spec.row_elements, 1) if self.granularity == "row" else TILE_ALIGN_ELEMENTS
        return min(max(target_elements // step, 1) * step, total)

    def tiles(self, tile_elements: int) -> Iterator[Tile]:
        """The tiles, in order. An empty tensor has one empty tile, so that it is written too."""
        total = self.elements
        if total == 0:
            yield Tile(0, 0)
        for lo in range(0, total, max(tile_elements, 1)):
            yield Tile(lo, min(lo + tile_elements, total))

    def tile_count(self, tile_elements: int) -> int:
        """How many tiles there are."""
        return max(align_up(self.elements, max(tile_elements, 1)) // max(tile_elements, 1), 1)


def cut(program: Program) -> tuple[Pass, ...]:
    """The passes of a program, in order; the last one writes."""
    level: dict[Node, int] = {}
    guessing = any(node.op.reduction is not None and node.op.reduction.sampled for node in program.nodes)
    for node in program.nodes:
        # A state op belongs to the pass that its states come from; everything else waits for the pass to end.
        waits = node.op.locality != "state"
        level[node] = max((level[source] + (source.settled and waits) for source in node.inputs), default=0)
        if guessing and node.op.reduction is not None and not node.op.reduction.sampled:
            # Guesses come first, in a pass of their own: it need not read everything.
            level[node] = max(level[node], 1)
    last = level[program.root]
    targets: list[list[Node]] = [[] for _ in range(last + 1)]
    conclusions: list[list[Node]] = [[] for _ in range(last + 1)]
    for node in program.nodes:
        if node.settled:
            (conclusions if node.op.locality == "state" else targets)[level[node]].append(node)
    targets[last].append(program.root)
    return tuple(
        _make_pass(program, tuple(group), tuple(states))
        for group, states in zip(targets, conclusions, strict=True)
        if group
    )


def _make_pass(program: Program, targets: tuple[Node, ...], conclusions: tuple[Node, ...]) -> Pass:
    wanted: set[Node] = set()
    stack = list(targets)
    while stack:
        node = stack.pop()
        if node not in wanted:
            wanted.add(node)
            stack.extend(source for source in node.inputs if not source.settled)
    nodes = tuple(node for node in program.nodes if node in wanted)
    kinds = {
        "row" if node.op.reduction is not None and node.op.reduction.by_row else node.op.locality for node in nodes
    }
    granularity: Granularity = "panel" if kinds & {"panel", "whole"} else "row" if "row" in kinds else "element"
    if granularity == "panel" and kinds & {"row", "reduce"}:
        raise GraphError("a pass over a matrix's panels has no rows and no blocks")
    aligned = any(node.op.locality == "reduce" for node in program.nodes)
    # The figures that a measuring program writes have another shape than what it reads.
    read = next((node.spec for node in nodes if node.op.name == "load"), None) if program.measures else None
    return Pass(nodes, targets, granularity, read or program.spec, conclusions, aligned)
