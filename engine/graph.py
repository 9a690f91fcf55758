"""The graph: what a tensor is, the op nodes that make one, and the tensors of a whole merge.

Two levels, because scale demands it. A mixture-of-experts checkpoint has 90 000 tensors and a merged
tensor has 10 to 20 ops; but there are only a handful of *distinct* op graphs. So an op graph is a
`Program`, shared by every tensor it serves, and an `Island` is one merged tensor: its program, the stored
tensors it loads, and the names it is written under.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import networkx as nx
    import torch

    from .model import StoredTensor
    from .opdef import OpDef
    from .row_map import RowTable

Space: TypeAlias = Literal["weight", "delta", "sign", "state"]
"""What the numbers mean: model weights, a task vector (weight minus base), a ±1 vote, or a reduction."""

Attr: TypeAlias = "int | float | bool | str | torch.dtype | tuple[int, ...] | tuple[float, ...] | RowTable | None"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a tensor is, never its data."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    space: Space = "weight"

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar, 0 for an empty tensor."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    @property
    def size_bytes(self) -> int:
        """Bytes of the data."""
        return self.elements * self.dtype.itemsize

    @property
    def row_elements(self) -> int:
        """Elements along the last dimension: what a row op keeps together. A 1-D tensor is one row."""
        return self.shape[-1] if self.shape else 1

    def with_(self, *, dtype: torch.dtype | None = None, space: Space | None = None) -> TensorSpec:
        """The same shape with another dtype or space."""
        return TensorSpec(self.shape, dtype or self.dtype, space or self.space)


class Node:
    """One op applied to inputs. Interned: equal nodes are the same object, so ``is`` is equality.

    ``attrs`` is a sorted tuple of (name, value) pairs, hashable by construction.
    """

    __slots__ = ("__weakref__", "attrs", "inputs", "op", "spec")

    op: OpDef
    inputs: tuple[Node, ...]
    attrs: tuple[tuple[str, Attr], ...]
    spec: TensorSpec

    def __new__(
        cls,
        op: OpDef,
        inputs: Sequence[Node],
        attrs: Iterable[tuple[str, Attr]],
        spec: TensorSpec,
    ) -> Node:
        """Return the one node with these parts, making it if it is new."""
        frozen_inputs = tuple(inputs)
        frozen_attrs = tuple(sorted(attrs))
        # 1, 1.0 and True are equal as dictionary keys but are not the same attribute.
        kinds = tuple(type(value) for _, value in frozen_attrs)
        key = (op, tuple(map(id, frozen_inputs)), frozen_attrs, kinds, spec)
        with _INTERN_LOCK:
            node = _INTERNED.get(key)
            if node is None:
                node = super().__new__(cls)
                node.op, node.inputs, node.attrs, node.spec = op, frozen_inputs, frozen_attrs, spec
                _INTERNED[key] = node
        return node

    @property
    def settled(self) -> bool:
        """Whether the value is there only when a pass has ended: a reduction, or what follows from some."""
        return self.op.locality in ("reduce", "whole", "state")

    @property
    def slots(self) -> tuple[int, ...]:
        """The leaves that a load or a gather reads; none for any other op."""
        if self.op.name == "load":
            slot = self.attr("slot")
            assert isinstance(slot, int)
            return (slot,)
        slots = self.attr("slots") if self.op.name == "gather" else ()
        assert isinstance(slots, tuple)
        return tuple(int(slot) for slot in slots)

    def attr(self, name: str) -> Attr:
        """The attribute called ``name``; KeyError if the node has none."""
        return dict(self.attrs)[name]

    def __repr__(self) -> str:
        attrs = ", ".join(f"{name}={value}" for name, value in self.attrs)
        return f"{self.op.name}({attrs}) {list(self.spec.shape)} {self.spec.dtype} {self.spec.space}"


# Ids in a key stay valid because a live node keeps its inputs alive.
_INTERNED: WeakValueDictionary[object, Node] = WeakValueDictionary()
_INTERN_LOCK = threading.Lock()


def postorder(roots: Iterable[Node]) -> tuple[Node, ...]:
    """Every node under ``roots``, inputs before users, depth first from the first input.

    Depth first means that a load stands right before its first user, which keeps few values alive.
    Iterative: the depth of a graph never overflows the stack.
    """
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((source, False) for source in reversed(node.inputs) if source not in seen)
    return tuple(order)


@dataclass(frozen=True, eq=False)
class Program:
    """The op graph of one merged tensor, from its loads to its write; shared by all tensors alike.

    ``root`` is the write node. Two programs with the same root are the same program.
    """

    root: Node

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node, inputs first."""
        return postorder([self.root])

    @cached_property
    def loads(self) -> tuple[Node, ...]:
        """The nodes that read: loads and gathers."""
        return tuple(node for node in self.nodes if node.slots)

    @cached_property
    def is_copy(self) -> bool:
        """Whether the stored bytes go out as they came in, so that the kernel can copy them."""
        source = self.root.inputs[0]
        return source.op.name == "load" and source.spec.dtype == self.root.spec.dtype

    @property
    def measures(self) -> bool:
        """Whether what is written are figures about the tensors that are read, a reduction's result."""
        return self.root.spec.space == "state"

    @cached_property
    def site_dependent(self) -> bool:
        """Whether the result depends on the tensor's name or the seed (a random mask does)."""
        return any(node.op.bind is not None for node in self.nodes)

    @cached_property
    def leaner(self) -> Program:
        """The program with the same result that keeps the least between passes; itself if there is none that is."""
        leaner: dict[Node, Node] = {}
        for node in self.nodes:
            inputs = tuple(leaner[source] for source in node.inputs)
            if node.op.leaner is not None:
                leaner[node] = node.op.leaner(inputs)
            else:
                leaner[node] = node if inputs == node.inputs else Node(node.op, inputs, node.attrs, node.spec)
        root = leaner[self.root]
        return self if root is self.root else Program(root)

    @property
    def spec(self) -> TensorSpec:
        """The output's spec."""
        return self.root.spec

    def to_networkx(self) -> nx.DiGraph[Node]:
        """The op graph, an edge from each input to its user."""
        import networkx as nx  # a tenth of a second, which most commands need not wait for

        graph: nx.DiGraph[Node] = nx.DiGraph()
        for node in self.nodes:
            graph.add_node(node, op=node.op.name, spec=node.spec, attrs=dict(node.attrs))
            graph.add_edges_from((source, node) for source in node.inputs)
        return graph


