"""Hands tiles to workers in the plan's order, pass after pass.

A tensor's next pass may start only when every tile of the one before is in. While the last of them are under
way, workers go on with the tensors after it, so nobody waits; the plan bounds how many are open.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch

from .errors import InputError
from .opdef import Site, Tile
from .progress import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from .graph import Island, Node, Program
    from .plan import Plan, ProgramPlan


_NO_SCRATCH = torch.empty(0, dtype=torch.uint8)

Timed: TypeAlias = "Callable[[Node], AbstractContextManager[None]]"
"""Surrounds what one op does between two passes."""


def _untimed(_node: Node) -> AbstractContextManager[None]:
    return nullcontext()


class OpenIsland:
    """A tensor under way: its pass, what is out with workers, and the state of its reductions.

    ``position`` is its place in the graph. ``gaps`` are what its last pass has to write, None for everything.
    ``device`` is where those of its passes run that are placed on one.
    """

    def __init__(
        self, position: int, island: Island, plan: ProgramPlan, seed: int, gaps: Sequence[Tile] | None = None
    ) -> None:
        self.position = position
        self.plan = plan
        self._gaps = gaps
        self.outputs = island.outputs
        self.leaves = island.leaves
        self.lock = threading.Lock()
        self.pass_index = 0
        self.ordered = False
        self.outstanding = 0
        self.states: dict[Node, torch.Tensor] = {}
        self.results: dict[Node, torch.Tensor] = {}
        self.device: int | None = None
        self._attrs = _bound_attrs(plan.program, Site(island.name, seed))
        self._tiles: Iterator[Tile]
        self._next: Tile | None
        self._begin_pass()

    def attrs(self, node: Node) -> dict[str, Any]:
        """The keyword arguments of a node's kernel."""
        return self._attrs[node]

    @property
    def in_last_pass(self) -> bool:
        """Whether this is the pass that writes."""
        return self.pass_index == len(self.plan.passes) - 1

    @property
    def home(self) -> int | None:
        """The device of the pass that the tensor is in; None for one on the host."""
        return self.device if self.plan.on_device(self.pass_index) is not None else None

    @property
    def exhausted(self) -> bool:
        """Whether every tile of the pass is handed out."""
        return self._next is None

    def next_tile(self) -> Tile | None:
        """The next tile of the pass; None when all are handed out, or when one has to be back before the next."""
        if self.ordered and self.outstanding:
            return None
        tile, self._next = self._next, next(self._tiles, None)
        return tile

    def conclude(self, timed: Timed = _untimed) -> None:
        """Finish the pass's reductions and work out what follows from them; may take long."""
        for node, state in self.states.items():
            assert node.op.reduction is not None
            with timed(node):
                self.results[node] = node.op.reduction.result(state, node.spec)
        self.states = {}
        current = self.plan.passes[self.pass_index]
        whole = Tile(0, current.spec.elements)
        for node in current.conclusions:
            assert node.op.kernel is not None
            states = [self.results[source] for source in node.inputs]
            try:
                with timed(node):
                    node.op.kernel(self._new_result(node), states, _NO_SCRATCH, whole, **self.attrs(node))
            except InputError as error:
                raise InputError(f"{self.outputs[0]}: {error}") from None
        later = {source for each in self.plan.passes[self.pass_index + 1 :] for source in each.taken}
        self.results = {node: result for node, result in self.results.items() if node in later}

    def next_pass(self, timed: Timed = _untimed) -> bool:
        """Go to the next pass that is needed; True if there is none."""
        while True:
            self.pass_index += 1
            if self.pass_index == len(self.plan.passes):
                return True
            self._begin_pass()
            if self._is_needed():
                return False
            self.conclude(timed)

    def _is_needed(self) -> bool:
        current = self.plan.passes[self.pass_index]
        if not current.optional:
            return True
        for node in current.reductions:
            assert node.op.reduction is not None
            assert node.op.reduction.needed is not None
            if node.op.reduction.needed([self.results[source] for source in node.inputs if source.settled]):
                return True
        return False

    def _new_result(self, node: Node) -> torch.Tensor:
        result = self.results[node] = torch.empty(node.spec.shape, dtype=node.spec.dtype)
        return result

    def _begin_pass(self) -> None:
        current = self.plan.passes[self.pass_index]
        self.ordered = bool(current.wholes)
        for node in current.wholes:
            self._new_result(node).zero_()
        tile_elements = self.plan.tile_elements(self.pass_index)
        if self._gaps is not None and self.in_last_pass:
            self._tiles = _tiles_of(self._gaps, tile_elements)
        else:
            self._tiles = current.tiles(tile_elements)
        self._next = next(self._tiles, None)
        for node in current.reductions:
            assert node.op.reduction is not None
            specs = [source.spec for source in node.inputs]
            spec = node.op.reduction.state_spec(specs, current.spec.elements, current.block_elements)
            self.states[node] = torch.zeros(spec.shape, dtype=spec.dtype)


