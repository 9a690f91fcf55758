"""The output's layers as a picture: a row for each group of them, and strands that show which layers of which model.

A strand goes down the output's layers and across those of its model: slanted where one follows the other, upright
where one layer is taken again and again. Models that are merged lie side by side.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..engine.units import format_bytes
from . import svg
from .layout import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_TITLES, _FROM, _CHART = 0, 276, 432
_WIDTH = 848
_ROW, _LINE = 40, 19
_MOST_HEIGHT, _LEAST_LAYER, _MOST_LAYER = 480, 3.0, 6.5
_MOST_CHIPS = 4
_MOST_STRAND = 8.0
_INSET = 4.0

WIDTH = _WIDTH
"""How wide the picture is."""


def layer_map(document: Mapping[str, Any]) -> tuple[list[str], float]:
    """The rows in the output's order, and how high they are together."""
    numbers = {model["mark"]: number for number, model in enumerate(document["models"])}
    below: dict[int | None, list[Mapping[str, Any]]] = {}
    for group in document["groups"]:
        below.setdefault(group["parent"], []).append(group)
    top = list(_every_layer(document, below)) if document["expanded"] else below[None]
    layers = max((high + 1 for row in top for source in row["from"] for _, high in source["ranges"]), default=0)
    deep = sum(_layers(row) for row in top)
    layer_height = min(max(_MOST_HEIGHT / max(deep, 1), _LEAST_LAYER), _MOST_LAYER)
    pieces = [
        svg.text(_TITLES, 0, "OUTPUT", "head soft"),
        svg.text(_FROM, 0, "FROM", "head soft"),
    ]
    y = 12.0
    body: list[str] = []
    charts: list[tuple[float, float]] = []
    for row in top:
        inner = below.get(row["id"], []) if row["times"] > 1 else []
        height = max(_ROW, 12 + _LINE * max(2 + len(inner), len(_sources(row))), 10 + _layers(row) * layer_height)
        body += svg.group(_row(row, inner, numbers, layers, height), title=_told(row, inner), y=y)
        if row["stack"] is not None:
            charts.append((y, y + height))
        y += height
        body.append(svg.line(_TITLES, y, _WIDTH, y, "line-edge"))
    body.insert(0, svg.line(_TITLES, 12, _WIDTH, 12, "line-edge"))
    return [*pieces, *_axis(layers, charts), *body], y


def _every_layer(
    document: Mapping[str, Any], below: Mapping[int | None, Sequence[Mapping[str, Any]]]
) -> Iterator[Mapping[str, Any]]:
    """A row for each layer: groups cut up, patterns each time anew."""
    sizes: dict[str, list[int]] = {}
    stacks = {group["id"]: group["stack"] for group in document["groups"]}
    for tensor in document["tensors"]:
        stack = stacks[tensor["group"]]
        if stack is not None:
            layer = tensor["name"][len(stack) + 1 :].partition(".")[0]
            sizes.setdefault(f"{stack}.{layer}", []).append(tensor["bytes"])
    for group in below[None]:
        if group["stack"] is None:
            yield group
            continue
        every = _layers(group) // group["times"]
        for time in range(group["times"]):
            for part in below.get(group["id"], [group]):
                yield from _cut_up(part, time * every, time * (group["shift"] or 0), sizes)


def _cut_up(
    group: Mapping[str, Any], offset: int, shift: int, sizes: Mapping[str, Sequence[int]]
) -> Iterator[Mapping[str, Any]]:
    for index in range(_layers(group)):
        layer = group["first_layer"] + offset + index
        title = f"{group['stack']}.{layer}"
        sources = []
        for source in group["from"]:
            given = [low + shift + (index if high > low else 0) for low, high in source["ranges"]]
            sources.append({**source, "layers": ", ".join(map(str, given)), "ranges": [[each, each] for each in given]})
        size = {"tensors": len(sizes[title]), "bytes": sum(sizes[title])}
        yield {**group, **size, "title": title, "first_layer": layer, "last_layer": layer, "from": sources}


def _layers(group: Mapping[str, Any]) -> int:
    return group["last_layer"] - group["first_layer"] + 1 if group["stack"] is not None else 0


