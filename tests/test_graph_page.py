"""The page of a plan's graph, in a real browser: what it shows is the plan."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from browser_support import opened
from checkpoints import write_family
from graph_page_support import FOCUSED, RECIPE, TENSOR, facts, find, labels, node, planned, spaced
from merge_support import save_model
from plait.views.graph_document import document
from plait.views.page_parts import asset

if TYPE_CHECKING:
    from pathlib import Path

    from graph_page_support import TiesPage


def test_the_page_has_every_number_of_the_document(browser: Any, ties_page: TiesPage) -> None:
    whole: Any = document(ties_page.merge, expand=True)
    with opened(browser, ties_page.path) as page:
        shown = page.evaluate(
            """() => {
              const graph = plaitPage.graph, tensors = graph.tensors;
              return tensors.names.map((name, at) => ({
                name, program: tensors.program[at], group: tensors.group[at], shard: tensors.shard[at],
                offset_bytes: tensors.offset[at], bytes: tensors.bytes[at],
                reads: readsOf(graph, at).map((read) => (
                  { model: read.model, file: read.file, offset_bytes: read.offset, name: read.name })),
                same_as: tensors.names[tensors.sameAs.get(at)] ?? null,
              }));
            }"""
        )
        rest = page.evaluate("() => ({ ...plaitPage.graph, tensors: null, timeline: null, models: null })")
        done = page.evaluate("() => [...plaitPage.graph.timeline.done]")
    assert shown == whole["tensors"]
    assert done == [row[-1] for row in whole["timeline"]]
    for key in ("recipe", "totals", "kinds", "groups", "shards", "devices", "warnings"):
        assert rest[key] == whole[key], key


def test_it_opens_folded_models_left_shards_right(browser: Any, ties_page: TiesPage) -> None:
    with opened(browser, ties_page.path) as page:
        assert labels(page) == [
            "Model A: base",
            "Model B: ft1",
            "Model C: ft2",
            "model.embed_tokens.weight",
            "model.layers.0–3",
            "model.norm.weight",
            "lm_head.weight",
            "Shard model.safetensors",
        ]
        left, middle, right = (
            node(page, label).bounding_box() for label in ("Model A", "model.layers.0–3", "Shard model.safetensors")
        )
        assert left["x"] + left["width"] < middle["x"]
        assert middle["x"] + middle["width"] < right["x"]
        assert page.locator("#edges .flow").count() == 3 * 4 + 4
        assert page.locator("body.loading").count() == 0


def test_a_click_shows_details_with_the_plans_numbers(browser: Any, ties_page: TiesPage) -> None:
    island = ties_page.merge.plan.island_of(TENSOR)
    program = ties_page.merge.plan.programs[island.program]
    (shard,) = ties_page.merge.shards
    with opened(browser, ties_page.path) as page:
        node(page, "model.layers.0–3").locator(".fold").click()
        node(page, "layer 2").locator(".fold").click()
        node(page, "mlp.down_proj.weight").click()
        assert page.locator("#panel-title").inner_text() == TENSOR
        shown = facts(page)
        assert shown["shape"] == " × ".join(map(str, island.spec.shape))
        assert shown["dtype"] == "bfloat16"
        assert shown["space"] == "weight"
        assert shown["written"].endswith(f" {spaced(island.spec.size_bytes)} B")
        assert shown["into"] == shard.file_name
        assert shown["at offset"] == spaced(shard.offsets_bytes[TENSOR])
        assert shown["read"].endswith(f" {spaced(program.bytes_read)} B")
        assert shown["arena"].endswith(f" {spaced(program.arena_bytes)} B")
        assert shown["device"] == "cpu"
        sources = [re.sub(r"\s", " ", text) for text in page.locator("#panel .files li").all_text_contents()]
        assert len(sources) == len(island.leaves)
        for text, leaf in zip(sources, island.leaves, strict=True):
            assert f"offset {spaced(leaf.offset_bytes)}" in text
            assert f"{spaced(leaf.spec.size_bytes)} B" in text
        heading = page.get_by_role("heading", name=f"{len(program.passes)} passes")
        assert heading.count() == 1

        # Its op graph, and one op of it.
        node(page, "mlp.down_proj.weight").locator(".fold").click()
        assert page.locator(".node.op").first.get_attribute("aria-setsize") == str(len(program.program.nodes))
        factor = program.program.nodes[[each.op.name for each in program.program.nodes].index("scale")].attr("factor")
        while not page.evaluate(FOCUSED).startswith("scale"):
            page.keyboard.press("ArrowDown")
        page.locator(".node:focus").click()
        assert float(facts(page)["factor"]) == factor


def test_another_recipe_is_another_picture(browser: Any, ties_page: TiesPage) -> None:
    planned(
        ties_page.folder,
        "stacked",
        """
        slices:
          - sources: [{model: ft1, layer_range: [0, 3]}]
          - sources: [{model: ft2, layer_range: [1, 4]}]
        merge_method: passthrough
        dtype: float32
        """,
    )
    with opened(browser, ties_page.folder / "stacked.html") as page:
        assert {"Model A: ft1", "Model B: ft2", "model.layers.0–2", "model.layers.3–5"} <= set(labels(page))
        assert page.locator("#method").inner_text() == "passthrough"
        find(page, "layers.4 q_proj")
        assert facts(page)["dtype"] == "float32"
        assert "model.layers.2.self_attn.q_proj.weight" in page.locator("#panel .files").inner_text()
    planned(ties_page.folder, "other", RECIPE.replace("0.25", "0.375"))
    with opened(browser, ties_page.folder / "other.html") as page:
        parameters = page.evaluate("() => plaitPage.graph.programs[0].nodes.map(node => node.attrs.factor)")
        before = {0.25, 0.375} & set(parameters)
        assert before == {0.375}


def test_equal_tensors_know_each_other(browser: Any, ties_page: TiesPage) -> None:
    planned(
        ties_page.folder,
        "twice",
        """
        slices:
          - sources: [{model: ft1, layer_range: [0, 4]}]
          - sources: [{model: ft1, layer_range: [3, 4]}]
        merge_method: passthrough
        """,
    )
    with opened(browser, ties_page.folder / "twice.html") as page:
        find(page, "layers.4 q_proj")
        page.get_by_role("button", name="model.layers.3.self_attn.q_proj.weight").click()
        assert page.locator("#panel-title").inner_text() == "model.layers.3.self_attn.q_proj.weight"
        assert page.locator("#spans .span").count() == 1


def test_many_tensors_of_a_layer_are_folded_by_their_names(browser: Any, tmp_path: Path) -> None:
    tensors = {
        f"model.layers.{layer}.mlp.experts.{expert}.{kind}.weight": torch.zeros(2, 2)
        for layer in range(2)
        for expert in range(40)
        for kind in ("up_proj", "down_proj")
    }
    save_model(tmp_path / "moe", {"embed.weight": torch.zeros(4, 2), **tensors}, {})
    planned(tmp_path, "moe", "merge_method: passthrough\nmodels: [moe]\n")
    with opened(browser, tmp_path / "moe.html") as page:
        node(page, "model.layers.0–1").locator(".fold").click()
        node(page, "layer 1").locator(".fold").click()
        assert {"mlp.experts.0–39.up_proj.weight", "mlp.experts.0–39.down_proj.weight"} <= set(labels(page))
        node(page, "mlp.experts.0–39.up_proj.weight").locator(".fold").click()
        # What is far below is not in the page until somebody goes there.
        assert "mlp.experts.39.up_proj.weight" not in labels(page)
        find(page, "layers.1 experts.39. up")
        assert "mlp.experts.39.up_proj.weight" in labels(page)


def test_names_are_text_whatever_they_say(browser: Any, tmp_path: Path) -> None:
    evil = [
        "<img src=x onerror=\"document.title='owned'\">",
        "</script><script>document.title='owned'</script>",
        "'\"><b id=owned>",
        "__proto__",
    ]
    save_model(tmp_path / "<i>m", {name: torch.zeros(2, 2) for name in evil}, {})
    planned(tmp_path, "evil", "# </script><b id=owned>\nmerge_method: passthrough\nmodels: ['<i>m']\n")
    with opened(browser, tmp_path / "evil.html") as page:
        title = page.title()
        for name in evil:
            find(page, name)
            assert page.locator("#panel-title").inner_text() == name
            page.keyboard.press("Escape")
        page.locator("#overview").click()
        page.get_by_text("Recipe", exact=True).click()
        assert "</script><b id=owned>" in page.locator("#panel pre").inner_text()
        assert page.locator("#owned, main img, main i, #panel script").count() == 0
        assert page.title() == title


def test_the_page_is_one_file_with_its_licence(ties_page: TiesPage) -> None:
    text = (ties_page.path).read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert asset("dagre.LICENSE.txt").strip() in text
    assert not re.search(r"<(?:link|img|iframe|object|embed)\b|\ssrc=|@import|url\((?!#)|sourceMappingURL", text)


@pytest.mark.slow
def test_ninety_two_thousand_tensors_open_in_five_seconds(browser: Any, tmp_path: Path) -> None:
    write_family(tmp_path, "moe671b", finetunes=2)
    planned(tmp_path, "huge", RECIPE.replace("ties", "dare_ties"))
    assert (tmp_path / "huge.html").stat().st_size < 5_000_000
    with opened(browser, tmp_path / "huge.html") as page:
        assert page.evaluate("() => performance.now()") < 5000
        find(page, "layers.40 experts.200 up_proj weight")
        assert page.locator("#panel-title").inner_text() == "model.layers.40.mlp.experts.200.up_proj.weight"
        assert page.get_by_role("treeitem").count() < 200
