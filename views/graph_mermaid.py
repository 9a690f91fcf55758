"""The graph for Mermaid, which Markdown pages of many sites draw."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.text import Text

from .layout import clean, shorten
from .palette import model_colours

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .graph_drawing import Cluster, Drawing

_LONGEST = 60
"""Columns of a line in a label."""

MOST_ARROWS, MOST_LETTERS = 500, 50_000
"""What Mermaid draws where nobody has told it to take more."""

_SPECIAL = re.compile(r"[^\w .,…→–\-+=/()\[\]×]")
"""What a label may not hold as it is; Mermaid reads words, quotes, semicolons and percent signs in most places."""


def lines(drawing: Drawing) -> Iterator[str]:
    """A flowchart with a subgraph for each frame."""
    numbers = {mark: number % len(model_colours()) for number, mark in enumerate(drawing.marks)}
    yield "---"
    yield f"title: {_title(drawing.title)}"
    yield "config: {flowchart: {wrappingWidth: 600}}"
    yield "---"
    yield "flowchart LR"
    for cluster in drawing.clusters:
        yield from _cluster(cluster, numbers, "  ")
    for arrow in drawing.arrows:
        label = f"|{_label((arrow.label,))}|" if arrow.label else ""
        yield f"  {arrow.source} -->{label} {arrow.target}"
    for number in sorted(set(numbers.values())):
        # The text keeps the colour of the theme, which may be light or dark.
        yield f"  classDef model{number} stroke:{model_colours()[number].light},stroke-width:3px"


def fits(drawing: Drawing) -> bool:
    """Whether Mermaid takes a drawing as large as this."""
    return len(drawing.arrows) <= MOST_ARROWS and sum(len(line) + 1 for line in lines(drawing)) <= MOST_LETTERS


def _cluster(cluster: Cluster, numbers: Mapping[str, int], indent: str) -> Iterator[str]:
    yield f"{indent}subgraph {cluster.key}_frame[{_label(cluster.lines, between=', ')}]"
    yield f"{indent}  direction {'TB' if cluster.boxes else 'LR'}"
    for box in cluster.boxes:
        style = f":::model{numbers[box.mark]}" if box.mark else ""
        yield f"{indent}  {box.key}[{_label(box.lines)}]{style}"
    for inner in cluster.clusters:
        yield from _cluster(inner, numbers, indent + "  ")
    yield f"{indent}end"
    if cluster.mark:
        yield f"{indent}class {cluster.key}_frame model{numbers[cluster.mark]}"


def _label(texts: tuple[str, ...], *, between: str = "<br/>") -> str:
    """Quoted text. A frame has room for one line, a box for several."""
    short = (shorten(Text(clean(text)), _LONGEST).plain for text in texts)
    return '"' + between.join(_SPECIAL.sub(lambda found: f"#{ord(found[0])};", text) for text in short) + '"'


def _title(text: str) -> str:
    """The title is YAML, and made of words of ours and of numbers."""
    return '"' + clean(text).replace("\\", "\\\\").replace('"', '\\"') + '"'
