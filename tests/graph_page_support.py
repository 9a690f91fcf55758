"""The page of a small plan's graph, and words for what is in it, for the tests of what it shows and how it works."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import plait
from checkpoints import Shape, write_family
from merge_support import write_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from plait.merge import MergePlan

TENSOR = "model.layers.2.mlp.down_proj.weight"

FOCUSED = "() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.id"

RECIPE = """
    merge_method: ties
    base_model: base
    models:
      - {model: ft1, parameters: {weight: 0.25, density: 0.5}}
      - {model: ft2, parameters: {weight: 0.5, density: 0.5}}
    dtype: bfloat16
    """


class TiesPage(NamedTuple):
    """A folder with models and ties.html, and the plan that this is the page of."""

    folder: Path
    merge: MergePlan

    @property
    def path(self) -> Path:
        return self.folder / "ties.html"


def write_ties_page(folder: Path) -> TiesPage:
    write_family(folder, Shape(64, 176, 4, 4, 2, 512), finetunes=2)
    return TiesPage(folder, planned(folder, "ties", RECIPE))


def planned(folder: Path, name: str, recipe: str) -> MergePlan:
    """A plan, with its page as NAME.html beside the recipe."""
    found = plait.plan(write_recipe(folder / f"{name}.yml", recipe))
    found.write_graph(folder / f"{name}.html")
    return found


def node(page: Any, label: str) -> Any:
    """The box whose accessible name begins with the label."""
    return page.get_by_role("treeitem", name=re.compile("^" + re.escape(label)))


def labels(page: Any) -> list[str]:
    """The boxes that can be seen, by what a screen reader calls them."""
    found = page.get_by_role("treeitem").evaluate_all("nodes => nodes.map(node => node.getAttribute('aria-label'))")
    return [label.partition(",")[0] for label in found]


def facts(page: Any) -> dict[str, str]:
    """The names and values in the details, blanks made plain."""
    pairs = page.locator("#panel .facts").first.evaluate(
        "list => [...list.children].map(each => each.textContent.replace(/\\s/g, ' '))"
    )
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def find(page: Any, words: str) -> None:
    page.keyboard.press("/")
    page.keyboard.type(words)
    page.keyboard.press("Enter")


def spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")
