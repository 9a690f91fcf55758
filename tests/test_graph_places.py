"""Graphs from the command line: where they may go, when they are written, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from checkpoints import Shape, write_family
from graph_support import DARE, FORMATS, NAME, PICTURES, planned, without_measured, written
from merge_support import tensors_of
from plait.engine.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def say(view_family, say) -> Callable[..., tuple[int, str]]:
    """Runs a command line beside the models; its exit code and what it says on standard error."""

    def run(*arguments: object) -> tuple[int, str]:
        said = say(*arguments, cwd=view_family)
        return said.code, said.err

    return run


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


def test_a_run_and_a_dry_run_write_the_same_graphs(view_family, tmp_path, say) -> None:
    planned(view_family, DARE)
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


def test_capital_letters_are_a_suffix_too(view_family, tmp_path) -> None:
    assert json.loads(written(planned(view_family, DARE), tmp_path / "GRAPH.JSON"))["format"] == "plait-graph"


@pytest.mark.parametrize("name", ["graph.png", "graph", "graph.json.gz", ".svg"])
def test_an_unknown_suffix_names_the_five(view_family, tmp_path, say, name) -> None:
    planned(view_family, DARE)
    code, said = say("run", "recipe.yml", tmp_path / "out", "--graph", tmp_path / name)
    assert code == 2
    assert all(f".{suffix}" in said for suffix in FORMATS)
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_graph_goes_nowhere_near_models(view_family, tmp_path, say) -> None:
    planned(view_family, DARE)
    (tmp_path / "out").mkdir()
    places = {
        view_family / "base" / "graph.svg": "only read",
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
    (view_family / "recipe.json").write_text((view_family / "recipe.yml").read_text())
    code, said = say("run", "recipe.json", "--dry-run", "--graph", "recipe.json")
    assert code == 2
    assert "is the recipe" in said
    assert "merge_method" in (view_family / "recipe.json").read_text()


def test_a_place_that_cannot_be_written_is_said_before_the_run(view_family, tmp_path, say) -> None:
    planned(view_family, DARE)
    code, said = say("run", "recipe.yml", tmp_path / "out", "--graph", tmp_path / f"{'g' * 300}.svg")
    assert code in (2, 4)  # as the system finds it: when asked for what is there, or when writing
    assert said.count("\n") == 1
    assert "cannot be" in said
    assert not (tmp_path / "out").exists()
    (tmp_path / "graph.svg.tmp").mkdir()  # in the way of the file that is renamed
    with pytest.raises(OutputError):
        planned(view_family, DARE).write_graph(tmp_path / "graph.svg")


def test_a_file_that_is_there_is_replaced_as_a_whole(view_family, tmp_path) -> None:
    path = tmp_path / "graph.svg"
    path.write_text("x" * 1_000_000)
    ElementTree.fromstring(written(planned(view_family, DARE), path))


def test_too_much_for_a_picture_is_refused(view_family, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("plait.views.graph_files.MOST_NODES", 500)
    merge = planned(view_family, DARE)
    for suffix in PICTURES:
        with pytest.raises(UsageError) as refused:
            merge.write_graph(tmp_path / f"graph.{suffix}", expand=True)
        # 17 ops for each of nine tensors a layer and three outside.
        assert "1 887 ops" in str(refused.value)
        assert "--tensor NAME" in str(refused.value)
        merge.write_graph(tmp_path / f"graph.{suffix}")
        merge.write_graph(tmp_path / f"graph.{suffix}", expand=True, tensor=NAME)
    merge.write_graph(tmp_path / "graph.json", expand=True)


def test_mermaid_is_not_given_more_than_it_takes(view_family, tmp_path, monkeypatch) -> None:
    merge = planned(view_family, DARE)
    whole = written(merge, tmp_path / "graph.mmd")
    assert "agree_sum<br/>" in whole
    with pytest.raises(UsageError, match="500 arrows"):  # over two thousand of them
        merge.write_graph(tmp_path / "graph.mmd", expand=True)
    monkeypatch.setattr("plait.views.graph_mermaid.MOST_ARROWS", 20)
    smaller = written(merge, tmp_path / "graph.mmd")
    assert smaller.count(" -->") == 12 < whole.count(" -->")
    assert "agree_sum<br/>" not in smaller
    monkeypatch.setattr("plait.views.graph_mermaid.MOST_LETTERS", 100)
    with pytest.raises(UsageError, match=r"graph\.mmd: this is too much for Mermaid"):
        merge.write_graph(tmp_path / "graph.mmd")


def test_options_that_would_do_nothing_and_names_that_are_not_there(view_family, tmp_path, say) -> None:
    planned(view_family, DARE)
    for option in (("--expand",), ("--tensor", NAME)):
        code, said = say("run", "recipe.yml", tmp_path / "out", *option)
        assert code == 2
        assert "--graph FILE" in said
    code, said = say("run", "recipe.yml", "--dry-run", "--graph", tmp_path / "g.svg", "--tensor", NAME[:-1])
    assert code == 2
    assert f"did you mean {NAME!r}" in said
    assert not (tmp_path / "g.svg").exists()
    with pytest.raises(UsageError, match="did you mean"):
        planned(view_family, DARE).write_graph(tmp_path / "g.svg", tensor=NAME[:-1])
