"""The graph for Graphviz: ``dot -Tsvg merge.dot -o merge.svg``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from .layout import clean, shorten
from .palette import model_colours

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .graph_drawing import Cluster, Drawing

_LONGEST = 72
"""Columns of a line in a label; the tooltip has it whole."""

CENTRED, LEFT = r"\n", r"\l"
"""Graphviz's words for the end of a line, which also say where the line stands."""


def lines(drawing: Drawing) -> Iterator[str]:
    """A digraph with a cluster for each frame."""
    colours = {mark: model_colours()[number % len(model_colours())].light for number, mark in enumerate(drawing.marks)}
    yield "digraph plait {"
    yield '  graph [rankdir=LR, fontname="Helvetica,Arial,sans-serif", fontsize=14, labelloc=t, labeljust=l,'
    yield f'    style=rounded, color="#8b93a3", nodesep=0.15, ranksep=0.4, label={_quoted(drawing.title)}];'
    yield '  node [shape=box, style="rounded,filled", fillcolor=white, color="#8b93a3", fontsize=11,'
    yield '    margin="0.12,0.06", fontname="Helvetica,Arial,sans-serif"];'
    yield '  edge [color="#545b6b", fontsize=10, arrowsize=0.6, fontname="Helvetica,Arial,sans-serif"];'
    for cluster in drawing.clusters:
        yield from _cluster(cluster, colours, "  ")
    for arrow in drawing.arrows:
        colour = f"color={_quoted(colours[arrow.mark])}" if arrow.mark else ""
        label = f"label={_quoted(arrow.label)}" if arrow.label else ""
        options = ", ".join(filter(None, (label, colour)))
        yield f"  {arrow.source} -> {arrow.target}" + (f" [{options}];" if options else ";")
    yield "}"


def _cluster(cluster: Cluster, colours: Mapping[str, str], indent: str) -> Iterator[str]:
    yield f"{indent}subgraph cluster_{cluster.key} {{"
    colour = f" color={_quoted(colours[cluster.mark])}; penwidth=2;" if cluster.mark else ""
    yield f"{indent}  label={_label(cluster.lines, end=LEFT)}; tooltip={_quoted(cluster.lines[0])};{colour}"
    for box in cluster.boxes:
        colour = f", color={_quoted(colours[box.mark])}, penwidth=2" if box.mark else ""
        yield f"{indent}  {box.key} [label={_label(box.lines)}, tooltip={_label(box.lines, shortened=False)}{colour}];"
    if not cluster.boxes and not cluster.clusters:
        yield f'{indent}  {cluster.key} [label="", shape=point, style=invis];'  # a frame without boxes is not drawn
    for inner in cluster.clusters:
        yield from _cluster(inner, colours, indent + "  ")
    yield f"{indent}}}"


def _label(texts: tuple[str, ...], *, shortened: bool = True, end: str = CENTRED) -> str:
    """Lines below each other, as quoted text."""
    if shortened:
        texts = tuple(shorten(Text(clean(text)), _LONGEST).plain for text in texts)
    return '"' + "".join(_escaped(text) + end for text in texts) + '"'


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    r"""Graphviz gives a meaning to quotes, to backslashes (``\N`` is a node's name) and to ``&lt;`` and the like."""
    return clean(text).replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
