"""The page of a plan's graph, in a real browser: every part of it can be worked, with every device, by everyone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from browser_support import PHONE, WIDE, opened, violations, wait_until_ready
from graph_page_support import FOCUSED, TENSOR, find, labels, node
from plait.views.graph_document import document

if TYPE_CHECKING:
    from graph_page_support import TiesPage


def test_search_finds_by_several_words_and_goes_there(browser: Any, ties_page: TiesPage) -> None:
    with opened(browser, ties_page.path) as page:
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
        page.reload()  # the address remembers the tensor
        wait_until_ready(page)
        assert page.locator("#panel-title").inner_text() == TENSOR
        assert found.get_attribute("aria-selected") == "true"
        box.fill("nothing like it")
        assert page.get_by_role("option").count() == 0
        assert page.locator(".results [role=status]").inner_text() == "No tensor is called that"


def test_folding_unfolding_and_the_camera(browser: Any, ties_page: TiesPage) -> None:
    with opened(browser, ties_page.path) as page:
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


def test_the_timeline_and_the_boxes_know_each_other(browser: Any, ties_page: TiesPage) -> None:
    whole: Any = document(ties_page.merge, expand=True)
    with opened(browser, ties_page.path) as page:
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
        used_bytes = ties_page.merge.plan.reserved_bytes + ties_page.merge.plan.slack_bytes + live_bytes + state_bytes
        assert page.evaluate(f"formatBytes({used_bytes})") in said
        assert f"pass {index + 1} of" in said
        picture, panel = page.locator("#stage").bounding_box(), page.locator("#panel").bounding_box()
        assert picture["x"] + picture["width"] <= panel["x"] + 1  # whatever is said of a moment
        assert page.locator("#timeline").bounding_box()["width"] <= picture["width"]
        slider.press("Enter")
        assert page.locator("#panel-title").inner_text() == whole["tensors"][tensor]["name"]


def test_everything_can_be_done_with_keys(browser: Any, ties_page: TiesPage) -> None:
    with opened(browser, ties_page.path) as page:
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


def test_it_works_by_touch_on_a_phone(browser: Any, ties_page: TiesPage) -> None:
    with opened(browser, ties_page.path, PHONE, has_touch=True, is_mobile=True) as page:
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
def test_no_serious_fault_of_accessibility(
    browser: Any, ties_page: TiesPage, size: tuple[int, int], scheme: str
) -> None:
    with opened(browser, ties_page.path, size, color_scheme=scheme) as page:
        assert violations(page) == []
        find(page, TENSOR)
        page.keyboard.press("Space")
        page.locator("#slider").hover(force=True)
        page.keyboard.press("/")
        page.keyboard.type("proj")
        assert violations(page) == []


def test_a_fault_of_accessibility_would_be_seen(browser: Any, ties_page: TiesPage) -> None:
    with opened(browser, ties_page.path) as page:
        page.evaluate("() => document.querySelector('#keys').removeAttribute('aria-label')")
        page.evaluate("() => document.querySelector('#keys').replaceChildren()")
        page.evaluate("() => { document.querySelector('#panel-title').style.color = '#ccc'; }")
        assert {text.partition(" ")[0] for text in violations(page)} == {"button-name", "color-contrast"}


def test_light_and_dark_by_the_button(browser: Any, ties_page: TiesPage) -> None:
    with opened(browser, ties_page.path, color_scheme="light") as page:
        ground = "() => getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        button = page.get_by_role("button", name="Dark")
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert page.evaluate(ground) != light
        button.click()
        assert page.evaluate(ground) == light