def _sources(group: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Layers, and the models that give them: those with the same layers share a line."""
    found: dict[str, list[str]] = {}
    for source in group["from"]:
        found.setdefault(source["layers"], []).append(source["model"])
    return list(found.items())


def told(document: Mapping[str, Any]) -> Iterator[str]:
    """Every row in words."""
    for group in document["groups"]:
        if group["parent"] is None:
            yield _told(group, [each for each in document["groups"] if each["parent"] == group["id"]])


def _told(group: Mapping[str, Any], inner: Sequence[Mapping[str, Any]]) -> str:
    """A row in words, for those who do not see it."""
    sources = ", ".join(" ".join([*marks, layers]).strip() for layers, marks in _sources(group))
    parts = "; ".join(_told(each, []) for each in inner)
    size = f"{count(group['tensors'], 'tensor')}, {format_bytes(group['bytes'])}"
    text = f"{group['title']}: {size}, from {sources or 'no model'}"
    return f"{text}; {group['times']} times: {parts}" if inner else text


def _row(
    group: Mapping[str, Any],
    inner: Sequence[Mapping[str, Any]],
    numbers: Mapping[str, int],
    layers: int,
    height: float,
) -> Iterator[str]:
    kinds = " ".join(f"[{kind}]" for kind in sorted(group["kinds"]))
    yield svg.text(_TITLES, 18, svg.fitted(group["title"], _FROM - 12), "mono strong ink")
    facts = f"{count(group['tensors'], 'tensor')} · {format_bytes(group['bytes'])} · {kinds}"
    yield svg.text(_TITLES, 18 + _LINE - 3, facts, "small soft")
    for index, (text, marks) in enumerate(_sources(group)):
        yield from _chips(_FROM, 5 + index * _LINE, text, marks, numbers)
    if inner:
        yield svg.text(_TITLES, 18 + 2 * _LINE - 3, f"{group['times']} times:", "small soft")
    for index, each in enumerate(inner):
        y = 18 + (2 + index) * _LINE
        size = _layers(each)
        yield svg.text(_TITLES + 62, y - 3, f"{count(size, 'layer')}", "small ink")
        for text, marks in _sources(each):
            yield from _chips(_TITLES + 130, y - 16, text, marks, numbers)
    for each in inner or [group]:
        yield from _strands(each, group, numbers, layers, height)


def _chips(x: float, y: float, layers: str, marks: Sequence[str], numbers: Mapping[str, int]) -> Iterator[str]:
    most = _MOST_CHIPS if len(marks) > _MOST_CHIPS + 1 else len(marks)
    for mark in marks[:most]:
        yield svg.chip(x, y, mark, numbers[mark])
        x += svg.chip_width(mark) + 3
    more = f"+{len(marks) - most} " if len(marks) > most else ""
    yield svg.text(x + 4, y + 13, more + layers, "mono soft")


def _strands(
    group: Mapping[str, Any], row: Mapping[str, Any], numbers: Mapping[str, int], layers: int, height: float
) -> Iterator[str]:
    """A line for each model and range of its layers, again for each time that the pattern of the row comes."""
    if group["stack"] is None:
        return
    lanes = [(source["model"], low, high) for source in group["from"] for low, high in source["ranges"]]
    across = _across(layers)
    inset = _INSET + (len(lanes) - 1) * 2
    down = (height - 2 * inset) / _layers(row)
    every = _layers(row) // row["times"]
    size = group["last_layer"] - group["first_layer"]
    wide = min(max(across * 0.8 / max(len(lanes), 1), 2.5), _MOST_STRAND, down * 1.2)
    apart = 1.5 if len(lanes) < 6 else 0.4
    for time in range(row["times"]):
        first = group["first_layer"] - row["first_layer"] + time * every
        shift = time * (row["shift"] or 0)
        for lane, (mark, low, high) in enumerate(lanes):
            start, end = (_CHART + (at + shift + 0.5) * across for at in (low, high))
            # One layer has no way to go: it is an upright piece.
            reach = 0.0 if size else max(min((down - wide) / 2, 6.0), 0.0)
            top, bottom = inset + (first + 0.5) * down - reach, inset + (first + size + 0.5) * down + reach
            # Lanes are as far apart as they are wide, whichever way they go.
            long = math.hypot(end - start, bottom - top) or 1.0
            beside = (lane - (len(lanes) - 1) / 2) * (wide + apart)
            x, y = (beside, 0.0) if not size else (beside * (bottom - top) / long, -beside * (end - start) / long)
            # One layer again and again is a row of beads.
            beads = f' stroke-dasharray="0 {svg.number(down)}"' if low == high and size else ""
            yield (
                f'<path d="M{svg.number(start + x)} {svg.number(top + y)}L{svg.number(end + x)} '
                f'{svg.number(bottom + y + 0.1)}" class="strand {svg.model_class(numbers[mark])}-edge" '
                f'stroke-width="{svg.number(wide)}"{beads}/>'
            )


def _across(layers: int) -> float:
    """How far apart the models' layers are drawn; several strands at the last one have room."""
    return (_WIDTH - _CHART - 12) / max(layers, 1)


def _axis(layers: int, charts: Sequence[tuple[float, float]]) -> Iterator[str]:
    """The models' layers along the top, with a thin line down at some of them."""
    if not layers or not charts:
        return
    step = next(each for each in (1, 2, 4, 8, 16, 32, 64, 128, 1 << 20) if layers / each <= 10)
    for layer in range(0, layers, step):
        x = _CHART + (layer + 0.5) * _across(layers)
        yield svg.text(x, 0, str(layer), "small soft middle")
        for top, bottom in charts:
            yield svg.line(x, top, x, bottom, "line-edge")
    yield svg.text(_CHART - 18, 0, "LAYER", "head soft end")
