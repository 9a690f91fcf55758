"""The graph of a merge as one web page: nothing is fetched, and everything shown is in the page's own document.

The document is packed: its long lists become columns, which compress far better than the same keys again and again, and
the whole of it is zlib in base64, which the page inflates. An offset is stored as how far it is from the end of the
tensor before it in the same file, which is nearly always 0. ``assets/graph_data.js`` reads what `pack` makes.
"""

from __future__ import annotations

import base64
import json
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .page_parts import asset, head, script

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_LINE_LETTERS = 1 << 16

_SCRIPTS = tuple(
    f"graph_{name}.js"
    for name in ("data", "tree", "layout", "nodes", "view", "camera", "timeline", "search", "depth", "details", "main")
)


def page(document: Mapping[str, Any]) -> Iterator[str]:
    """The page's lines, from a graph document with all its tensors (`graph_document.document` with ``expand``)."""
    yield from head(f"{document['recipe']['method']} – plait plan", "graph.css")
    yield asset("graph.html").rstrip()
    yield '<script type="application/octet-stream" id="data">'
    packed = json.dumps(pack(document), separators=(",", ":")).encode()
    letters = base64.b64encode(zlib.compress(packed, 7)).decode()
    yield from (letters[at : at + _LINE_LETTERS] for at in range(0, len(letters), _LINE_LETTERS))
    yield "</script>"
    yield f"<!--\nThe licence of @dagrejs/dagre, the next script:\n\n{asset('dagre.LICENSE.txt').rstrip()}\n-->"
    yield script("dagre.min.js")
    yield script(*_SCRIPTS)
    yield "</body>"
    yield "</html>"


def pack(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with its tensors and its timeline as columns; everything else as it is."""
    rows = document["timeline"]
    if document["tensor"] is not None:
        # The moments of one tensor: what the run did before is left out, and its own are those of the only tensor here.
        (tensor,) = document["tensors"]
        first = document["programs"][tensor["program"]]["passes"][0]
        before_bytes = rows[0][-1] - (0 if first["optional"] else first["bytes_read"])
        before_bytes -= tensor["bytes"] if len(rows) == 1 else 0
        rows = [[0, *row[1:-1], row[-1] - before_bytes] for row in rows]
    return {**document, "tensors": _tensors(document["tensors"]), "timeline": _timeline(rows)}


def _tensors(tensors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    index = {tensor["name"]: number for number, tensor in enumerate(tensors)}
    files: dict[tuple[str, str], int] = {}
    ends_bytes: dict[int, int] = {}
    file_ends_bytes: dict[int, int] = {}
    gaps: list[int] = []
    reads: dict[str, list[Any]] = {"file": [], "gap": [], "name": []}
    for tensor in tensors:
        gaps.append(tensor["offset_bytes"] - ends_bytes.get(tensor["shard"], 0))
        ends_bytes[tensor["shard"]] = tensor["offset_bytes"] + tensor["bytes"]
        for read in tensor["reads"]:
            file = files.setdefault((read["model"], read["file"]), len(files))
            reads["file"].append(file)
            reads["gap"].append(read["offset_bytes"] - file_ends_bytes.get(file, 0))
            reads["name"].append(0 if read["name"] == tensor["name"] else read["name"])
            # As if what is read were as large as what is written, which a page can work out again.
            file_ends_bytes[file] = read["offset_bytes"] + tensor["bytes"]
    columns = {f"{key}": [tensor[key] for tensor in tensors] for key in ("program", "group", "shard", "bytes")}
    return {
        "names": list(index),
        **columns,
        "gap": gaps,
        "counts": [len(tensor["reads"]) for tensor in tensors],
        "reads": reads,
        "files": [list(file) for file in files],
        # An index, or a name where the document is about one tensor only.
        "same_as": [
            [index[tensor["name"]], index.get(tensor["same_as"], tensor["same_as"])]
            for tensor in tensors
            if tensor["same_as"]
        ],
    }


def _timeline(rows: Iterable[Sequence[int]]) -> dict[str, list[int]]:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], [], [], []]
    tensor, index, workers, live_bytes, state_bytes, done_bytes = columns
    step_bytes = [after - before for before, after in pairwise([0, *done_bytes])]
    return {
        "tensor": tensor,
        "pass": index,
        "workers": workers,
        "live": live_bytes,
        "state": state_bytes,
        "step": step_bytes,
    }
