"""One output tensor: its parameters, its op graph in full, how it is walked over, where it comes from and goes to."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.recipe import look_up
from ..engine.units import format_bytes, format_count
from .kinds import kinds_of
from .layer_map import number
from .layout import Row, clean, count, heading, shorten, table
from .legend import Legend
from .op_tree import op_tree, places_of
from .totals import models

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..engine.graph import Island
    from ..engine.plan import ProgramPlan
    from ..merge import MergePlan


def tensor_page(merge: MergePlan, tensor_name: str, width: int | None) -> Iterator[Text]:
    """All that a plan knows of one output tensor. KeyError if there is none."""
    island = merge.plan.island_of(tensor_name)
    (kind,) = kinds_of([island])
    legend = Legend(str(ref) for ref in merge.models)
    yield from models(merge, legend, width, verbose=False)
    yield Text()
    title = heading(clean(tensor_name))
    yield title if width is None else shorten(title, width)
    yield from op_tree(kind, island, merge.plan, legend, width)
    parts = (
        _parameters(merge, tensor_name, legend, width),
        _passes(merge.plan.programs[island.program], places_of(island, merge.plan), width),
        _reads(island, legend, width),
        _writes(merge, island, width),
    )
    for part in parts:
        if part:
            yield Text()
            yield from part


def _parameters(merge: MergePlan, tensor_name: str, legend: Legend, width: int | None) -> list[Text]:
    """A line a parameter of a model, or of the tensor; defaults say so."""
    tensor = next(each for each in merge.compiled.mapping.tensors if each.name == tensor_name)
    rows = [Row(Text("parameter", "bold"), [Text("value", "bold"), Text("", "bold")])]
    of_the_tensor = (Text("  "), tensor.scopes, tensor_name, "tensor")
    of_models = ((legend.mark(str(each.model)), each.scopes, each.stored.name, "model") for each in tensor.sources)
    for mark, scopes, name, scope in (of_the_tensor, *of_models):
        for param in merge.method.params if not tensor.copied else ():
            value = look_up(param.name, scopes, name, tensor.t)
            shown = param.default if value is None else value
            if param.scope == scope and shown is not None:
                label = Text.assemble(mark, " " * (2 - mark.cell_len), param.name)
                rows.append(Row(label, [Text(number(shown)), Text("default" if value is None else "", "dim")]))
    return table(rows, width, right=(0,), optional=(1,)) if len(rows) > 1 else []


def _passes(program: ProgramPlan, places: Sequence[str], width: int | None) -> list[Text]:
    """A line a pass: how it is cut, how much it reads, and the memory of a worker."""
    titles = ("cut", "device", "reads", "tiles", "elements a tile", "arena", "")
    rows = [Row(Text("pass", "bold"), [Text(title, "bold") for title in titles])]
    for index, each in enumerate(program.passes):
        tile_elements = program.tile_elements(index)
        note = "a sample" if each.sampled else "only where a guess was wrong" if each.optional else ""
        cells = [
            Text(each.granularity),
            Text(places[index]),
            Text(format_bytes(each.bytes_read)),
            Text(format_count(each.tile_count(tile_elements))),
            Text(format_count(min(tile_elements, each.elements))),
            Text(format_bytes(program.arenas[index].size_bytes)),
            Text(note, "dim"),
        ]
        rows.append(Row(Text(str(index + 1)), cells))
    lines = table(rows, width, right=(2, 3, 4, 5), optional=(6, 4), least_label=4)
    if program.held_bytes:
        kept = f"{format_bytes(program.state_bytes)} from one pass to the next"
        worked = f", {format_bytes(program.working_bytes)} for a while between two" if program.working_bytes else ""
        lines.append(Text(f"  {kept}{worked}", "dim"))
    return lines


def _reads(island: Island, legend: Legend, width: int | None) -> list[Text]:
    """A line a stored tensor: the model's letter, its name, its file and the offset there."""
    rows = [Row(Text("read", "bold"), [Text(title, "bold") for title in ("dtype", "bytes", "file", "offset")])]
    for leaf in island.leaves:
        cells = [
            Text(str(leaf.spec.dtype).removeprefix("torch.")),
            Text(format_bytes(leaf.size_bytes)),
            Text(clean(PurePath(leaf.file).name)),
            Text(format_count(leaf.offset_bytes)),
        ]
        rows.append(Row(Text(clean(leaf.name)), cells, Text.assemble(legend.mark(leaf.model), " ")))
    if len(rows) == 1:
        return [Text("  nothing is read", "dim")]
    return table(rows, width, right=(1, 3), optional=(0, 1), least_label=40)


def _writes(merge: MergePlan, island: Island, width: int | None) -> list[Text]:
    """A line a name that the tensor is written under."""
    rows = [Row(Text("written", "bold"), [Text(title, "bold") for title in ("dtype", "bytes", "file", "offset")])]
    for name in island.outputs:
        shard = next(each for each in merge.shards if name in each.offsets_bytes)
        cells = [
            Text(str(island.spec.dtype).removeprefix("torch.")),
            Text(format_bytes(island.spec.size_bytes)),
            Text(clean(shard.file_name)),
            Text(format_count(shard.offsets_bytes[name])),
        ]
        rows.append(Row(Text(clean(name)), cells))
    lines = table(rows, width, right=(1, 3), optional=(0, 1), least_label=40)
    if len(island.outputs) > 1:
        lines.append(Text(f"  made once and written {count(len(island.outputs), 'time')}", "dim"))
    return lines
