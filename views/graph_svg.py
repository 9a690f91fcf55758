"""The graph as one self-contained picture: models, the output's layers and where they come from, the op graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..engine.units import format_bytes, format_count, format_seconds
from . import svg
from .graph_drawing import main_kinds
from .graph_map import WIDTH as MAP_WIDTH
from .graph_map import layer_map, told
from .graph_ops import op_picture
from .layout import count, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MARGIN = 36
_LEFT = 288
_GAP = 36
_TOP = 118.0
_COLUMNS = 3
_WIDTH = 2 * _MARGIN + _LEFT + _GAP + MAP_WIDTH

MOST_KINDS = 3
"""Op graphs in a folded picture; of further kinds only the steps are said."""

_LONGEST = 150
"""Letters of a heading in a line."""

_SMALLEST = 0.62
"""How much smaller a long op graph may be drawn."""


def lines(document: Mapping[str, Any], *, inside: bool = False) -> Iterator[str]:
    """A document as SVG: folded, unfolded where it is expanded, or one tensor where it has one.

    ``inside`` of the page of a run that is over it is light or dark as the page is, and without what a run would take
    here and now: the page says what that run took.
    """
    numbers = {model["mark"]: number for number, model in enumerate(document["models"])}
    body: list[str] = []
    left, left_height = _models(document, numbers, () if inside else tuple(_facts(document)))
    body += svg.group(left, x=_MARGIN, y=_TOP)
    beside = _MARGIN + _LEFT + _GAP
    if document["tensor"] is None:
        right, right_height = layer_map(document)
        body += svg.group(right, x=beside, y=_TOP)
        x, y = float(_MARGIN), _TOP + max(left_height, right_height) + 64
    else:
        x, y = float(beside), _TOP
    body.append(svg.text(x, y, "HOW TENSORS ARE MADE" if x == _MARGIN else "HOW IT IS MADE", "head soft"))
    y += 14
    width = float(_WIDTH)
    for part in _op_graphs(document, numbers, tiles=not inside):
        heading = wrap(part.heading, _LONGEST)
        body += svg.group(_heading(heading, part.notes), x=x, y=y + 22)
        y += 26 + 18 * len(heading)
        if part.drawn is not None:
            pieces, graph_width, height = part.drawn
            # Long graphs are drawn smaller, as far as they can be read.
            scale = min(max((_WIDTH - x - _MARGIN) / max(graph_width, 1), _SMALLEST), 1.0)
            body += svg.group(pieces, x=x, y=y + 18, scale=scale)
            y += scale * height + 50
            width = max(width, scale * graph_width + x + _MARGIN)
        if part.names:
            listed, height = _listed(part.names)
            body += svg.group(listed, x=x, y=y)
            y += height + 24
    y = max(y, _TOP + left_height)
    y += _MARGIN
    size = f'width="{svg.number(width)}" height="{svg.number(y)}" viewBox="0 0 {svg.number(width)} {svg.number(y)}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title about">'
    yield f'<title id="title">{svg.shown(_title(document))}</title>'
    yield f'<desc id="about">{svg.shown(_about(document))}</desc>'
    yield svg.style(inside=inside)
    yield svg.box(0, 0, width, y, "ground", radius=0)
    yield from _head(document)
    yield from body
    yield "</svg>"


def _title(document: Mapping[str, Any]) -> str:
    if document["tensor"] is not None:
        return f"How {document['tensor']} is made"
    names = [model["reference"] for model in document["models"]]
    models = " and ".join(names) if len(names) < 3 else count(len(names), "model")
    return f"{document['recipe']['method']} merge of {models}"


def _about(document: Mapping[str, Any]) -> str:
    """The picture in words."""
    models = "; ".join(f"{model['mark']} is {model['reference']}" for model in document["models"])
    groups = ". ".join(told(document))
    return f"{models}. {groups}."


def _head(document: Mapping[str, Any]) -> Iterator[str]:
    recipe = document["recipe"]
    if document["tensor"] is not None:
        yield svg.text(_MARGIN, 56, svg.shortened(document["tensor"], 84), "title ink")
        yield svg.text(_MARGIN, 80, f"{recipe['method']}: {recipe['summary']}", "soft")
    else:
        yield svg.text(_MARGIN, 56, recipe["method"], "title ink")
        yield svg.text(_MARGIN, 80, recipe["summary"], "soft")


def _models(
    document: Mapping[str, Any], numbers: Mapping[str, int], facts_below: Sequence[tuple[str, str]]
) -> tuple[list[str], float]:
    pieces = [svg.text(0, 0, "MODELS", "head soft")]
    y = 12.0
    for model in document["models"]:
        mark = model["mark"]
        start = svg.chip_width(mark) + 10
        facts = [count(model["layers"], "layer"), format_bytes(model["bytes"]), " ".join(model["dtypes"])]
        inner = [
            svg.chip(0, 10, mark, numbers[mark]),
            svg.text(start, 23, svg.fitted(model["reference"], _LEFT - start), "mono strong ink"),
            svg.text(start, 40, " · ".join([*facts, *(["base"] if model["base"] else [])]), "small soft"),
        ]
        pieces += svg.group(inner, title=model["reference"], y=y)
        y += 52
    y += 24
    for name, value in facts_below:
        pieces.append(svg.text(0, y, name, "small soft"))
        pieces.append(svg.text(80, y, svg.fitted(value, _LEFT - 80, size=10.5), "small ink"))
        y += 19
    return pieces, y


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    totals = document["totals"]
    if document["tensor"] is not None:
        tensor = document["tensors"][0]
        yield "writes", format_bytes(tensor["bytes"])
        yield "into", document["shards"][tensor["shard"]]["name"]
        yield "at byte", format_count(tensor["offset_bytes"])
        read = document["programs"][tensor["program"]]["bytes_read"]
        yield "reads", format_bytes(read) if tensor["same_as"] is None else f"once, with {tensor['same_as']}"
        return
    most = "up to " if totals["passes"] > 1 else ""
    yield "reads", f"{format_bytes(totals['bytes_read'])}, in {most}{count(totals['passes'], 'pass', 'passes')}"
    yield "writes", f"{count(totals['tensors'], 'tensor')}, {format_bytes(totals['bytes_written'])}"
    yield "", f"in {count(len(document['shards']), 'shard')}"
    peak, budget = format_bytes(totals["predicted_peak_bytes"]), format_bytes(totals["budget_bytes"])
    yield "memory", f"{peak} of {budget} allowed"
    yield "time", f"about {format_seconds(totals['predicted_seconds'])} with {count(totals['workers'], 'worker')}"
    yield "seed", str(document["recipe"]["seed"])


@dataclass(frozen=True)
class _Part:
    """An op graph with what is said above it, and the names of tensors that are listed below it."""

    heading: str
    notes: str
    drawn: tuple[list[str], float, float] | None = None
    names: tuple[str, ...] = ()


def _heading(lines: Sequence[str], notes: str) -> Iterator[str]:
    for index, line in enumerate(lines):
        yield svg.text(0, 18 * index, line, "strong ink")
    yield svg.text(0, 18 * len(lines) + 1, notes, "small soft")


def _listed(names: Sequence[str]) -> tuple[list[str], float]:
    """Names in columns, and how high they are."""
    rows = -(-len(names) // _COLUMNS)
    across = (_WIDTH - 2 * _MARGIN) / _COLUMNS
    pieces = [
        svg.text(index // rows * across, 12 + index % rows * 16, svg.fitted(name, across - 16), "mono small soft")
        for index, name in enumerate(names)
    ]
    return pieces, 16.0 * rows


def _op_graphs(document: Mapping[str, Any], numbers: Mapping[str, int], *, tiles: bool) -> Iterator[_Part]:
    """What is said of each kind, and the graphs of the main ones; where all is shown, that of every program."""
    if document["expanded"] and document["tensor"] is None:
        made: dict[int, list[Mapping[str, Any]]] = {}
        for tensor in document["tensors"]:
            made.setdefault(tensor["program"], []).append(tensor)
        for program in document["programs"]:
            tensors = made[program["id"]]
            names = tuple(tensor["name"] for tensor in tensors)
            drawn = op_picture(program, tensors[0]["reads"], example=names[0], varies=(), numbers=numbers)
            heading = f"{count(len(names), 'tensor')} {program['nodes'][-1]['shape']}"
            yield _Part(f"[{program['kind']}]  {heading}", _notes(program, tiles=tiles), drawn, names)
        return
    drawn_kinds = main_kinds(document, MOST_KINDS)
    for kind in document["kinds"]:
        alike = f" and {count(kind['tensors'] - 1, 'tensor')} like it" if kind["tensors"] > 1 else ""
        example = svg.shortened(kind["example"], 90) + alike
        same = next((each for each in drawn_kinds if each["steps"] == kind["steps"]), None)
        if same is not None and same is kind:
            program = document["programs"][kind["program"]]
            drawn = op_picture(program, kind["reads"], example=kind["example"], varies=kind["varies"], numbers=numbers)
            yield _Part(f"[{kind['number']}]  {kind['steps']}", f"{example} · {_notes(program, tiles=tiles)}", drawn)
        elif same is not None:
            yield _Part(f"[{kind['number']}]  as [{same['number']}], but for types or numbers", example)
        else:
            yield _Part(f"[{kind['number']}]  {kind['steps']}", example)


def _notes(program: Mapping[str, Any], *, tiles: bool) -> str:
    """Shape, passes and, with ``tiles``, memory of a program."""
    passes: Sequence[Mapping[str, Any]] = program["passes"]
    said = f"{program['nodes'][-1]['shape']} · {count(len(passes), 'pass', 'passes')}"
    arena = max(each["arena_bytes"] for each in passes)
    tile = format_count(passes[-1]["tile_elements"])
    return f"{said}, tiles of {tile} elements, arena {format_bytes(arena)}" if tiles else said