def _bound_attrs(program: Program, site: Site) -> dict[Node, dict[str, Any]]:
    attrs: dict[Node, dict[str, Any]] = {}
    for node in program.nodes:
        attrs[node] = dict(node.attrs)
        if node.op.bind is not None:
            attrs[node].update(node.op.bind(attrs[node], site))
    return attrs


def _tiles_of(gaps: Sequence[Tile], tile_elements: int) -> Iterator[Tile]:
    for gap in gaps:
        for lo in range(gap.lo, gap.hi, max(tile_elements, 1)):
            yield Tile(lo, min(lo + tile_elements, gap.hi))


class Task(NamedTuple):
    """One tile of one pass of one tensor."""

    island: OpenIsland
    pass_index: int
    tile: Tile


class Feed:
    """The queue that workers share; safe to call from several threads.

    ``left`` has, for the tensors that an earlier run began, what it did not write.
    """

    def __init__(self, plan: Plan, left: Mapping[int, Sequence[Tile]] | None = None) -> None:
        self._plan = plan
        self._left = left or {}
        self._homes = plan.placement.homes
        self._waiting = deque(position for position in plan.sequence if self._left.get(position, True))
        self._open: list[OpenIsland] = []
        self._changed = threading.Condition()
        self._stopped = False
        self.finished = len(plan.sequence) - len(self._waiting)
        self._totals = Counter(self._title(position) for position in plan.sequence)
        self._undone = Counter(self._title(position) for position in self._waiting)

    def _title(self, position: int) -> str:
        program = self._plan.programs[self._plan.graph.islands[position].program]
        if program.program.is_copy:
            return "copied"
        return "1 pass" if program.readings == 1 else f"{program.readings} passes"

    def parts(self) -> tuple[Part, ...]:
        """The tensors by how they are made, and how many of them are done."""
        return tuple(Part(title, total - self._undone[title], total) for title, total in sorted(self._totals.items()))

    def take(self, home: int | None = None, *, wait: bool = True) -> Task | None:
        """The next tile, waiting for one where a pass has to end first; None when nothing is left.

        Where passes are placed on several devices, ``home`` is whose tiles are wanted besides the host's; None for any.
        Without ``wait`` None also where somebody has to wait.
        """
        with self._changed:
            while not self._stopped:
                for island in self._open:
                    if home is not None and island.home not in (None, home):
                        continue
                    tile = island.next_tile()
                    if tile is not None:
                        island.outstanding += 1
                        return Task(island, island.pass_index, tile)
                if len(self._open) < self._plan.open_islands and (position := self._next_of(home)) is not None:
                    self._open_next(position)
                elif not self._open or not wait:
                    return None
                else:
                    self._changed.wait()
            return None

    def _next_of(self, home: int | None) -> int | None:
        """The next tensor of a device, or of the host."""
        if home is None or not self._homes:
            return self._waiting.popleft() if self._waiting else None
        position = next((each for each in self._waiting if self._homes.get(each) in (None, home)), None)
        if position is not None:
            self._waiting.remove(position)
            # Its passes on the host may be anybody's.
            self._changed.notify_all()
        return position

    def _open_next(self, position: int) -> None:
        island = self._plan.graph.islands[position]
        plan = self._plan.programs[island.program]
        opened = OpenIsland(position, island, plan, self._plan.seed, self._left.get(position))
        opened.device = self._homes.get(position)
        self._open.append(opened)

    def done(self, task: Task, timed: Timed = _untimed) -> bool:
        """Give a tile back as finished; ends the pass or the tensor, and says so, where it was the last."""
        with self._changed:
            island = task.island
            island.outstanding -= 1
            if island.outstanding or not island.exhausted:
                return False
        # Nobody else has to do with the island now, and others need not wait for it.
        island.conclude(timed)
        with self._changed:
            if island.next_pass(timed):
                self._open.remove(island)
                self.finished += 1
                self._undone[self._title(island.position)] -= 1
            self._changed.notify_all()
        return True

    def stop(self) -> None:
        """Hand out nothing more; workers end after the tile they have."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
