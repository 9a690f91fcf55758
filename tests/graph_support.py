"""Recipes whose graphs tests look at, and what the document of a graph is read back into."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import networkx as nx
import plait
import torch
from plait.engine.time_model import RATES
from view_support import LAYERS, SCALED, passthrough

if TYPE_CHECKING:
    from pathlib import Path

    from plait.engine.graph import Node


NAME = "model.layers.5.mlp.up_proj.weight"
PICTURES = ("dot", "mmd", "svg")
FORMATS = (*PICTURES, "json", "html")

DARE = """
    merge_method: dare_ties
    base_model: base
    models:
      - {model: ft1, parameters: {weight: 0.5, density: 0.6}}
      - {model: ft2, parameters: {weight: [0.4, 0.9], density: 0.55}}
    dtype: bfloat16
"""
TIES = DARE.replace("dare_ties", "ties")
SLERP = """
    merge_method: slerp
    base_model: base
    models: [{model: base}, {model: ft1}]
    parameters: {t: [{filter: self_attn, value: [0, 0.5, 1]}, {value: 0.5}]}
    dtype: bfloat16
"""


EXPANSION = passthrough(("base", 0, LAYERS), *[("base", LAYERS - 1, LAYERS, SCALED)] * 4)
FRANKENMERGE = passthrough(("base", 0, 8), ("ft1", 4, 10), ("ft2", 3, LAYERS))
PATTERN = passthrough(
    *[
        each
        for start in range(0, 12, 3)
        for each in (("base", start, start + 3), ("base", start + 2, start + 3, SCALED))
    ]
)
RECIPES = {
    "dare": DARE,
    "ties": TIES,
    "slerp": SLERP,
    "expansion": EXPANSION,
    "frankenmerge": FRANKENMERGE,
    "pattern": PATTERN,
}


def planned(family: Path, recipe: str, **options: Any) -> plait.MergePlan:
    """Plan a recipe that stands beside its models."""
    path = family / "recipe.yml"
    path.write_text(dedent(recipe), encoding="utf-8")
    return plait.plan(path, **options)


def written(merge: plait.MergePlan, path: Path, **options: Any) -> str:
    """A graph's file as text."""
    merge.write_graph(path, **options)
    return path.read_text(encoding="utf-8")


def without_measured(merge: plait.MergePlan) -> plait.MergePlan:
    """The plan as another process would make it: what it found out about itself is set to fixed figures."""
    fixed = {"reserved_bytes": 1, "peak_so_far_bytes": 2, "minimum_bytes": 3, "budget_bytes": 4}
    return replace(merge, plan=replace(merge.plan, **fixed), rates=RATES)


def tensor_graph(document: dict[str, Any]) -> nx.DiGraph[str]:
    """`MergePlan.graph` as an expanded document has it: stored and written tensors, and what feeds what."""
    references = {model["mark"]: model["reference"] for model in document["models"]}
    graph: nx.DiGraph[str] = nx.DiGraph()
    for tensor in document["tensors"]:
        graph.add_node(tensor["name"], kind="output")
        for read in tensor["reads"]:
            label = f"{references[read['model']]}:{read['name']}"
            graph.add_node(label, kind="input")
            graph.add_edge(label, tensor["name"])
    return graph


def op_graph(program: dict[str, Any]) -> nx.DiGraph[int]:
    """`MergePlan.graph_of` as a program of the document has it: ops with what they were told, and what feeds what."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    for node in program["nodes"]:
        spec = (tuple(node["shape"]), node["dtype"], node["space"])
        told = dict(node["attrs"])
        if node["op"] in ("load", "gather"):
            told |= {"shape": node["shape"], "dtype": node["dtype"]}
            told |= {"slot": node["slots"][0]} if node["op"] == "load" else {"slots": node["slots"]}
        graph.add_node(node["id"], op=node["op"], spec=spec, told=told)
        graph.add_edges_from((source, node["id"]) for source in node["inputs"])
    return graph


def op_graph_of(merge: plait.MergePlan, tensor: str) -> nx.DiGraph[int]:
    """The graph that `op_graph` should give, from the plan itself."""
    planned = merge.graph_of(tensor)
    numbers: dict[Node, int] = {node: number for number, node in enumerate(planned)}
    graph: nx.DiGraph[int] = nx.DiGraph()
    for node, facts in planned.nodes(data=True):
        spec = facts["spec"]
        fields = {"shape": spec.shape, "dtype": spec.dtype, "space": spec.space}
        told = {
            name: _plain(value)
            for name, value in facts["attrs"].items()
            if node.op.name in ("load", "gather") or fields.get(name) != value
        }
        graph.add_node(numbers[node], op=facts["op"], spec=(spec.shape, _plain(spec.dtype), spec.space), told=told)
    graph.add_edges_from((numbers[source], numbers[node]) for source, node in planned.edges)
    return graph


def _plain(value: object) -> object:
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return list(value) if isinstance(value, tuple) else value


def layers_of(document: dict[str, Any]) -> list[tuple[str, int]]:
    """Which layer of which model each output layer is, in order, told from the folded groups alone."""
    groups = document["groups"]
    found = []
    for group in groups:
        if group["parent"] is not None or group["stack"] is None:
            continue
        parts = [each for each in groups if each["parent"] == group["id"]] or [group]
        for time in range(group["times"]):
            for part in parts:
                (source,) = part["from"]
                ((low, high),) = source["ranges"]
                size = part["last_layer"] - part["first_layer"] + 1
                step = 1 if high > low else 0
                moved = low + time * (group["shift"] or 0)
                found += [(source["model"], moved + step * index) for index in range(size)]
    return found
