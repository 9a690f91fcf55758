"""The graph of a merge as a file; its suffix says as what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engine.errors import UsageError
from .graph_document import draft
from .page_file import write_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ..merge import MergePlan
    from .graph_document import Draft


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
    write_page(path, _WRITERS[path.suffix.lower()](draft(merge, tensor), expand))


def _json(made: Draft, expand: bool) -> Iterator[str]:
    from .graph_json import lines

    return lines(made, expand=expand)


def _html(made: Draft, _expand: bool) -> Iterator[str]:
    # The page holds everything and folds it on the screen.
    from .graph_document import document
    from .graph_page import page

    return page(document(made.merge, expand=True, tensor=made.tensor))


_WRITERS: Mapping[str, Callable[[Draft, bool], Iterator[str]]] = {
    ".html": _html,
    ".json": _json,
}
