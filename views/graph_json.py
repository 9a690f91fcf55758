"""The document as text: an entry a line, and its long lists made as they are written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .graph_document import MOST_MOMENTS, head
from .graph_tensors import tensor_values, timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .graph_document import Draft


def lines(made: Draft, *, expand: bool) -> Iterator[str]:
    """The document of a draft in lines: what `document` has, but never all of it at once."""
    yield _text(head(made, expand=expand)).removesuffix("\n}") + ","
    moments = timeline(made, None if expand else MOST_MOMENTS)
    if expand or made.tensor is not None:
        yield from _listed("timeline", moments, ",")
        yield from _listed("tensors", tensor_values(made))
    else:
        yield from _listed("timeline", moments)
    yield "}"


def _listed(name: str, entries: Iterable[object], end: str = "") -> Iterator[str]:
    yield f' "{name}": ['
    text = None
    for entry in entries:
        if text is not None:
            yield text + ","
        text = "  " + _dumps(entry)
    if text is not None:
        yield text
    yield f" ]{end}"


def _text(value: object, indent: str = "\n") -> str:
    """A value; objects and lists that hold several objects take several lines, and everything else one."""
    inner = indent + " "
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[" + ",".join(inner + _text(entry, inner) for entry in value) + indent + "]"
    if isinstance(value, dict) and (indent == "\n" or any(map(_is_long, value.values()))):
        members = (inner + _dumps(name) + ": " + _text(entry, inner) for name, entry in value.items())
        return "{" + ",".join(members) + indent + "}"
    return _dumps(value)


def _is_long(value: object) -> bool:
    return isinstance(value, list) and len(value) > 1 and isinstance(value[0], dict)


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
