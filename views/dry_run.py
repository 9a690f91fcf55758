"""The dry run: what a recipe will do, before it does it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from ..engine.units import format_bytes, format_count
from .console import output, warn
from .layers import layer_runs
from .op_tree import op_tree

if TYPE_CHECKING:
    from rich.console import Console

    from ..api import MergePlan
    from ..engine.graph import Island, Program

MODEL_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


def show(merge: MergePlan, *, tensor_name: str | None, verbose: bool) -> None:
    """Print the plan: models, totals, the graph as a tree. ``tensor_name``: only that tensor's op graph."""
    console = output()
    if tensor_name is not None:
        island = _find(merge, tensor_name)
        console.print(op_tree(island, merge.plan, labels(merge)))
        return
    for warning in merge.warnings:
        warn(console, warning)
    console.print(f"[bold]{merge.method.name}[/]  {escape(merge.method.summary)}")
    console.print(_models(merge))
    console.print(_totals(merge))
    console.print(_graph(merge, verbose=verbose))
    _programs(console, merge, everything=verbose)


def labels(merge: MergePlan) -> dict[str, str]:
    """A colour for each model reference."""
    return {str(ref): MODEL_COLOURS[index % len(MODEL_COLOURS)] for index, ref in enumerate(merge.models)}


def _find(merge: MergePlan, tensor_name: str) -> Island:
    from ..engine.errors import UsageError

    try:
        return merge.plan.island_of(tensor_name)
    except KeyError:
        raise UsageError(
            f"the merge writes no tensor {tensor_name!r}; plait run RECIPE --dry-run -v lists all"
        ) from None


def _models(merge: MergePlan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="bold")
    for column, justify in (
        ("model", "left"),
        ("layers", "right"),
        ("tensors", "right"),
        ("size", "right"),
        ("dtype", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    colours = labels(merge)
    for ref, model in merge.models.items():
        role = " (base)" if ref == merge.recipe.base_model else ""
        dtypes = sorted({str(tensor.spec.dtype).removeprefix("torch.") for tensor in model.tensors.values()})
        table.add_row(
            f"[{colours[str(ref)]}]■[/] {escape(str(ref))}{role}",
            str(model.layers),
            format_count(len(model.tensors)),
            format_bytes(model.size_bytes),
            " ".join(dtypes),
        )
    return table


def _totals(merge: MergePlan) -> Table:
    plan = merge.plan
    table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
    table.add_column(style="dim")
    table.add_column()
    shards = "1 shard" if len(merge.shards) == 1 else f"{len(merge.shards)} shards"
    arenas = f"{plan.workers} × {format_bytes(plan.arena_bytes)} arena"
    table.add_row(
        "read", f"{format_bytes(plan.bytes_read)}, at most {_times(plan.passes, 'pass', 'passes')} over a tensor"
    )
    table.add_row("write", f"{format_bytes(plan.bytes_written)}, {format_count(merge.tensors)} tensors in {shards}")
    table.add_row("disk needed", format_bytes(merge.disk_needed_bytes))
    table.add_row(
        "memory",
        f"peak {format_bytes(plan.predicted_peak_bytes)} of {format_bytes(plan.budget_bytes)} allowed "
        f"(in use now {format_bytes(plan.reserved_bytes)}, {arenas}, states {format_bytes(plan.state_bytes)}); "
        f"least {format_bytes(plan.minimum_bytes)}",
    )
    table.add_row("seed", str(plan.seed))
    return table


def _times(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _graph(merge: MergePlan, *, verbose: bool) -> Tree:
    """The output's tensors: layers that are alike are one line, what a line holds is counted."""
    tree = Tree("[bold]graph[/]", guide_style="dim")
    colours = labels(merge)
    for run in layer_runs(merge):
        branch = tree.add(
            f"{escape(run.title)}  [dim]{_times(run.tensors, 'tensor', 'tensors')}, {format_bytes(run.size_bytes)}[/]  "
            + " ".join(f"[{colours[model]}]■[/] {escape(text)}" for model, text in run.sources)
        )
        if verbose or not run.is_stack:
            for island in run.islands:
                names = escape(island.name) + (
                    f" [dim]and {len(island.outputs) - 1} equal[/]" if island.outputs[1:] else ""
                )
                branch.add(f"{names}  [dim]{list(island.spec.shape)}[/]  {_how(island.program)}")
    return tree


def _how(program: Program) -> str:
    if program.is_copy:
        return "[dim]copy[/]"
    names = dict.fromkeys(node.op.name for node in program.nodes if node.op.name not in ("load", "cast", "write"))
    return "[dim]" + " → ".join(names) + "[/]"


def _programs(console: Console, merge: MergePlan, *, everything: bool) -> None:
    """One op tree for each kind of program: those that differ only in shape are shown once."""
    kinds: dict[object, list[Island]] = defaultdict(list)
    for island in merge.plan.graph.islands:
        kinds[_kind(island.program)].append(island)
    shown = list(kinds.values()) if everything else sorted(kinds.values(), key=_size_bytes, reverse=True)[:3]
    for islands in shown:
        largest = max(islands, key=lambda island: island.spec.size_bytes)
        console.print(f"\n[bold]ops[/] of {_times(len(islands), 'tensor', 'tensors')} like {escape(largest.name)}")
        console.print(op_tree(largest, merge.plan, labels(merge)))
    if len(shown) < len(kinds):
        console.print(f"[dim]… and {len(kinds) - len(shown)} more kinds of op graph; -v shows all[/]")


def _size_bytes(islands: list[Island]) -> int:
    return sum(island.spec.size_bytes for island in islands)


def _kind(program: Program) -> object:
    """What a program does, without its shape."""
    position = {node: index for index, node in enumerate(program.nodes)}
    return tuple(
        (
            node.op.name,
            tuple(position[source] for source in node.inputs),
            tuple((name, str(value)) for name, value in node.attrs if name != "shape"),
            node.spec.dtype,
        )
        for node in program.nodes
    )
