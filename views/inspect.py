"""What model folders hold: stacks, dtypes, vocabulary, tied weights."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from ..engine.units import format_bytes, format_count
from .console import output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..engine.model import Model


def facts(model: Model) -> dict[str, object]:
    """A model as one JSON object."""
    return {
        "reference": model.reference,
        "folder": model.folder,
        "architecture": _architecture(model),
        "tensors": len(model.tensors),
        "bytes": model.size_bytes,
        "files": len(model.files),
        "dtypes": _dtypes(model),
        "stacks": [
            {"prefix": stack.prefix, "layers": stack.layers, "primary": stack.prefix == model.primary}
            for stack in model.stacks.values()
        ],
        "vocabulary_rows": model.vocabulary_rows,
        "tied": dict(model.aliases),
    }


def show(models: Sequence[Model], *, verbose: bool) -> None:
    """Print a block a model; ``verbose`` adds every tensor."""
    console = output()
    for model in models:
        console.print(f"[bold cyan]{escape(model.reference)}[/]")
        table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        table.add_row("architecture", escape(_architecture(model)))
        for stack in model.stacks.values():
            note = "" if stack.prefix == model.primary else " [dim](not what layer_range counts)[/]"
            table.add_row(
                "stack", f"{escape(stack.prefix)}: {stack.layers} layers, {len(stack.suffixes)} tensors each{note}"
            )
        table.add_row(
            "tensors",
            f"{format_count(len(model.tensors))} in {len(model.files)} files, {format_bytes(model.size_bytes)}",
        )
        table.add_row("dtypes", ", ".join(f"{name} {format_bytes(size)}" for name, size in _dtypes(model).items()))
        if model.vocabulary_rows is not None:
            table.add_row("vocabulary", f"{format_count(model.vocabulary_rows)} rows")
        for name, target in model.aliases.items():
            table.add_row("tied", f"{escape(name)} is {escape(target)}")
        console.print(table)
        if verbose:
            tensors = Table(box=None, padding=(0, 2, 0, 2), header_style="bold")
            for column in ("tensor", "dtype", "shape", "size"):
                tensors.add_column(column)
            for tensor in model.tensors.values():
                dtype = str(tensor.spec.dtype).removeprefix("torch.")
                tensors.add_row(
                    escape(tensor.name), dtype, str(list(tensor.spec.shape)), format_bytes(tensor.size_bytes)
                )
            console.print(tensors)


def _architecture(model: Model) -> str:
    names = model.config.get("architectures")
    if isinstance(names, list) and names:
        return ", ".join(map(str, names))
    return str(model.config.get("model_type", "not stated"))


def _dtypes(model: Model) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for tensor in model.tensors.values():
        sizes[str(tensor.spec.dtype).removeprefix("torch.")] += tensor.size_bytes
    return dict(sizes.most_common())
