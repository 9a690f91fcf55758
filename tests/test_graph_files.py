"""Graphs as files: each format is what its own tools read, and nothing that others named can break it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from itertools import combinations
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
import torch
from checkpoints import Shape, write_family
from graph_support import DARE, EXPANSION, LAYERS, PATTERN, RECIPES, planned, without_measured
from merge_support import save_model, tensors_of
from plait.cli import main
from plait.engine.errors import OutputError, UsageError
from plait.views.graph_document import document
from plait.views.graph_ops import op_picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import plait

PICTURES = ("dot", "mmd", "svg")
FORMATS = (*PICTURES, "json", "html")
SVG = "{http://www.w3.org/2000/svg}"
NAME = "model.layers.5.mlp.up_proj.weight"
HOSTILE = (
    '<script>alert("x")</script>',
    "]]> --> </svg> <!-- &amp; &#x41; %%{init: {}}%%",
    'quo"te\\" \\N \\l "]; evil [label="x',
    "`end`;subgraph x; click a call b() #quot; #35; |pipe| {curly}",
    "evil\u202e\u2028\u00adname",
    "层的权重",
    "n" * 1000,
)


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    write_family(folder, Shape(64, 176, LAYERS, 4, 2, 512))
    return folder


@pytest.fixture
def say(family, monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Run a command line beside the models; its exit code and what it says on standard error."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.chdir(family)
        monkeypatch.setattr(sys, "argv", ["plait", *map(str, arguments)])
        try:
            main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 0
        else:
            code = 0
        return code, capsys.readouterr().err

    return run


def written(merge: plait.MergePlan, path: Path, **options) -> str:
    merge.write_graph(path, **options)
    return path.read_text(encoding="utf-8")


def words_of(picture: str) -> str:
    """All text of an SVG."""
    return " ".join(
        text for element in ElementTree.fromstring(picture).iter() for text in (element.text or "",) if text
    )


# ------------------------------------------------------------------------------------------------- the formats


@pytest.mark.parametrize("recipe", RECIPES)
def test_json_is_the_document(family, tmp_path, recipe) -> None:
    merge = planned(family, RECIPES[recipe])
    for options in ({}, {"expand": True}, {"tensor": NAME}):
        text = written(merge, tmp_path / "graph.json", **options)
        assert json.loads(text) == json.loads(json.dumps(document(merge, **options)))
        assert max(map(len, text.splitlines())) < 4000
        assert len(text.splitlines()) > 40


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_picture_has_every_model_every_group_and_the_steps(family, tmp_path, recipe) -> None:
    merge = planned(family, RECIPES[recipe])
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


def test_strands_show_who_gives_what(family, tmp_path) -> None:
    def drawn(recipe: str) -> list[str]:
        return strands(written(planned(family, recipe), tmp_path / "graph.svg"))

    assert drawn(DARE) == [f"model{number}-edge" for number in range(3)]
    assert drawn(RECIPES["frankenmerge"]) == [f"model{number}-edge" for number in range(3)]
    assert drawn(EXPANSION) == ["model0-edge"] * 2
    assert drawn(PATTERN) == ["model0-edge"] * 8
    # One layer four times over: as many beads.
    assert "stroke-dasharray" in written(planned(family, EXPANSION), tmp_path / "graph.svg")


@pytest.mark.parametrize("recipe", RECIPES)
def test_boxes_of_an_op_graph_lie_beside_each_other(family, recipe) -> None:
    found = document(planned(family, RECIPES[recipe]), expand=True)
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
def test_graphviz_draws_it(family, tmp_path, recipe, options) -> None:
    merge = planned(family, RECIPES[recipe])
    text = written(merge, tmp_path / "graph.dot", **options)
    assert graphviz(text).count('class="cluster"') == text.count("subgraph cluster_")


def graphviz(text: str) -> str:
    """What Graphviz makes of it, laid out by its fastest engine that knows clusters."""
    ran = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, check=False, encoding="utf-8", timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    ElementTree.fromstring(ran.stdout)
    return ran.stdout


@pytest.mark.parametrize("recipe", RECIPES)
def test_dot_has_models_groups_and_layers(family, tmp_path, recipe) -> None:
    merge = planned(family, RECIPES[recipe])
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
def test_mermaid_has_what_dot_has(family, tmp_path, recipe) -> None:
    merge = planned(family, RECIPES[recipe])
    for options in ({}, {"tensor": NAME}):
        lines = check_mermaid(written(merge, tmp_path / "graph.mmd", **options))
        dot = written(merge, tmp_path / "graph.dot", **options)
        assert sum(" -->" in line for line in lines) == dot.count(" -> ")
        assert sum("subgraph" in line for line in lines) == dot.count("subgraph cluster_")


def test_everything_unfolded_has_every_tensor(family, tmp_path) -> None:
    merge = planned(family, EXPANSION)
    names = [tensor.name for tensor in merge.compiled.mapping.tensors]
    for suffix in PICTURES:
        folded = written(merge, tmp_path / f"graph.{suffix}")
        unfolded = written(merge, tmp_path / f"graph.{suffix}", expand=True)
        assert [name for name in names if name not in unfolded] == []
        assert [name for name in names if name not in folded] != []


def test_one_tensor_has_its_own_numbers(family, tmp_path) -> None:
    merge = planned(family, DARE)
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


# --------------------------------------------------------------------------------------------- places and options


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_plan_gives_the_same_bytes_wherever_the_models_are(tmp_path, suffix) -> None:
    found = []
    for place in ("one", "another/place"):
        write_family(tmp_path / place, Shape(64, 176, 3, 4, 2, 512), finetunes=2)
        merge = without_measured(planned(tmp_path / place, DARE))
        merge.write_graph(tmp_path / f"graph.{suffix}")
        found.append((tmp_path / f"graph.{suffix}").read_bytes())
    assert found[0] == found[1]
    assert str(tmp_path).encode() not in found[0]


def test_a_run_and_a_dry_run_write_the_same_graphs(family, tmp_path, say) -> None:
    planned(family, DARE)
    options = [word for suffix in FORMATS for word in ("--graph", tmp_path / f"graph.{suffix}")]
    assert say("run", "recipe.yml", "--dry-run", "--json", *options) == (0, "")
    dry = {suffix: (tmp_path / f"graph.{suffix}").read_text(encoding="utf-8") for suffix in FORMATS}
    assert say("run", "recipe.yml", tmp_path / "out", "--json", "-q", *options) == (0, "")
    assert len(tensors_of(tmp_path / "out")) == json.loads(dry["json"])["totals"]["tensors"]
    wet = json.loads((tmp_path / "graph.json").read_text(encoding="utf-8"))
    for name in ("groups", "kinds", "models", "recipe", "shards"):
        assert wet[name] == json.loads(dry["json"])[name]
    assert (tmp_path / "graph.dot").read_text(encoding="utf-8") == dry["dot"]
    assert not list(tmp_path.glob("*.tmp"))


def test_capital_letters_are_a_suffix_too(family, tmp_path) -> None:
    assert json.loads(written(planned(family, DARE), tmp_path / "GRAPH.JSON"))["format"] == "plait-graph"


@pytest.mark.parametrize("name", ["graph.png", "graph", "graph.json.gz", ".svg"])
def test_an_unknown_suffix_names_the_five(family, tmp_path, say, name) -> None:
    planned(family, DARE)
    code, said = say("run", "recipe.yml", tmp_path / "out", "--graph", tmp_path / name)
    assert code == 2
    assert all(f".{suffix}" in said for suffix in FORMATS)
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_graph_goes_nowhere_near_models(family, tmp_path, say) -> None:
    planned(family, DARE)
    (tmp_path / "out").mkdir()
    places = {
        family / "base" / "graph.svg": "only read",
        tmp_path / "out" / "graph.svg": "where the model goes",
        tmp_path / "missing" / "graph.svg": "there is no folder",
    }
    for place, words in places.items():
        code, said = say("run", "recipe.yml", tmp_path / "out", "--graph", place)
        assert code == 2
        assert words in said
        assert not place.exists()
    assert list((tmp_path / "out").iterdir()) == []
    code, said = say("run", "recipe.yml", tmp_path / "new.svg", "--graph", tmp_path / "new.svg")
    assert code == 2
    assert "where the model goes" in said
    assert not (tmp_path / "new.svg").exists()
    (family / "recipe.json").write_text((family / "recipe.yml").read_text())
    code, said = say("run", "recipe.json", "--dry-run", "--graph", "recipe.json")
    assert code == 2
    assert "is the recipe" in said
    assert "merge_method" in (family / "recipe.json").read_text()


def test_a_place_that_cannot_be_written_is_said_before_the_run(family, tmp_path, say) -> None:
    planned(family, DARE)
    code, said = say("run", "recipe.yml", tmp_path / "out", "--graph", tmp_path / f"{'g' * 300}.svg")
    assert code in (2, 4)  # as the system finds it: when asked for what is there, or when writing
    assert said.count("\n") == 1
    assert "cannot be" in said
    assert not (tmp_path / "out").exists()
    (tmp_path / "graph.svg.tmp").mkdir()  # in the way of the file that is renamed
    with pytest.raises(OutputError):
        planned(family, DARE).write_graph(tmp_path / "graph.svg")


def test_a_file_that_is_there_is_replaced_as_a_whole(family, tmp_path) -> None:
    path = tmp_path / "graph.svg"
    path.write_text("x" * 1_000_000)
    ElementTree.fromstring(written(planned(family, DARE), path))


def test_too_much_for_a_picture_is_refused(family, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("plait.views.graph_files.MOST_NODES", 500)
    merge = planned(family, DARE)
    for suffix in PICTURES:
        with pytest.raises(UsageError) as refused:
            merge.write_graph(tmp_path / f"graph.{suffix}", expand=True)
        # 17 ops for each of nine tensors a layer and three outside.
        assert "1 887 ops" in str(refused.value)
        assert "--tensor NAME" in str(refused.value)
        merge.write_graph(tmp_path / f"graph.{suffix}")
        merge.write_graph(tmp_path / f"graph.{suffix}", expand=True, tensor=NAME)
    merge.write_graph(tmp_path / "graph.json", expand=True)


def test_mermaid_is_not_given_more_than_it_takes(family, tmp_path, monkeypatch) -> None:
    merge = planned(family, DARE)
    whole = written(merge, tmp_path / "graph.mmd")
    assert "agree_sum<br/>" in whole
    with pytest.raises(UsageError, match="500 arrows"):  # over two thousand of them
        merge.write_graph(tmp_path / "graph.mmd", expand=True)
    monkeypatch.setattr("plait.views.graph_mermaid.MOST_ARROWS", 20)
    smaller = written(merge, tmp_path / "graph.mmd")
    assert smaller.count(" -->") == 12 < whole.count(" -->")
    assert "agree_sum<br/>" not in smaller
    monkeypatch.setattr("plait.views.graph_mermaid.MOST_LETTERS", 100)
    with pytest.raises(UsageError, match="too much for Mermaid"):
        merge.write_graph(tmp_path / "graph.mmd")


def test_options_that_would_do_nothing_and_names_that_are_not_there(family, tmp_path, say) -> None:
    planned(family, DARE)
    for option in (("--expand",), ("--tensor", NAME)):
        code, said = say("run", "recipe.yml", tmp_path / "out", *option)
        assert code == 2
        assert "--graph FILE" in said
    code, said = say("run", "recipe.yml", "--dry-run", "--graph", tmp_path / "g.svg", "--tensor", NAME[:-1])
    assert code == 2
    assert f"did you mean {NAME!r}" in said
    assert not (tmp_path / "g.svg").exists()
    with pytest.raises(UsageError, match="did you mean"):
        planned(family, DARE).write_graph(tmp_path / "g.svg", tensor=NAME[:-1])
