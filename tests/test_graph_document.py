"""The document of a graph: everything in it is the plan's, it adds up, and it is enough to build the graph again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import pytest
from graph_support import (
    DARE,
    EXPANSION,
    LAYERS,
    PATTERN,
    RECIPES,
    SLERP,
    layers_of,
    op_graph,
    op_graph_of,
    planned,
    tensor_graph,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from plait.engine.simulate import simulate, simulated_peak_bytes
from plait.engine.time_model import program_seconds
from plait.views.graph_document import MOST_MOMENTS, document
from view_support import passthrough

if TYPE_CHECKING:
    import plait

DOCS = Path(__file__).parent.parent / "docs" / "graph-json.md"
FIELD = re.compile(r"`(\w+)`")


@pytest.fixture(scope="module", params=RECIPES)
def merge(request, view_family) -> plait.MergePlan:
    return planned(view_family, RECIPES[request.param])


def expanded(merge: plait.MergePlan) -> dict[str, Any]:
    """As somebody reads it who has the file and nothing else."""
    return json.loads(json.dumps(document(merge, expand=True), allow_nan=False))


# ------------------------------------------------------------------------------------------------- what it says


def test_the_figures_are_those_of_the_report(merge) -> None:
    report = merge.report()
    found = document(merge)
    shared = set(report) & set(found["totals"])
    assert {"tensors", "bytes_read", "bytes_written", "predicted_peak_bytes", "disk_needed_bytes"} <= shared
    assert {name: found["totals"][name] for name in shared} == {name: report[name] for name in shared}
    assert found["shards"] == report["shards"]
    assert found["warnings"] == report["warnings"]
    fields = ("reference", "revision", "tensors", "bytes")
    assert [{name: model[name] for name in fields} for model in found["models"]] == report["models"]
    assert found["recipe"]["text"] == merge.recipe.text


def test_parts_add_up_to_the_whole(merge) -> None:
    found = expanded(merge)
    top = [group for group in found["groups"] if group["parent"] is None]
    data_bytes = sum(shard.data_bytes for shard in merge.shards)
    for parts in (top, found["kinds"]):
        assert sum(part["tensors"] for part in parts) == found["totals"]["tensors"] == len(found["tensors"])
        assert sum(part["bytes"] for part in parts) == data_bytes
    assert sum(tensor["bytes"] for tensor in found["tensors"]) == data_bytes
    made = [tensor for tensor in found["tensors"] if tensor["same_as"] is None]
    read_bytes = sum(found["programs"][tensor["program"]]["bytes_read"] for tensor in made)
    assert read_bytes == found["totals"]["bytes_read"]
    for group in top:
        inner = [each for each in found["groups"] if each["parent"] == group["id"]]
        assert (group["times"] > 1) == bool(inner)
        if inner:
            assert group["tensors"] == group["times"] * sum(each["tensors"] for each in inner)
            assert group["bytes"] == group["times"] * sum(each["bytes"] for each in inner)
    for group in found["groups"]:
        held = [tensor for tensor in found["tensors"] if tensor["group"] == group["id"]]
        times = next((each["times"] for each in found["groups"] if each["id"] == group["parent"]), 1)
        assert len(held) == (0 if group["times"] > 1 else group["tensors"] * times)


def test_programs_say_what_their_passes_read_and_what_memory_they_take(merge) -> None:
    found = expanded(merge)
    for program in found["programs"]:
        passes = program["passes"]
        assert program["bytes_read"] == sum(each["bytes_read"] for each in passes if not each["optional"])
        assert {node for each in passes for node in each["nodes"]} == {node["id"] for node in program["nodes"]}
        *_, last = program["nodes"]
        assert last["op"] == "write"
        assert last["id"] in passes[-1]["nodes"]
    arenas = [each["arena_bytes"] for program in found["programs"] for each in program["passes"]]
    assert max(arenas) == found["totals"]["arena_bytes"]


def test_times_are_those_of_the_plan(merge) -> None:
    found = expanded(merge)
    assert found["totals"]["predicted_seconds"] == merge.report()["predicted_seconds"] > 0
    for program in found["programs"]:
        assert program["predicted_seconds"] == pytest.approx(
            sum(each["predicted_seconds"] for each in program["passes"]), abs=1e-5
        )
        assert all(each["predicted_seconds"] == 0 for each in program["passes"] if each["optional"])
    seconds = program_seconds(merge.plan, merge.rates)
    for tensor in found["tensors"]:
        told = found["programs"][tensor["program"]]["predicted_seconds"]
        assert told == pytest.approx(seconds[merge.plan.island_of(tensor["name"]).program], abs=1e-6)


def test_offsets_are_where_the_bytes_are(view_family, tmp_path) -> None:
    # A stored tensor, found by nothing but the document, is what the run wrote where the document says.
    merge = planned(view_family, EXPANSION)
    found = expanded(merge)
    merge.run(tmp_path / "out")
    copied = 0
    for tensor in found["tensors"]:
        if len(tensor["reads"]) == 1:
            (read,) = tensor["reads"]
            assert read["model"] == "A"
            stored = (view_family / "base" / read["file"]).read_bytes()
            written = (tmp_path / "out" / found["shards"][tensor["shard"]]["name"]).read_bytes()
            start, end = tensor["offset_bytes"], tensor["offset_bytes"] + tensor["bytes"]
            assert written[start:end] == stored[read["offset_bytes"] :][: tensor["bytes"]]
            copied += 1
    assert copied > 100


def test_every_moment_is_there_or_the_ones_that_matter(merge) -> None:
    full, folded = document(merge, expand=True)["timeline"], document(merge)["timeline"]
    moments = list(simulate(merge.plan))
    names = [tensor["name"] for tensor in document(merge, expand=True)["tensors"]]
    assert [(names[index], *rest) for index, *rest in full] == [tuple(moment) for moment in moments]
    assert len(folded) <= MOST_MOMENTS
    assert folded[-1] == full[-1]
    assert [row for row in full if row in folded] == folded
    for rows in (full, folded):
        assert max(live + state for _, _, _, live, state, _ in rows) == simulated_peak_bytes(merge.plan)
    assert full[-1][-1] == merge.plan.bytes_read + sum(shard.data_bytes for shard in merge.shards)


# --------------------------------------------------------------------------------------------- enough to rebuild


def test_the_tensor_graph_is_rebuilt_from_the_file(merge) -> None:
    rebuilt = tensor_graph(expanded(merge))
    assert dict(rebuilt.nodes(data="kind")) == dict(merge.graph.nodes(data="kind"))
    assert set(rebuilt.edges) == set(merge.graph.edges)
    assert rebuilt.number_of_edges() > 50


def test_every_op_graph_is_rebuilt_from_the_file(merge) -> None:
    found = expanded(merge)
    ops = 0
    for tensor in found["tensors"]:
        rebuilt, real = op_graph(found["programs"][tensor["program"]]), op_graph_of(merge, tensor["name"])
        assert nx.utils.graphs_equal(rebuilt, real), tensor["name"]
        ops += len(rebuilt)
    assert ops > len(found["tensors"])


def test_what_is_folded_says_the_same_as_what_is_not(merge) -> None:
    folded, full = document(merge), document(merge, expand=True)
    assert folded["programs"] == full["programs"][: len(folded["programs"])]
    assert {name for name in folded if folded[name] != full[name]} <= {"expanded", "programs", "timeline"}
    used = {kind["program"] for kind in folded["kinds"]}
    used |= {member["program"] for group in folded["groups"] for member in group["members"]}
    assert used == set(range(len(folded["programs"])))
    # A group's members are the tensors of its first layer.
    for group in folded["groups"]:
        prefix = f"{group['stack']}.{group['first_layer']}." if group["stack"] is not None else ""
        for member in group["members"]:
            (tensor,) = [each for each in full["tensors"] if each["name"] == prefix + member["name"]]
            assert (tensor["group"], tensor["program"]) == (group["id"], member["program"])
            assert [read["model"] for read in tensor["reads"]] == member["models"]


@settings(max_examples=12)
@given(
    slices=st.lists(
        st.tuples(st.sampled_from(["base", "ft1"]), st.integers(0, LAYERS - 1), st.integers(1, 5)).map(
            lambda drawn: (drawn[0], drawn[1], min(drawn[1] + drawn[2], LAYERS))
        ),
        min_size=1,
        max_size=8,
    ),
    times=st.integers(1, 3),
)
def test_groups_say_where_every_layer_comes_from(view_family, slices, times) -> None:
    every = slices * times
    found = document(planned(view_family, passthrough(*every)))
    marks = {model["reference"]: model["mark"] for model in found["models"]}
    assert layers_of(found) == [(marks[model], layer) for model, start, end in every for layer in range(start, end)]


def test_a_pattern_has_its_parts_once(view_family) -> None:
    found = document(planned(view_family, PATTERN))
    (pattern,) = [group for group in found["groups"] if group["times"] > 1]
    assert (pattern["title"], pattern["times"], pattern["shift"]) == ("model.layers.0–15", 4, 3)
    assert [source["layers"] for source in pattern["from"]] == ["0–11"]
    parts = [group for group in found["groups"] if group["parent"] == pattern["id"]]
    assert [(part["first_layer"], part["last_layer"], part["from"][0]["layers"]) for part in parts] == [
        (0, 2, "0–2"),
        (3, 3, "2"),
    ]
    assert layers_of(found) == [
        ("A", layer) for start in (0, 3, 6, 9) for layer in (*range(start, start + 3), start + 2)
    ]


# --------------------------------------------------------------------------------------------- follows the recipe


def test_another_recipe_is_another_document(view_family) -> None:
    def factors(recipe: str) -> set[float]:
        found = document(planned(view_family, recipe), expand=True)
        return {
            node["attrs"]["factor"]
            for program in found["programs"]
            for node in program["nodes"]
            if "factor" in node["attrs"]
        }

    assert 0.5 / 0.6 in factors(DARE)
    assert 0.25 / 0.6 in factors(DARE.replace("weight: 0.5", "weight: 0.25"))
    assert 0.5 / 0.6 not in factors(DARE.replace("weight: 0.5", "weight: 0.25"))
    steps = [document(planned(view_family, recipe))["kinds"][0]["steps"] for recipe in (DARE, SLERP, EXPANSION)]
    assert steps[0] == "sub → drop → scale → elect → agree_sum → add"
    assert "slerp_coefficients" in steps[1]
    assert steps[2] == "copied unchanged"
    assert document(planned(view_family, DARE, seed=7))["recipe"]["seed"] == 7
    shallow = layers_of(document(planned(view_family, passthrough(("ft1", 0, 3)))))
    assert shallow == [("A", 0), ("A", 1), ("A", 2)]


def test_numbers_that_differ_over_a_kind_are_told_as_ranges(view_family) -> None:
    found = document(planned(view_family, DARE))
    (kind,) = found["kinds"]
    (varying,) = kind["varies"]
    nodes = found["programs"][kind["program"]]["nodes"]
    assert (nodes[varying["node"]]["op"], varying["attr"]) == ("scale", "factor")
    assert (varying["low"], varying["high"]) == pytest.approx((0.4 / 0.55, 0.9 / 0.55))


def test_one_tensor_is_shown_alone(view_family) -> None:
    merge = planned(view_family, DARE)
    name = "model.layers.5.mlp.up_proj.weight"
    found = document(merge, tensor=name)
    assert found["tensor"] == name
    assert [tensor["name"] for tensor in found["tensors"]] == [name]
    assert found["tensors"][0] | {"group": 0, "program": 0} == found["tensors"][0]
    (program,) = found["programs"]
    assert nx.utils.graphs_equal(op_graph(program), op_graph_of(merge, name))
    (group,) = found["groups"]
    assert [(source["model"], source["layers"]) for source in group["from"]] == [("A", "5"), ("B", "5"), ("C", "5")]
    with pytest.raises(KeyError):
        document(merge, tensor="model.layers.99.mlp.up_proj.weight")


def test_a_tensor_that_equals_another_is_made_once(view_family) -> None:
    found = expanded(planned(view_family, EXPANSION))
    again = [tensor for tensor in found["tensors"] if tensor["same_as"] is not None]
    assert again
    names = {tensor["name"]: tensor for tensor in found["tensors"]}
    for tensor in again:
        first = names[tensor["same_as"]]
        assert (tensor["reads"], tensor["program"]) == (first["reads"], first["program"])
        assert (tensor["shard"], tensor["offset_bytes"]) != (first["shard"], first["offset_bytes"])
    one = document(planned(view_family, EXPANSION), tensor=again[0]["name"])
    assert one["tensors"][0]["same_as"] == again[0]["same_as"]


# ------------------------------------------------------------------------------------------------- the page of it


def keys(value: object, inside: str = "") -> set[str]:
    """Every field of a document; what an op is told is the op's own business."""
    if isinstance(value, list):
        return {key for each in value for key in keys(each)}
    if not isinstance(value, dict) or inside == "attrs":
        return set()
    return set(value) | {found for key, each in value.items() for found in keys(each, key)}


def test_the_docs_name_every_field(merge) -> None:
    page = DOCS.read_text(encoding="utf-8")
    assert {key for key in keys(expanded(merge)) if f"`{key}`" not in page} == set()
    known = keys(expanded(merge)) | {"low", "high", "node", "attr"}
    told = {name for line in page.splitlines() if line.startswith("| `") for name in FIELD.findall(line.split("|")[1])}
    assert told - known == set()


def test_the_graph_is_built_by_the_lines_in_the_docs(view_family, tmp_path, monkeypatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    merge = planned(view_family, DARE)
    merge.write_graph(tmp_path / "merge.json", expand=True)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(compile(code, str(DOCS), "exec"), found)
    assert set(found["tensors"].edges) == set(merge.graph.edges)
    assert dict(found["tensors"].nodes(data="kind")) == dict(merge.graph.nodes(data="kind"))
    assert list(found["made"].nodes(data="op")) == list(
        op_graph_of(merge, "model.embed_tokens.weight").nodes(data="op")
    )
