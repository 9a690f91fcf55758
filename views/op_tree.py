"""One tensor's op graph as a tree: the write on top, what each op needs below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.tree import Tree

from ..engine.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..engine.graph import Island, Node
    from ..engine.plan import Plan

_HIDDEN = ("shape", "dtype", "slot", "space")


def op_tree(island: Island, plan: Plan, colours: Mapping[str, str]) -> Tree:
    """Shapes, dtypes, parameters and bytes of every op. A node with several users is shown in full once."""
    program = plan.programs[island.program]
    numbers = {node: number for number, node in enumerate(island.program.nodes, 1)}
    users: dict[Node, int] = {}
    for node in island.program.nodes:
        for source in node.inputs:
            users[source] = users.get(source, 0) + 1
    shown: set[Node] = set()

    def line(node: Node) -> str:
        mark = f"[dim]#{numbers[node]}[/] " if users.get(node, 0) > 1 else ""
        if node in shown:
            return f"{mark}[dim]{node.op.name}, as above[/]"
        spec = node.spec
        kind = f"{str(spec.dtype).removeprefix('torch.')} {list(spec.shape)} {spec.space}"
        size = f"  {format_bytes(spec.size_bytes)}" if node.op.name in ("load", "write") else ""
        return f"{mark}[bold]{node.op.name}[/]{_parameters(node)}  [dim]{kind}{size}[/]{_what(node)}"

    def _what(node: Node) -> str:
        if node.op.name == "load":
            slot = node.attr("slot")
            assert isinstance(slot, int)
            leaf = island.leaves[slot]
            colour = colours.get(leaf.model, "white")
            return f"  [{colour}]■[/] {escape(leaf.model)}: {escape(leaf.name)}"
        if node.op.name == "write":
            arena = max(arena.size_bytes for arena in program.arenas)
            tile = program.tile_elements(len(program.passes) - 1)
            passes = f"{len(program.passes)} pass{'es' if len(program.passes) > 1 else ''}"
            how = "kernel copy" if program.program.is_copy else f"tiles of {tile}, {format_bytes(arena)} a worker"
            return f"  [dim]{passes}, {how}[/]"
        return f"  [dim italic]{node.op.locality}[/]" if node.op.locality != "element" else ""

    def grow(tree: Tree, node: Node) -> None:
        for source in node.inputs:
            branch = tree.add(line(source))
            if source not in shown:
                shown.add(source)
                grow(branch, source)

    root = Tree(line(island.program.root), guide_style="dim")
    grow(root, island.program.root)
    return root


def _parameters(node: Node) -> str:
    parts = []
    for name, value in node.attrs:
        if node.op.name == "cast" and name == "dtype":
            parts.append(str(value).removeprefix("torch."))
        elif name not in _HIDDEN:
            parts.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}")
    return f"[dim]([/]{escape(', '.join(parts))}[dim])[/]" if parts else ""
