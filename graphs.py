"""The graph of a planned merge as files: what may be asked for, and where it may go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .engine.errors import UsageError
from .engine.suggest import closest, did_you_mean
from .views import graph_files
from .views.page_file import check_page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .merge import MergePlan


def check_asked(paths: Iterable[Path], *, recipe: str) -> None:
    """See, before anything is opened, that graphs can be written to these files. Raises UsageError."""
    for path in paths:
        graph_files.check_suffix(path)
        check_page(path)
        if recipe != "-" and path.resolve() == Path(recipe).resolve():
            raise UsageError(f"--graph {path}: is the recipe; name another file")


def check_tensor(merge: MergePlan, name: str) -> None:
    """Raises UsageError, with the nearest name, for a tensor that the merge does not write."""
    names = {output for island in merge.plan.graph.islands for output in island.outputs}
    if name not in names:
        hint = did_you_mean(closest(name, names)) or "plait run RECIPE --dry-run -v lists all"
        raise UsageError(f"the merge writes no tensor {name!r}; {hint}")


def write_graph(merge: MergePlan, path: Path, *, expand: bool, tensor: str | None, out: Path | None) -> None:
    """See MergePlan.write_graph; ``out`` is where the merge itself will go, and no place for pictures."""
    graph_files.check_suffix(path)
    check_page(path, inputs=[model.folder for model in merge.models.values()], out=out)
    if tensor is not None:
        check_tensor(merge, tensor)
    graph_files.write_graph(merge, path, expand=expand, tensor=tensor)
