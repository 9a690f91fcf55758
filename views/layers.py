"""The output's layers, folded: neighbours that are made alike become one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..api import MergePlan
    from ..engine.graph import Island


@dataclass(frozen=True)
class LayerRun:
    """Consecutive layers made alike, or the tensors outside of the stacks.

    ``sources`` pairs each model with the layers it gives. ``tensors`` and ``size_bytes`` count all of the run.
    """

    title: str
    islands: tuple[Island, ...]
    tensors: int
    size_bytes: int
    sources: tuple[tuple[str, str], ...]
    is_stack: bool


def layer_runs(merge: MergePlan) -> list[LayerRun]:
    """Fold the output in its own order."""
    by_output = {name: island for island in merge.plan.graph.islands for name in island.outputs}
    groups: list[tuple[str | None, int, list[str]]] = []
    for tensor in merge.compiled.mapping.tensors:
        stack, layer = _layer_of(tensor.name, merge)
        if not groups or (groups[-1][0], groups[-1][1]) != (stack, layer):
            groups.append((stack, layer, []))
        groups[-1][2].append(tensor.name)
    runs: list[list[tuple[str | None, int, list[str]]]] = []
    previous: object = None
    for group in groups:
        key = _likeness(group, by_output, merge)
        if group[0] is not None and key == previous:
            runs[-1].append(group)
        else:
            runs.append([group])
        previous = key
    return [_run(run, by_output, merge) for run in runs]


def _layer_of(name: str, merge: MergePlan) -> tuple[str | None, int]:
    for prefix in merge.compiled.mapping.stacks:
        if name.startswith(prefix + "."):
            number = name[len(prefix) + 1 :].split(".", 1)[0]
            if number.isdigit():
                return prefix, int(number)
    return None, 0


def _likeness(group: tuple[str | None, int, list[str]], by_output: dict[str, Island], merge: MergePlan) -> object:
    """What neighbouring layers must share to be one line: models, step from layer to layer, programs."""
    stack, layer, names = group
    shift = tuple((leaf.model, _layer_of(leaf.name, merge)[1] - layer) for leaf in by_output[names[0]].leaves)
    programs = tuple(id(by_output[name].program) for name in names)
    return stack, shift, programs


def _run(run: list[tuple[str | None, int, list[str]]], by_output: dict[str, Island], merge: MergePlan) -> LayerRun:
    stack, first, _ = run[0]
    last = run[-1][1]
    names = [name for _, _, group in run for name in group]
    islands = tuple(dict.fromkeys(by_output[name] for name in names))
    if stack is None:
        title = "outside the layers" if len(names) > 1 else names[0]
    elif first == last:
        title = f"{stack}.{first}"
    else:
        title = f"{stack}.{first}–{last}"
    given: dict[str, list[int]] = {}
    for name in names:
        for leaf in by_output[name].leaves:
            source_stack, layer = _layer_of(leaf.name, merge)
            given.setdefault(leaf.model, [])
            if source_stack is not None:
                given[leaf.model].append(layer)
    return LayerRun(
        title,
        islands,
        len(names),
        sum(by_output[name].spec.size_bytes for name in names),
        tuple((model, _layers_text(layers)) for model, layers in given.items()),
        stack is not None,
    )


def _layers_text(layers: list[int]) -> str:
    if not layers:
        return ""
    low, high = min(layers), max(layers)
    return f"{low}" if low == high else f"{low}–{high}"
