"""The graph of a merge as one document of plain JSON values: what every picture and page of it is made from.

Everything in it is read from the plan. Files go by their names within their models, so the same plan gives the same
document wherever the folders are. docs/graph-json.md says what each field means.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..version import VERSION
from .graph_groups import group_values, groups_of
from .graph_programs import programs_of, varying
from .graph_tensors import tensor_values, timeline
from .kinds import kind_by_program, kinds_of
from .legend import letter
from .model_differences import dtypes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..engine.graph import Island, Program
    from ..engine.model import Model
    from ..engine.recipe import ModelRef
    from ..merge import MergePlan
    from .graph_groups import Group
    from .kinds import Kind

FORMAT = "plait-graph"
FORMAT_VERSION = 1

MOST_MOMENTS = 400
"""Rows of the timeline where the document is folded."""


@dataclass(frozen=True)
class Draft:
    """What the parts of a document share: its tensors, kinds and groups, and how models and programs are numbered.

    ``programs`` begins with those that a folded document holds, ``shown``, so that a number means the same in both.
    """

    merge: MergePlan
    tensor: str | None
    islands: tuple[Island, ...]
    kinds: tuple[Kind, ...]
    groups: tuple[Group, ...]
    marks: Mapping[str, str]
    shown: int
    programs: Mapping[Program, int]

    @cached_property
    def kind_of(self) -> Mapping[Program, Kind]:
        """Which kind a program is of."""
        return kind_by_program(self.kinds)


def draft(merge: MergePlan, tensor: str | None = None) -> Draft:
    """Sort and number what a document is made from; ``tensor``: only that output tensor. KeyError if there is none."""
    islands = merge.plan.graph.islands if tensor is None else (merge.plan.island_of(tensor),)
    kinds = kinds_of(islands)
    groups = tuple(groups_of(merge, kind_by_program(kinds), tensor))
    marks = {str(ref): letter(index) for index, ref in enumerate(merge.models)}
    members = (made.island.program for group in groups for made in group.first.layers[0].tensors)
    shown = dict.fromkeys(chain((kind.largest.program for kind in kinds), members))
    programs = dict.fromkeys(chain(shown, (island.program for island in islands)))
    numbers = {program: number for number, program in enumerate(programs)}
    return Draft(merge, tensor, islands, kinds, groups, marks, len(shown), numbers)


def document(merge: MergePlan, *, expand: bool = False, tensor: str | None = None) -> dict[str, Any]:
    """The whole graph, folded; with ``expand`` every tensor, program and moment too.

    ``tensor``: of the graph only that output tensor, with its op graph. KeyError if the merge does not write it.
    """
    return document_of(draft(merge, tensor), expand=expand)


def document_of(made: Draft, *, expand: bool) -> dict[str, Any]:
    """The document of a draft; see `document`."""
    found = head(made, expand=expand)
    found["timeline"] = list(timeline(made, None if expand else MOST_MOMENTS))
    if expand or made.tensor is not None:
        found["tensors"] = list(tensor_values(made))
    return found


def head(made: Draft, *, expand: bool) -> dict[str, Any]:
    """The document without its long lists, ``timeline`` and ``tensors``."""
    merge = made.merge
    chosen = list(made.programs) if expand else list(made.programs)[: made.shown]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "version": VERSION,
        "expanded": expand,
        "tensor": made.tensor,
        "recipe": {
            "sha256": merge.recipe_sha256,
            "method": merge.method.name,
            "summary": merge.method.summary,
            "seed": merge.plan.seed,
            "text": merge.recipe.text,
        },
        "totals": _totals(merge),
        "devices": [{"name": "cpu", "predicted_peak_bytes": merge.parts.predicted_peak_bytes}, *merge.devices],
        "processes": merge.parts.planned(),
        "models": [_model(made, ref, model) for ref, model in merge.models.items()],
        "kinds": [_kind(made, kind) for kind in made.kinds],
        "programs": programs_of(merge, made.kind_of, chosen),
        "groups": group_values(made.groups, made.kind_of, made.programs, made.marks),
        "shards": [
            {"name": shard.file_name, "bytes": shard.size_bytes, "tensors": len(shard.offsets_bytes)}
            for shard in merge.shards
        ],
        "warnings": list(merge.warnings),
    }


def _totals(merge: MergePlan) -> dict[str, Any]:
    plan, parts = merge.plan, merge.parts
    return merge.totals() | {
        "workers": parts.workers,
        "budget_bytes": parts.budget_bytes,
        "arena_bytes": plan.arena_bytes,
        "state_bytes": parts.here * plan.state_bytes,
        "slack_bytes": parts.here * plan.slack_bytes,
    }


def _kind(made: Draft, kind: Kind) -> dict[str, Any]:
    example = kind.largest
    return {
        "number": kind.number,
        "steps": kind.steps,
        "tensors": kind.tensors,
        "bytes": kind.size_bytes,
        "program": made.programs[example.program],
        "example": example.name if made.tensor is None else made.tensor,
        "reads": [{"model": made.marks[leaf.model], "name": leaf.name} for leaf in example.leaves],
        "varies": list(varying(kind)),
    }


def _model(made: Draft, ref: ModelRef, model: Model) -> dict[str, Any]:
    return {
        "mark": made.marks[str(ref)],
        "reference": str(ref),
        "revision": ref.revision,
        "base": ref == made.merge.recipe.base_model,
        "layers": model.layers,
        "tensors": len(model.tensors),
        "bytes": model.size_bytes,
        "dtypes": dtypes(model),
        "files": [{"name": Path(file.path).name, "bytes": file.size_bytes} for file in model.files],
    }