@dataclass(frozen=True, slots=True)
class Island:
    """One merged tensor: its program, the stored tensors it loads, and where it goes.

    ``outputs`` has more than one name where equal results are written under several names, such as a
    layer that an expansion repeats; the first name seeds the random masks.
    """

    program: Program
    leaves: tuple[StoredTensor, ...]
    outputs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The first output name."""
        return self.outputs[0]

    @property
    def spec(self) -> TensorSpec:
        """The output's spec."""
        return self.program.spec


@dataclass(frozen=True)
class TensorGraph:
    """Every tensor of a merge, and what feeds what.

    ``feeds`` lists (producer, consumer) positions in ``islands``; it is empty unless merges are chained.
    """

    islands: tuple[Island, ...]
    feeds: tuple[tuple[int, int], ...] = ()
    unused: tuple[StoredTensor, ...] = field(default=())

    @property
    def programs(self) -> tuple[Program, ...]:
        """The distinct programs, in order of first use."""
        return tuple(dict.fromkeys(island.program for island in self.islands))

    def dependencies(self) -> nx.DiGraph[int]:
        """Island positions, an edge from each producer to its consumer. Raises ValueError on a cycle."""
        import networkx as nx

        graph: nx.DiGraph[int] = nx.DiGraph()
        graph.add_nodes_from(range(len(self.islands)))
        graph.add_edges_from(self.feeds)
        if not nx.is_directed_acyclic_graph(graph):
            raise ValueError("the tensor graph has a cycle")
        return graph

    def to_networkx(self) -> nx.DiGraph[str]:
        """A node for each stored and each written tensor, for people and for other tools."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph()
        for island in self.islands:
            for output in island.outputs:
                graph.add_node(output, kind="output", spec=island.spec, program=island.program)
                for leaf in island.leaves:
                    label = f"{leaf.model}:{leaf.name}"
                    graph.add_node(label, kind="input", stored=leaf)
                    graph.add_edge(label, output)
        return graph
