"""The graph as one self-contained picture: models, the output's layers and where they come from, the op graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.units import format_bytes, format_count
from . import svg
from .graph_map import WIDTH as MAP_WIDTH
from .graph_map import layer_map, told
from .graph_ops import op_picture
from .layout import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MARGIN = 36
_LEFT = 288
_GAP = 36
_WIDTH = 2 * _MARGIN + _LEFT + _GAP + MAP_WIDTH

MOST_KINDS = 3
"""Op graphs in a folded picture; of further kinds only the steps are said."""

_SMALLEST = 0.62
"""How much smaller a long op graph may be drawn."""


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """A document as SVG: folded, unfolded where it is expanded, or one tensor where it has one."""
    numbers = {model["mark"]: number for number, model in enumerate(document["models"])}
    body: list[str] = []
    y = 118.0
    left, left_height = _models(document, numbers)
    body += svg.group(left, x=_MARGIN, y=y)
    right_height = 0.0
    if document["tensor"] is None:
        right, right_height = layer_map(document)
        body += svg.group(right, x=_MARGIN + _LEFT + _GAP, y=y)
    y += max(left_height, right_height) + 64
    width = float(_WIDTH)
    body.append(svg.text(_MARGIN, y, "HOW TENSORS ARE MADE", "head soft"))
    y += 14
    for heading, notes, drawn in _op_graphs(document, numbers):
        body += svg.group(_heading(heading, notes), x=_MARGIN, y=y + 22)
        y += 44
        if drawn is not None:
            pieces, graph_width, height = drawn
            # Long graphs are drawn smaller, as far as they can be read.
            scale = min(max((_WIDTH - 2 * _MARGIN) / max(graph_width, 1), _SMALLEST), 1.0)
            body += svg.group(pieces, x=_MARGIN, y=y + 18, scale=scale)
            y += scale * height + 50
            width = max(width, scale * graph_width + 2 * _MARGIN)
    y += _MARGIN
    size = f'width="{svg.number(width)}" height="{svg.number(y)}" viewBox="0 0 {svg.number(width)} {svg.number(y)}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title about">'
    yield f'<title id="title">{svg.shown(_title(document))}</title>'
    yield f'<desc id="about">{svg.shown(_about(document))}</desc>'
    yield svg.style()
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
        yield svg.text(_MARGIN, 56, svg.shortened(document["tensor"], 96), "title ink")
        yield svg.text(_MARGIN, 80, f"{recipe['method']}: {recipe['summary']}", "soft")
    else:
        yield svg.text(_MARGIN, 56, recipe["method"], "title ink")
        yield svg.text(_MARGIN, 80, recipe["summary"], "soft")


def _models(document: Mapping[str, Any], numbers: Mapping[str, int]) -> tuple[list[str], float]:
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
    for name, value in _facts(document):
        pieces.append(svg.text(0, y, name, "small soft"))
        pieces.append(svg.text(96, y, value, "small ink"))
        y += 19
    return pieces, y


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    totals = document["totals"]
    most = "up to " if totals["passes"] > 1 else ""
    yield "reads", f"{format_bytes(totals['bytes_read'])}, in {most}{count(totals['passes'], 'pass', 'passes')}"
    yield "writes", f"{count(totals['tensors'], 'tensor')}, {format_bytes(totals['bytes_written'])}"
    yield "", f"in {count(len(document['shards']), 'shard')}"
    peak, budget = format_bytes(totals["predicted_peak_bytes"]), format_bytes(totals["budget_bytes"])
    yield "memory", f"{peak} of {budget} allowed"
    yield "workers", str(totals["workers"])
    yield "seed", str(document["recipe"]["seed"])


def _heading(heading: str, notes: str) -> Iterator[str]:
    yield svg.text(0, 0, heading, "strong ink")
    yield svg.text(0, 19, notes, "small soft")


def _op_graphs(
    document: Mapping[str, Any], numbers: Mapping[str, int]
) -> Iterator[tuple[str, str, tuple[list[str], float, float] | None]]:
    """What is said of each kind, and the graphs of the main ones; where all is shown, that of every program."""
    if document["expanded"] and document["tensor"] is None:
        made: dict[int, list[Mapping[str, Any]]] = {}
        for tensor in document["tensors"]:
            made.setdefault(tensor["program"], []).append(tensor)
        for program in document["programs"]:
            first, *others = made[program["id"]]
            names = first["name"] + (f" and {count(len(others), 'tensor')} like it" if others else "")
            drawn = op_picture(program, first["reads"], example=first["name"], varies=(), numbers=numbers)
            yield names, _notes(program), drawn
        return
    drawn_steps: dict[str, int] = {}
    for kind in document["kinds"]:
        alike = f" and {count(kind['tensors'] - 1, 'tensor')} like it" if kind["tensors"] > 1 else ""
        heading, example = f"[{kind['number']}]  {kind['steps']}", svg.shortened(kind["example"], 90) + alike
        if kind["steps"] in drawn_steps:
            yield f"[{kind['number']}]  as [{drawn_steps[kind['steps']]}], with other numbers", example, None
        elif len(drawn_steps) == MOST_KINDS:
            yield heading, example, None
        else:
            drawn_steps[kind["steps"]] = kind["number"]
            program = document["programs"][kind["program"]]
            drawn = op_picture(program, kind["reads"], example=kind["example"], varies=kind["varies"], numbers=numbers)
            yield heading, f"{example} · {_notes(program)}", drawn


def _notes(program: Mapping[str, Any]) -> str:
    """Shape, passes and memory of a program."""
    passes: Sequence[Mapping[str, Any]] = program["passes"]
    shape = program["nodes"][-1]["shape"]
    arena = max(each["arena_bytes"] for each in passes)
    tile = format_count(passes[-1]["tile_elements"])
    return f"{shape} · {count(len(passes), 'pass', 'passes')}, tiles of {tile} elements, arena {format_bytes(arena)}"
