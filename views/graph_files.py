"""The graph of a merge as a file; its suffix says as what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.errors import UsageError
from ..engine.units import format_count
from .graph_document import draft
from .page_file import write_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ..merge import MergePlan
    from .graph_document import Draft

MOST_NODES = 5000
"""Ops that a picture of everything may have."""


def check_suffix(path: Path) -> None:
    """Raises UsageError for a file of which nobody knows what to write into it."""
    if path.suffix.lower() not in _WRITERS:
        *others, last = sorted(_WRITERS)
        raise UsageError(f"--graph {path}: what is written goes by the suffix, one of {', '.join(others)} and {last}")


def write_graph(merge: MergePlan, path: Path, *, expand: bool = False, tensor: str | None = None) -> None:
    """Write the graph as what the suffix says: folded, with ``expand`` all of it, or one ``tensor``'s op graph.

    Raises UsageError where that is more than such a file can show, OutputError where it cannot be written, and KeyError
    for a tensor that the merge does not write.
    """
    try:
        lines = _WRITERS[path.suffix.lower()](draft(merge, tensor), expand)
    except UsageError as error:  # of several files, this one
        raise UsageError(f"{path}: {error}") from None
    write_page(path, lines)


def _json(made: Draft, expand: bool) -> Iterator[str]:
    from .graph_json import lines

    return lines(made, expand=expand)


def _html(made: Draft, _expand: bool) -> Iterator[str]:
    # The page holds everything and folds it on the screen.
    from .graph_document import document_of
    from .graph_page import page

    return page(document_of(made, expand=True))


def _dot(made: Draft, expand: bool) -> Iterator[str]:
    from .graph_dot import lines
    from .graph_drawing import drawing

    return lines(drawing(_pictured(made, expand)))


def _mermaid(made: Draft, expand: bool) -> Iterator[str]:
    from .graph_drawing import drawing
    from .graph_mermaid import MOST_ARROWS, MOST_LETTERS, fits, lines

    document = _pictured(made, expand)
    # One tensor's ops are all there is of it; of a folded graph they are what can be done without.
    for drawn in (drawing(document), drawing(document, ops=False)):
        if fits(drawn):
            return lines(drawn)
    raise UsageError(
        f"this is too much for Mermaid, which takes {MOST_ARROWS} arrows and {format_count(MOST_LETTERS)} letters; "
        "take .svg, .dot or .html, or --tensor NAME for one tensor"
    )


def _svg(made: Draft, expand: bool) -> Iterator[str]:
    from .graph_svg import lines

    return lines(_pictured(made, expand))


def _pictured(made: Draft, expand: bool) -> dict[str, Any]:
    """The document for a picture. Raises UsageError for more than a picture can show."""
    from .graph_document import document_of

    nodes = sum(len(island.program.nodes) + len(island.outputs) - 1 for island in made.islands) if expand else 0
    if nodes > MOST_NODES and made.tensor is None:
        raise UsageError(
            f"--expand: {format_count(nodes)} ops are too many for a picture (at most {format_count(MOST_NODES)}); "
            "take --tensor NAME for one tensor, or .html or .json for all of them"
        )
    return document_of(made, expand=expand)


_WRITERS: Mapping[str, Callable[[Draft, bool], Iterator[str]]] = {
    ".dot": _dot,
    ".html": _html,
    ".json": _json,
    ".mmd": _mermaid,
    ".svg": _svg,
}
