"""The model card: front matter that the Hub takes, and nothing that depends on where the output went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plait
import pytest
import yaml
from checkpoints import write_family

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """\
models:
  - model: {first}
    parameters: {{weight: 0.5}}
  - model: {second}
    parameters: {{weight: 0.5}}
merge_method: linear
dtype: bfloat16
"""


def card(folder: Path, first: str, second: str, maps: dict[str, str] | None = None, out: str = "out") -> str:
    recipe = folder / "recipe.yml"
    recipe.write_text(RECIPE.format(first=first, second=second))
    plait.plan(recipe, maps=maps).run(folder / out)
    return (folder / out / "README.md").read_text()


def front_matter(text: str) -> dict[str, Any]:
    front = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(front, dict)
    return front


@pytest.fixture
def family(tmp_path: Path) -> Path:
    write_family(tmp_path, "tiny", finetunes=1)
    return tmp_path


def test_hub_ids_are_base_models_and_folders_are_not(family: Path) -> None:
    text = card(family, "some/model", "./ft1", {"some/model": str(family / "base")})
    assert front_matter(text)["base_model"] == ["some/model"]
    assert "`./ft1`" in text


def test_folders_alone_give_no_base_model(family: Path) -> None:
    assert "base_model" not in front_matter(card(family, "base", "ft1"))


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [(("apache-2.0", "apache-2.0"), "apache-2.0"), (("apache-2.0", "mit"), None), (("apache-2.0", None), None)],
)
def test_a_license_is_named_where_all_inputs_agree(
    family: Path, licenses: tuple[str | None, str | None], expected: str | None
) -> None:
    for name, license_name in zip(("base", "ft1"), licenses, strict=True):
        if license_name is not None:
            (family / name / "README.md").write_text(f"---\nlicense: {license_name}\n---\n# {name}\n")
    assert front_matter(card(family, "base", "ft1")).get("license") == expected


@pytest.mark.parametrize("broken", ["---\nlicense: [mit\n---\n", "---\nlicense: mit\n", "---\n- a\n---\n", "\udcff"])
def test_a_card_that_cannot_be_read_says_nothing(family: Path, broken: str) -> None:
    for name in ("base", "ft1"):
        (family / name / "README.md").write_bytes(broken.encode("utf-8", "surrogateescape"))
    assert "license" not in front_matter(card(family, "base", "ft1"))


def test_the_card_is_the_same_wherever_the_inputs_are(family: Path) -> None:
    (family / "models").mkdir()
    (family / "models" / "first").symlink_to(family / "base", target_is_directory=True)
    found = card(family, "models/first", "./ft1", out="found")
    assert card(family, "models/first", "./ft1", {"models/first": str(family / "base")}, out="mapped") == found


def test_the_card_is_the_same_wherever_the_output_goes(family: Path) -> None:
    assert card(family, "base", "ft1", out="here") == card(family, "base", "ft1", out="there")
