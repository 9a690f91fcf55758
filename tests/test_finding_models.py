"""Where a model that a recipe names is looked for, and what is said where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from plait.engine.errors import InputError
from plait.loaders.checkpoint import locate

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A recipe's folder, the working directory and a home, each with models."""
    found = {name: tmp_path / name for name in ("recipes", "work", "home")}
    for name, place in found.items():
        (place / "both").mkdir(parents=True)
        (place / f"only_{name}").mkdir()
    monkeypatch.chdir(found["work"])
    monkeypatch.setenv("HOME", str(found["home"]))
    monkeypatch.setenv("USERPROFILE", str(found["home"]))
    return found


def test_where_a_recipe_finds_its_models(places: dict[str, Path]) -> None:
    recipes, work, home = places.values()

    def find(text: str, **maps: str) -> Path:
        return locate(text, recipe_folder=recipes, maps=maps).resolve()

    assert find("both") == recipes / "both"
    assert find("./only_recipes") == recipes / "only_recipes"
    assert find("only_work") == work / "only_work"
    assert find("../home/only_home") == home / "only_home"
    assert find(str(work / "both")) == work / "both"
    assert find("~/only_home") == home / "only_home"
    assert find("both", both="only_work") == work / "only_work"
    assert find("both", both="~/both") == home / "both"
    assert find("both", bot="only_work") == recipes / "both"
    (recipes / "only_work").write_text("a file is no model")
    assert find("only_work") == work / "only_work"
    (recipes / "org" / "name").mkdir(parents=True)
    assert find("org\\name") == recipes / "org" / "name"


def test_a_folder_is_named_without_detours(places: dict[str, Path]) -> None:
    recipes, _, home = places.values()
    assert str(locate("../home/only_home", recipe_folder=recipes, maps={})) == str(home / "only_home")
    try:
        (recipes / "linked").symlink_to(home / "both", target_is_directory=True)
    except OSError:
        pytest.skip("links are not allowed here")
    # Above a link is another folder than the path without it says.
    assert locate("linked/../only_home", recipe_folder=recipes, maps={}).samefile(home / "only_home")


def test_where_no_model_can_be_mapped_none_is_advised(places: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="not downloaded yet: name the folder of a local copy") as caught:
        locate("org/Model-7B", recipe_folder=places["work"], maps=None)
    assert "--map" not in str(caught.value)


def test_a_model_that_is_nowhere(places: dict[str, Path]) -> None:
    recipes, work, _ = places.values()

    def problem(text: str, **maps: str) -> str:
        with pytest.raises(InputError) as caught:
            locate(text, recipe_folder=recipes, maps=maps)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    message = problem("only_wrk")
    assert f"model only_wrk: not found (looked at {recipes / 'only_wrk'}, {work / 'only_wrk'})" in message
    assert "did you mean only_work?" in message
    assert "Hub" not in message
    for reference in ("org/Model-7B", "org/Model-7B@main"):
        message = problem(reference)
        assert "Hub id" in message
        assert f"--map {reference}=PATH" in message
    assert "did you mean" not in problem("quite/unlike")
    message = problem("../home/only_hme")
    assert "did you mean ../home/only_home?" in message
    assert str(places["home"] / "only_hme") in message
    assert ".." not in message.split("(")[1].split(")")[0]
    (work / "models").mkdir()
    assert "Hub" not in problem("models/Model-7B")
    assert "Hub" not in problem("./a/b")
    assert "--map both=absent: absent does not exist" in problem("both", both="absent")
    assert "~nobody" in problem("~nobody_at_all/x")
