"""The page of a plan's graph, in a real browser: what it shows is the plan, and every part of it can be worked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import plait
import pytest
import torch
from browser_support import PHONE, WIDE, opened, started_browser, violations
from checkpoints import Shape, write_family
from merge_support import save_model, write_recipe
from plait.views.graph_document import document
from plait.views.page_parts import asset

if TYPE_CHECKING:
    from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started_browser() as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MergePlan]:
    folder = tmp_path_factory.mktemp("family")
    write_family(folder, Shape(64, 176, 4, 4, 2, 512), finetunes=2)
    return folder, planned(folder, "ties", RECIPE)


@pytest.fixture(scope="module")
def family(made: tuple[Path, MergePlan]) -> Path:
    """A folder with models, and ties.html."""
    return made[0]


@pytest.fixture(scope="module")
def merge(made: tuple[Path, MergePlan]) -> MergePlan:
    """What ties.html is the page of."""
    return made[1]


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


# ------------------------------------------------------------------------------------------------ what it shows


def test_the_page_has_every_number_of_the_document(browser: Any, family: Path, merge: MergePlan) -> None:
    whole: Any = document(merge, expand=True)
    with opened(browser, family / "ties.html") as page:
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


def test_it_opens_folded_models_left_shards_right(browser: Any, family: Path) -> None:
    with opened(browser, family / "ties.html") as page:
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


def test_a_click_shows_details_with_the_plans_numbers(browser: Any, family: Path, merge: MergePlan) -> None:
    island = merge.plan.island_of(TENSOR)
    program = merge.plan.programs[island.program]
    (shard,) = merge.shards
    with opened(browser, family / "ties.html") as page:
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


def test_another_recipe_is_another_picture(browser: Any, family: Path) -> None:
    planned(
        family,
        "stacked",
        """
        slices:
          - sources: [{model: ft1, layer_range: [0, 3]}]
          - sources: [{model: ft2, layer_range: [1, 4]}]
        merge_method: passthrough
        dtype: float32
        """,
    )
    with opened(browser, family / "stacked.html") as page:
        assert {"Model A: ft1", "Model B: ft2", "model.layers.0–2", "model.layers.3–5"} <= set(labels(page))
        assert page.locator("#method").inner_text() == "passthrough"
        find(page, "layers.4 q_proj")
        assert facts(page)["dtype"] == "float32"
        assert "model.layers.2.self_attn.q_proj.weight" in page.locator("#panel .files").inner_text()
    planned(family, "other", RECIPE.replace("0.25", "0.375"))
    with opened(browser, family / "other.html") as page:
        parameters = page.evaluate("() => plaitPage.graph.programs[0].nodes.map(node => node.attrs.factor)")
        before = {0.25, 0.375} & set(parameters)
        assert before == {0.375}


def test_equal_tensors_know_each_other(browser: Any, family: Path) -> None:
    planned(
        family,
        "twice",
        """
        slices:
          - sources: [{model: ft1, layer_range: [0, 4]}]
          - sources: [{model: ft1, layer_range: [3, 4]}]
        merge_method: passthrough
        """,
    )
    with opened(browser, family / "twice.html") as page:
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


# ------------------------------------------------------------------------------------------------ how it is worked


def test_search_finds_by_several_words_and_goes_there(browser: Any, family: Path) -> None:
    with opened(browser, family / "ties.html") as page:
        box = page.get_by_role("combobox")
        box.fill("PROJ layers.1")
        assert page.get_by_role("option").count() == 7
        assert page.locator(".results [role=status]").inner_text() == "7 tensors"
        box.fill("down_proj layers.2")
        assert page.get_by_role("option").all_inner_texts()[0].startswith(TENSOR)
        box.press("Enter")
        found = node(page, "mlp.down_proj.weight")
        assert found.get_attribute("aria-selected") == "true"
        assert found.evaluate("node => node === document.activeElement")
        place, canvas = found.bounding_box(), page.locator("#canvas").bounding_box()
        assert canvas["y"] <= place["y"] <= canvas["y"] + canvas["height"] - place["height"]
        box.fill("nothing like it")
        assert page.get_by_role("option").count() == 0
        assert page.locator(".results [role=status]").inner_text() == "No tensor is called that"


def test_folding_unfolding_and_the_camera(browser: Any, family: Path) -> None:
    with opened(browser, family / "ties.html") as page:
        at_first = labels(page)
        group = node(page, "model.layers.0–3")
        group.locator(".fold").click()
        assert group.get_attribute("aria-expanded") == "true"
        assert {f"layer {number}" for number in range(4)} <= set(labels(page))
        group.locator(".fold").click()
        assert labels(page) == at_first
        camera = "() => [plaitPage.camera.x, plaitPage.camera.y, plaitPage.camera.k]"
        x, y, zoom = page.evaluate(camera)
        page.mouse.move(400, 300)
        page.mouse.wheel(0, -300)
        assert page.evaluate(camera)[2] > zoom
        page.get_by_role("button", name="Smaller").click()
        page.get_by_role("button", name="Fit").click()
        assert page.evaluate(camera) == pytest.approx([x, y, zoom])
        page.mouse.move(60, 560)
        page.mouse.down()
        page.mouse.move(160, 500, steps=4)
        page.mouse.up()
        assert page.evaluate(camera)[:2] == pytest.approx([x + 100, y - 60])
        assert page.locator("[aria-selected=true][role=treeitem]").count() == 0


def test_the_timeline_and_the_boxes_know_each_other(browser: Any, family: Path, merge: MergePlan) -> None:
    whole: Any = document(merge, expand=True)
    with opened(browser, family / "ties.html") as page:
        assert page.locator("#spans .span").count() == 0
        node(page, "model.layers.0–3").click()
        assert page.locator("#spans .span").count() >= 1
        band = page.locator("#spans .span").first.bounding_box()
        page.mouse.move(band["x"] + band["width"] / 2, band["y"] + 30)
        page.wait_for_function("document.querySelector('.node.moment')")
        assert "model.layers.0–3" in page.locator(".node.moment").get_attribute("aria-label")
        assert "model.layers" in page.locator("#moment").inner_text()

        slider = page.get_by_role("slider")
        slider.focus()
        slider.press("End")
        tensor, index, _, live_bytes, state_bytes, _ = whole["timeline"][-1]
        assert int(slider.get_attribute("aria-valuenow")) == len(whole["timeline"]) - 1
        said = slider.get_attribute("aria-valuetext")
        assert said.startswith(whole["tensors"][tensor]["name"])
        assert "100 % done" in said
        used_bytes = merge.plan.reserved_bytes + merge.plan.slack_bytes + live_bytes + state_bytes
        assert page.evaluate(f"formatBytes({used_bytes})") in said
        assert f"pass {index + 1} of" in said
        slider.press("Enter")
        assert page.locator("#panel-title").inner_text() == whole["tensors"][tensor]["name"]


def test_everything_can_be_done_with_keys(browser: Any, family: Path) -> None:
    with opened(browser, family / "ties.html") as page:
        page.locator("#legend button").last.focus()
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.getAttribute('role')") == "treeitem"
        page.keyboard.press("Home")
        assert page.evaluate(FOCUSED).startswith("Model A")
        while not page.evaluate(FOCUSED).startswith("model.layers.0–3"):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert page.evaluate(FOCUSED).startswith("layer 0")
        page.keyboard.press("Space")
        page.keyboard.press("ArrowRight")
        name = page.evaluate(FOCUSED).partition(",")[0]
        page.keyboard.press("ArrowRight")
        assert page.locator(".node.op").count() > 0
        page.keyboard.press("Enter")
        assert page.evaluate(FOCUSED) == "panel-title"
        assert page.locator("#panel-title").inner_text() == f"model.layers.0.{name}"
        page.keyboard.press("Escape")
        assert page.evaluate(FOCUSED).startswith(name)
        for _ in range(5):  # the tensor, its layer, the group: each is folded, or left
            page.keyboard.press("ArrowLeft")
        assert not any(label.startswith("layer ") for label in labels(page))
        page.keyboard.press("0")
        zoom = page.evaluate("() => plaitPage.camera.k")
        page.keyboard.press("+")
        assert page.evaluate("() => plaitPage.camera.k") > zoom
        page.keyboard.press("0")
        assert page.evaluate("() => plaitPage.camera.k") == pytest.approx(zoom)
        page.keyboard.press("?")
        assert page.get_by_role("dialog", name="Keys").is_visible()
        page.keyboard.press("Escape")
        assert not page.get_by_role("dialog", name="Keys").is_visible()


def test_it_works_by_touch_on_a_phone(browser: Any, family: Path) -> None:
    with opened(browser, family / "ties.html", PHONE, has_touch=True, is_mobile=True) as page:
        assert page.evaluate("() => document.documentElement.scrollWidth") <= PHONE[0]
        group = node(page, "model.layers.0–3")
        place = group.bounding_box()
        assert place["x"] >= 0
        assert place["x"] + place["width"] <= PHONE[0]
        panel = page.locator("#panel")
        assert not panel.is_visible()
        group.tap()
        assert panel.is_visible()
        sheet = panel.bounding_box()
        assert sheet["y"] > 0.4 * PHONE[1]
        page.get_by_role("button", name="Close details").tap()
        assert not panel.is_visible()
        group.locator(".fold").tap()
        assert "layer 0" in labels(page)


@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_accessibility(browser: Any, family: Path, size: tuple[int, int], scheme: str) -> None:
    with opened(browser, family / "ties.html", size, color_scheme=scheme) as page:
        assert violations(page) == []
        find(page, TENSOR)
        page.keyboard.press("Space")
        page.locator("#slider").hover(force=True)
        page.keyboard.press("/")
        page.keyboard.type("proj")
        assert violations(page) == []


def test_light_and_dark_by_the_button(browser: Any, family: Path) -> None:
    with opened(browser, family / "ties.html", color_scheme="light") as page:
        ground = "() => getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        button = page.get_by_role("button", name="Dark")
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert page.evaluate(ground) != light
        assert violations(page) == []
        button.click()
        assert page.evaluate(ground) == light


def test_the_page_is_one_file_with_its_licence(family: Path, merge: MergePlan) -> None:
    text = (family / "ties.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert asset("dagre.LICENSE.txt").strip() in text
    assert not re.search(r"<(?:link|img|iframe|object|embed)\b|\ssrc=|@import|url\((?!#)|sourceMappingURL", text)


@pytest.mark.slow
def test_ninety_two_thousand_tensors_open_in_five_seconds(browser: Any, tmp_path: Path) -> None:
    write_family(tmp_path, "moe671b", finetunes=2)
    planned(tmp_path, "huge", RECIPE.replace("ties", "dare_ties"))
    assert (tmp_path / "huge.html").stat().st_size < 5_000_000
    with opened(browser, tmp_path / "huge.html") as page:
        page.wait_for_selector("body:not(.loading)")
        assert page.evaluate("() => performance.now()") < 5000
        find(page, "layers.40 experts.200 up_proj weight")
        assert page.locator("#panel-title").inner_text() == "model.layers.40.mlp.experts.200.up_proj.weight"
        assert page.get_by_role("treeitem").count() < 200
