"""What model folders hold: stacks, dtypes, vocabulary, tied weights."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.text import Text

from ..engine.units import format_bytes, format_count
from .console import output, print_lines, width_of
from .layout import Row, clean, count, facts, shorten, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..engine.model import Model


def as_json(model: Model) -> dict[str, object]:
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
    for index, model in enumerate(models):
        if index:
            console.print()
        print_lines(console, page(model, width_of(console), verbose=verbose))


def page(model: Model, width: int | None, *, verbose: bool) -> Iterator[Text]:
    """One model in lines of a width."""
    title = Text(clean(model.reference), "bold cyan")
    yield title if width is None else shorten(title, width)
    pairs = [("architecture", _architecture(model))]
    for stack in model.stacks.values():
        note = "" if stack.prefix == model.primary else ", not what layer_range counts"
        held = sum(role.stack == stack.prefix for role in model.roles.values())
        most = "" if held == stack.layers * len(stack.suffixes) else "at most "
        each = f"{most}{count(len(stack.suffixes), 'tensor')} each"
        pairs.append(("stack", f"{stack.prefix}: {count(stack.layers, 'layer')}, {each}{note}"))
    files = count(len(model.files), "file")
    size = format_bytes(model.size_bytes)
    pairs.append(("tensors", f"{format_count(len(model.tensors))} in {files}, {size}"))
    pairs.append(("dtypes", ", ".join(f"{name} {format_bytes(part)}" for name, part in _dtypes(model).items())))
    if model.vocabulary_rows is not None:
        pairs.append(("vocabulary", f"{format_count(model.vocabulary_rows)} rows"))
    pairs += [("tied", f"{name} is {target}") for name, target in model.aliases.items()]
    yield from facts(pairs, width)
    if verbose:
        yield Text()
        yield from table([_TITLES, *_tensor_rows(model)], width, right=(2,))


_TITLES = Row(Text("tensor", "bold"), [Text(title, "bold") for title in ("dtype", "shape", "size")])


def _tensor_rows(model: Model) -> Iterator[Row]:
    for tensor in model.tensors.values():
        dtype = str(tensor.spec.dtype).removeprefix("torch.")
        cells = [Text(dtype), Text(str(list(tensor.spec.shape))), Text(format_bytes(tensor.size_bytes))]
        yield Row(Text(clean(tensor.name)), cells)


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
