"""A plan's models, and what it reads, writes and needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.units import format_bytes, format_count, format_seconds
from .layout import Row, clean, count, facts, table

if TYPE_CHECKING:
    from ..engine.model import Model
    from ..merge import MergePlan
    from .legend import Legend


def models(merge: MergePlan, legend: Legend, width: int | None, *, verbose: bool) -> list[Text]:
    """A line a model: the letter that stands for it in the graph, layers, tensors, size, dtypes."""
    titles = [Text(title, "bold") for title in ("layers", "tensors", "size", "dtype", "")]
    marks = [legend.mark(str(ref)) for ref in merge.models]
    indent = max(mark.cell_len for mark in marks) + 1
    rows = [Row(Text("model", "bold"), titles, Text(" " * indent))]
    for mark, (ref, model) in zip(marks, merge.models.items(), strict=True):
        cells = [
            Text(str(model.layers)),
            Text(format_count(len(model.tensors))),
            Text(format_bytes(model.size_bytes)),
            Text(" ".join(dtypes(model))),
            Text("base" if ref == merge.recipe.base_model else ""),
        ]
        mark.pad_right(indent - mark.cell_len)
        rows.append(Row(Text(clean(str(ref))), cells, mark))
        if verbose and str(ref) != model.folder:
            rows.append(Row(Text(clean(model.folder), "dim"), (), Text(" " * indent)))
    return table(rows, width, right=(0, 1, 2))


def dtypes(model: Model) -> list[str]:
    """The dtypes a model's tensors have."""
    return sorted({str(tensor.spec.dtype).removeprefix("torch.") for tensor in model.tensors.values()})


def totals(merge: MergePlan, width: int | None, *, free_disk_bytes: int, verbose: bool) -> list[Text]:
    """What is read and written, how often, and the disk and memory it takes."""
    plan = merge.plan
    least, largest = (format_bytes(pick(shard.size_bytes for shard in merge.shards)) for pick in (min, max))
    sizes = largest if len(merge.shards) == 1 else f"{least} to {largest}"
    lacking = "" if merge.disk_needed_bytes <= free_disk_bytes else ": too little"
    pairs = [
        ("output", _output(merge)),
        ("read", f"{format_bytes(plan.bytes_read)}, at most {count(plan.passes, 'pass', 'passes')} over a tensor"),
        ("write", f"{format_bytes(plan.bytes_written)}, {count(merge.tensors, 'tensor')}"),
        ("shards", f"{len(merge.shards)}, {sizes}"),
        ("disk", f"{format_bytes(merge.disk_needed_bytes)} needed, {format_bytes(free_disk_bytes)} free{lacking}"),
        ("memory", f"peak {format_bytes(plan.predicted_peak_bytes)} of {format_bytes(plan.budget_bytes)} allowed"),
        ("", _memory(merge)),
        ("", f"the least that works is {format_bytes(plan.minimum_bytes)}"),
        *(("" if index else "device", line) for index, line in enumerate(_devices(merge))),
        ("time", f"about {format_seconds(merge.predicted_seconds)} on a machine like the one that was measured"),
        ("seed", str(plan.seed)),
    ]
    if verbose:
        shards = [
            f"{shard.file_name}: {count(len(shard.offsets_bytes), 'tensor')}, {format_bytes(shard.size_bytes)}"
            for shard in merge.shards
        ]
        pairs[4:4] = [("", shard) for shard in shards]
    return facts(pairs, width)


def _output(merge: MergePlan) -> str:
    found = []
    for prefix, stack in merge.compiled.mapping.stacks.items():
        layers = count(len(stack.source_layers), "layer")
        now = "" if len(stack.source_layers) == stack.donor_layers else f" (from {stack.donor_layers})"
        found.append(f"{prefix} {layers}{now}")
    written = sorted({str(island.spec.dtype).removeprefix("torch.") for island in merge.plan.graph.islands})
    return ", ".join([*found, *written])


def _devices(merge: MergePlan) -> list[str]:
    """Where it is computed and why, a line a device; nothing on a machine that has none."""
    placement = merge.plan.placement
    peaks = zip(placement.devices, placement.peaks_bytes, strict=True)
    return [
        *(clean(reason) for reason in placement.reasons),
        *(f"{device.name} peak {format_bytes(peak)} of {format_bytes(device.free_bytes)}" for device, peak in peaks),
    ]


def _memory(merge: MergePlan) -> str:
    plan = merge.plan
    whole = any(each.wholes for program in plan.programs.values() for each in program.passes)
    kept = "Gram matrices and their decomposition" if whole else "reductions"
    states = f" + {format_bytes(plan.state_bytes)} for {kept}" if plan.state_bytes else ""
    return (
        f"{format_bytes(plan.reserved_bytes)} in use now + {count(plan.workers, 'worker')} × "
        f"{format_bytes(plan.arena_bytes)}{states} + {format_bytes(plan.slack_bytes)} slack"
    )
