"""The graph as one interactive page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def page(document: dict[str, Any]) -> Iterator[str]:
    """The page's lines, from an expanded document."""
    yield "<!DOCTYPE html>"
    yield f"<title>{document['format']}</title>"
