"""A plan's models and what differs between them, and what the plan reads, writes and needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.units import MIB, format_bytes, format_count, format_seconds
from .layout import GAP, Row, beside, clean, count, facts, table
from .memory_chart import memory_chart
from .model_differences import differences, dtypes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..merge import MergePlan
    from .legend import Legend

_MOST_DIFFERENCES = 4
"""Differences of a model that are named without -v."""


def models(merge: MergePlan, legend: Legend, width: int | None, *, verbose: bool) -> list[Text]:
    """A line a model: the letter that stands for it in the graph, layers, tensors, size, dtypes; what differs below."""
    titles = [Text(title, "bold") for title in ("layers", "tensors", "size", "dtype", "")]
    marks = [legend.mark(str(ref)) for ref in merge.models]
    indent = max(mark.cell_len for mark in marks) + 1
    rows = [Row(Text("models"[indent + 2 :], "bold"), titles, Text("models"[: indent + 2], "bold"))]
    for mark, (ref, model) in zip(marks, merge.models.items(), strict=True):
        cells = [
            Text(str(model.layers)),
            Text(format_count(len(model.tensors))),
            Text(format_bytes(model.size_bytes)),
            Text(" ".join(dtypes(model))),
            Text("base" if ref == merge.recipe.base_model else ""),
        ]
        guide = Text.assemble("  ", mark, " " * (indent - mark.cell_len))
        rows.append(Row(Text(clean(str(ref))), cells, guide))
        if verbose and str(ref) != model.folder:
            rows.append(Row(Text(clean(model.folder), "dim"), (), Text(" " * (indent + 2))))
    lines = table(rows, width, right=(0, 1, 2), indent=0, optional=(1, 0), least_label=30)
    return [*lines, *_differences(merge, legend, width, verbose=verbose)]


def _differences(merge: MergePlan, legend: Legend, width: int | None, *, verbose: bool) -> Iterator[Text]:
    first, *others = merge.models.items()
    if not others:
        return
    groups: dict[tuple[str, ...], list[str]] = {}
    for ref, model in others:
        groups.setdefault(tuple(differences(model, first[1])), []).append(str(ref))
    for found, references in groups.items():
        mark = Text.assemble("  ", legend.marks(references))
        shown = found if verbose else found[:_MOST_DIFFERENCES]
        more = f"and {count(len(found) - len(shown), 'more difference')} (-v)" if len(found) > len(shown) else ""
        words = "; ".join([*shown, *([more] if more else [])]) or "identical headers and config"
        yield from beside(mark, Text(), words, width, first=mark.cell_len - 1, columns=0)


def totals(merge: MergePlan, width: int | None, *, free_disk_bytes: int, verbose: bool) -> Iterator[Text]:
    """What is read and written, how often, and the disk and memory it takes."""
    plan, parts = merge.plan, merge.parts
    least, largest = (format_bytes(pick(shard.size_bytes for shard in merge.shards)) for pick in (min, max))
    sizes = f"a shard of {largest}" if len(merge.shards) == 1 else f"{len(merge.shards)} shards of {least} to {largest}"
    lacking = "" if merge.disk_needed_bytes <= free_disk_bytes else ": too little"
    reached = " (while planning)" if plan.predicted_peak_bytes == plan.peak_so_far_bytes else ""
    each = f"; {parts.words} share it, each as shown" if parts.words else ""
    pairs = [
        ("read", f"{format_bytes(parts.bytes_read)}, at most {count(plan.passes, 'pass', 'passes')} over a tensor"),
        ("write", f"{format_bytes(plan.bytes_written)}, {count(merge.tensors, 'tensor')} in {sizes}"),
    ]
    if verbose:
        pairs += [
            ("", f"{shard.file_name}: {count(len(shard.offsets_bytes), 'tensor')}, {format_bytes(shard.size_bytes)}")
            for shard in merge.shards
        ]
    pairs += [
        ("disk", f"{format_bytes(merge.disk_needed_bytes)} needed, {format_bytes(free_disk_bytes)} free{lacking}"),
        ("time", f"about {format_seconds(merge.predicted_seconds)} on a machine like the one that was measured"),
        *(("" if index else "device", line) for index, line in enumerate(_devices(merge))),
        (
            "memory",
            f"peak {format_bytes(parts.predicted_peak_bytes)}{parts.of_each}{reached} "
            f"of {format_bytes(parts.budget_bytes)} allowed; --memory {parts.minimum_bytes // MIB}MiB is enough{each}",
        ),
    ]
    yield from facts(pairs, width, style="bold", indent=0)
    yield from memory_chart(plan, width, first=GAP + max(len(name) for name, _ in pairs))


def output_words(merge: MergePlan) -> str:
    """The output in a few words: layers, rows of a vocabulary that is put together, dtypes, and a seed that matters."""
    found = []
    for prefix, stack in merge.compiled.mapping.stacks.items():
        now = "" if len(stack.source_layers) == stack.donor_layers else f" (from {stack.donor_layers})"
        found.append(f"{count(len(stack.source_layers), 'layer')}{now} in {clean(prefix)}")
    if merge.tokenizer.vocabulary is not None:
        found.append(f"{count(merge.tokenizer.vocabulary.rows, 'vocabulary row')}")
    written = sorted({str(island.spec.dtype).removeprefix("torch.") for island in merge.plan.graph.islands})
    seed = [f"seed {merge.plan.seed}"] if any(each.site_dependent for each in merge.plan.graph.programs) else []
    return ", ".join([*found, *written, *seed])


def _devices(merge: MergePlan) -> Iterator[str]:
    """Where it is computed and why, a line a device; nothing on a machine that has none."""
    placement = merge.plan.placement
    yield from map(clean, placement.reasons)
    for device, peak_bytes in zip(placement.devices, placement.peaks_bytes, strict=True):
        peak, free = (format_bytes(merge.processes_alike * each) for each in (peak_bytes, device.free_bytes))
        yield f"{device.name} peak {peak} of {free}"
