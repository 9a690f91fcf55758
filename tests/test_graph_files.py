"""Graphs as files: each format is what its own tools read, and nothing that others named can break it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
import torch
from graph_support import DARE, EXPANSION, NAME, PATTERN, PICTURES, RECIPES, planned, written
from merge_support import save_model
from plait.views.graph_document import document
from plait.views.graph_ops import op_picture

if TYPE_CHECKING:
    import plait

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    '<script>alert("x")</script>',
    "]]> --> </svg> <!-- &amp; &#x41; %%{init: {}}%%",
    'quo"te\\" \\N \\l "]; evil [label="x',
    "`end`;subgraph x; click a call b() #quot; #35; |pipe| {curly}",
    "evil\u202e\u2028\u00adname",
    "层的权重",
    "n" * 1000,
)


def words_of(picture: str) -> str:
    """All text of an SVG."""
    return " ".join(
        text for element in ElementTree.fromstring(picture).iter() for text in (element.text or "",) if text
    )


# ------------------------------------------------------------------------------------------------- the formats


@pytest.mark.parametrize("recipe", RECIPES)
def test_json_is_the_document(view_family, tmp_path, recipe) -> None:
    merge = planned(view_family, RECIPES[recipe])
    for options in ({}, {"expand": True}, {"tensor": NAME}):
        text = written(merge, tmp_path / "graph.json", **options)
        assert json.loads(text) == json.loads(json.dumps(document(merge, **options)))
        assert max(map(len, text.splitlines())) < 4000
        assert len(text.splitlines()) > 40


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_picture_has_every_model_every_group_and_the_steps(view_family, tmp_path, recipe) -> None:
    merge = planned(view_family, RECIPES[recipe])
    found = document(merge)
    picture = written(merge, tmp_path / "graph.svg")
    root = ElementTree.fromstring(picture)
    assert root.tag == f"{SVG}svg"
    title, about = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert about is not None
    assert root.get("aria-labelledby") == f"{title.get('id')} {about.get('id')}"
    words = words_of(picture)
    for group in found["groups"]:
        if group["parent"] is None:
            assert group["title"] in words
            assert group["title"] in (about.text or "")
    for model in found["models"]:
        assert model["reference"] in words
    assert found["kinds"][0]["steps"] in words
    assert "prefers-color-scheme: dark" in picture
    assert not {"script", "image", "foreignObject", "a", "use"} & {each.tag.removeprefix(SVG) for each in root.iter()}


def strands(picture: str) -> list[str]:
    return [
        path.get("class", "").split()[1]
        for path in ElementTree.fromstring(picture).iter(f"{SVG}path")
        if path.get("class", "").startswith("strand")
    ]


def test_strands_show_who_gives_what(view_family, tmp_path) -> None:
    def drawn(recipe: str) -> list[str]:
        return strands(written(planned(view_family, recipe), tmp_path / "graph.svg"))

    assert drawn(DARE) == [f"model{number}-edge" for number in range(3)]
    assert drawn(RECIPES["frankenmerge"]) == [f"model{number}-edge" for number in range(3)]
    assert drawn(EXPANSION) == ["model0-edge"] * 2
    assert drawn(PATTERN) == ["model0-edge"] * 8
    # One layer four times over: as many beads.
    assert "stroke-dasharray" in written(planned(view_family, EXPANSION), tmp_path / "graph.svg")


@pytest.mark.parametrize("recipe", RECIPES)
def test_boxes_of_an_op_graph_lie_beside_each_other(view_family, recipe) -> None:
    found = document(planned(view_family, RECIPES[recipe]), expand=True)
    numbers = {model["mark"]: number for number, model in enumerate(found["models"])}
    kinds = {kind["program"]: kind for kind in found["kinds"]}
    for number in kinds:
        program, kind = found["programs"][number], kinds[number]
        pieces, width, height = op_picture(
            program, kind["reads"], example=kind["example"], varies=kind["varies"], numbers=numbers
        )
        picture = ElementTree.fromstring(f"<svg>{''.join(pieces)}</svg>")
        frames = [each for each in picture.iter("rect") if each.get("class", "").startswith("ground")]
        places = [tuple(float(each.get(name, "")) for name in ("x", "y", "width", "height")) for each in frames]
        for x, y, wide, high in places:
            assert min(x, y) >= 0
            assert x + wide <= width + 0.2
            assert y + high <= height + 0.2
        for (x, y, wide, high), (left, top, across, down) in combinations(places, 2):
            assert x + wide <= left or left + across <= x or y + high <= top or top + down <= y
        # Every op is in one of them.
        words = [each.text or "" for each in picture.iter("text")]
        for op in {node["op"] for node in program["nodes"]}:
            named = sum(word.split(" (")[0] == op for word in words)
            assert named == sum(node["op"] == op for node in program["nodes"])


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.parametrize(
    ("recipe", "options"),
    [("dare", {}), ("pattern", {}), ("expansion", {"expand": True}), ("ties", {"tensor": NAME})],
)
def test_graphviz_draws_it(view_family, tmp_path, recipe, options) -> None:
    merge = planned(view_family, RECIPES[recipe])
    text = written(merge, tmp_path / "graph.dot", **options)
    assert graphviz(text).count('class="cluster"') == text.count("subgraph cluster_")


def graphviz(text: str) -> str:
    """What Graphviz makes of it, laid out by its fastest engine that knows clusters."""
    ran = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, check=False, encoding="utf-8", timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    ElementTree.fromstring(ran.stdout)
    return ran.stdout


@pytest.mark.parametrize("recipe", RECIPES)
def test_dot_has_models_groups_and_layers(view_family, tmp_path, recipe) -> None:
    merge = planned(view_family, RECIPES[recipe])
    text = written(merge, tmp_path / "graph.dot")
    for group in document(merge)["groups"]:
        assert f'label="{group["title"]}' in text
        for source in group["from"]:
            assert group["times"] > 1 or not source["layers"] or f'label="{source["layers"]}"' in text
    assert 'label="A  base' in text


_LABEL = r'"[^"<>;`|{}%&]*(?:(?:<br/>|#\d+;)[^"<>;`|{}%&]*)*"'
_MERMAID_LINE = re.compile(
    rf"\s*(subgraph \w+\[{_LABEL}\]|end|direction (TB|LR)|class \w+ model\d|\w+\[{_LABEL}\](:::model\d)?"
    rf"|\w+ -->(\|{_LABEL}\|)? \w+|classDef model\d stroke:#[0-9a-f]{{6}},stroke-width:3px)"
)


def check_mermaid(text: str) -> list[str]:
    """Every line is one of the few that are written, every frame is closed; the lines behind the front matter."""
    front, found, body = text.partition("\n---\nflowchart LR\n")
    assert front.startswith("---\ntitle: ")
    assert found
    lines = body.splitlines()
    assert [line for line in lines if not _MERMAID_LINE.fullmatch(line)] == []
    words = [line.split()[0] for line in lines]
    assert words.count("subgraph") == words.count("end")
    return lines


@pytest.mark.parametrize("recipe", RECIPES)
def test_mermaid_has_what_dot_has(view_family, tmp_path, recipe) -> None:
    merge = planned(view_family, RECIPES[recipe])
    for options in ({}, {"tensor": NAME}):
        lines = check_mermaid(written(merge, tmp_path / "graph.mmd", **options))
        dot = written(merge, tmp_path / "graph.dot", **options)
        assert sum(" -->" in line for line in lines) == dot.count(" -> ")
        assert sum("subgraph" in line for line in lines) == dot.count("subgraph cluster_")


def test_everything_unfolded_has_every_tensor(view_family, tmp_path) -> None:
    merge = planned(view_family, EXPANSION)
    names = [tensor.name for tensor in merge.compiled.mapping.tensors]
    for suffix in PICTURES:
        folded = written(merge, tmp_path / f"graph.{suffix}")
        unfolded = written(merge, tmp_path / f"graph.{suffix}", expand=True)
        assert [name for name in names if name not in unfolded] == []
        assert [name for name in names if name not in folded] != []


def test_one_tensor_has_its_own_numbers(view_family, tmp_path) -> None:
    merge = planned(view_family, DARE)
    for suffix in PICTURES:
        text = written(merge, tmp_path / f"graph.{suffix}", tensor=NAME)
        assert "factor=1.14" in text  # 5/11 of the way from 0.4 to 0.9, over the density
        assert "factor=0.7273…1.636" in written(merge, tmp_path / f"graph.{suffix}")
        assert "lm_head" not in text


# ------------------------------------------------------------------------------------------- names that others chose


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> plait.MergePlan:
    folder = tmp_path_factory.mktemp("hostile")
    tensors = {name.replace("\u202e", ""): torch.zeros(4, 4) for name in HOSTILE}
    names = ["<b>&amp;\"'model", "two`;]--", "m" * 200]
    for name in names:
        save_model(folder / name, {**tensors, **{f"layers.{i}.<i>w": torch.zeros(2, 2) for i in range(3)}})
    entries = "".join(f"  - {{model: {json.dumps(name)}, parameters: {{weight: 0.5}}}}\n" for name in names)
    return planned(folder, f"merge_method: linear\nmodels:\n{entries}dtype: bfloat16\n")


@pytest.mark.parametrize(
    "options", [{}, {"expand": True}, {"tensor": HOSTILE[2]}], ids=["folded", "expanded", "tensor"]
)
def test_no_name_breaks_out_of_its_place(hostile, tmp_path, options) -> None:
    harmless = document(hostile, **options)
    assert json.loads(written(hostile, tmp_path / "graph.json", **options)) == json.loads(json.dumps(harmless))
    picture = written(hostile, tmp_path / "graph.svg", **options)
    tags = {each.tag.removeprefix(SVG) for each in ElementTree.fromstring(picture).iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "g", "text", "line", "path"}
    assert "\u2028" not in picture
    check_mermaid(written(hostile, tmp_path / "graph.mmd", **options))
    dot = written(hostile, tmp_path / "graph.dot", **options)
    quoted = re.compile(r'"(?:[^"\\]|\\.)*"')
    assert not re.search(r"evil|script|alert", quoted.sub("", dot))
    if shutil.which("dot") is not None:
        drawn = graphviz(dot)
        assert "<script" not in drawn
        if options.get("expand"):
            assert "&lt;script&gt;alert(" in drawn
