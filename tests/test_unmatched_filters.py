"""A filter that matches no tensor is warned about, where it stands; --strict makes it an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plait
import pytest
from checkpoints import write_family
from plait.engine.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """\
slices:
  - sources:
      - model: base
        layer_range: [0, 2]
        parameters:
          scale:
            - filter: mpl
              value: 0.5
            - filter: o_proj
              value: 0.5
            - value: 1.0
merge_method: passthrough
dtype: bfloat16
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_family(tmp_path, "tiny", finetunes=0)
    path = tmp_path / "recipe.yml"
    path.write_text(RECIPE)
    return path


def test_the_warning_names_place_parameter_and_filter(recipe: Path) -> None:
    warnings = [warning for warning in plait.plan(recipe).warnings if "filter" in warning]
    line = RECIPE.splitlines().index("          scale:") + 1
    assert warnings == [f"{recipe}:{line}:11: scale: the filter 'mpl' matches no tensor"]


def test_strict_refuses(recipe: Path) -> None:
    with pytest.raises(RecipeError, match="the filter 'mpl' matches no tensor"):
        plait.plan(recipe, strict=True)


def test_a_filter_that_matches_is_silent(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("mpl", "mlp"))
    assert not [warning for warning in plait.plan(recipe, strict=True).warnings if "filter" in warning]
