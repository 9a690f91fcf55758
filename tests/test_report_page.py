"""The page of `plait report`: all figures as cells, nothing fetched, and how it behaves in a browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import plait
import pytest
import torch
from browser_support import PHONE, WIDE, opened, violations
from merge_support import plait as in_a_process
from merge_support import save_model, write_recipe
from page_support import Page
from plait.views.report import page as lines_of
from plait.views.report_page import page as page_of
from report_support import DARE_TIES, LINEAR, STACKED, make_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_support import Said
    from plait.reports.run_report import RunReport

MODELS = ("family/base", "family/ft1", "family/ft2", "family/ft3")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs, each with its page beside it."""
    folder = tmp_path_factory.mktemp("house")
    for name, recipe in (("ties", DARE_TIES), ("linear", LINEAR), ("stacked", STACKED)):
        out = make_run(folder, recipe, name)
        (folder / f"{name}.html").write_text("\n".join(page_of(plait.report(out))), encoding="utf-8")
    return folder


# ------------------------------------------------------------------------------------------------ what it holds


@pytest.mark.parametrize("name", ["ties", "linear", "stacked"])
def test_the_page_holds_every_figure_and_fetches_nothing(name: str, house: Path) -> None:
    report = plait.report(house / name)
    text = "\n".join(page_of(report))
    page = Page(text)
    assert page.open == []
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)|@import|url\((?!#)", text)
    assert not {key for key, _ in page.attributes} & {"src", "href", "action", "srcset"}
    assert "default-src 'none'" in text
    assert report.measured is not None
    assert report.recipe is not None
    whole = [value for key, value in page.attributes if key == "title" and value and "cosine" in value]
    assert len(whole) == sum(len(each.cells) for each in report.measured.movements)
    for vector in report.measured.task_vectors:
        for number in (*vector.total.positive, *vector.total.negative):
            assert not number or f"{number:,}".replace(",", "\u202f") in page.cells
    for agreement in report.measured.agreements:
        shares = [f"{100 * (each.share or 0):.1f}%" for each in agreement.kinds.values() if each.both > 1000]
        assert shares
        assert set(shares) <= set(page.cells)
    samples = report.manifest.run.samples
    assert f"{samples.seconds[-1]:.1f}" in page.cells
    assert report.recipe.splitlines()[0] in text


def test_pictures_follow_the_recipe(house: Path) -> None:
    before = (house / "ties.html").read_text(encoding="utf-8")
    make_run(house, DARE_TIES.replace("dare_ties", "ties").replace("family/ft3", "family/ft1"), "other")
    after = "\n".join(page_of(plait.report(house / "other")))
    assert "family/ft3" in before
    assert "family/ft3" not in after
    assert "<strong>ties</strong>" in after


def hostile(folder: Path) -> RunReport:
    """A run in which every name tries to be markup."""
    evil = "<img src=x onerror=alert(1)>"
    folder = folder / f"{evil}&amp"
    for name in ("a", "b"):
        tensors = {f"model.layers.{layer}.{evil}.weight": torch.randn(4, 4) for layer in range(2)}
        save_model(folder / f"{evil}{name}", {**tensors, f"{evil}'\"": torch.randn(4)})
    models = "\n".join(f"  - model: '{evil}{name}'\n    parameters: {{weight: 1}}" for name in ("a", "b"))
    recipe = f"# \u202e</pre></template></style><script>alert(2)</script>\nmerge_method: linear\nmodels:\n{models}\n"
    plait.plan(write_recipe(folder / "recipe.yml", recipe)).run(folder / "out")
    return plait.report(folder / "out")


def evil_lines(report: RunReport) -> list[str]:
    """Lines on a screen with letters that are not to be seen."""
    return [line.plain for line in lines_of(report, None, verbose=True) if not line.plain.isprintable()]


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    report = hostile(tmp_path)
    text = "\n".join(page_of(report))
    assert Page(text).open == []
    assert "<img" not in text
    assert text.count("<script>") == 2  # the theme's, and the page's own
    assert "\u202e" not in text  # it would turn the line around
    assert evil_lines(report) == []
    assert "&lt;img src=x onerror=alert(1)&gt;" in text


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_page_is_accessible_and_as_wide_as_the_screen(
    size: tuple[int, int], scheme: str, house: Path, browser: Any
) -> None:
    with opened(browser, house / "ties.html", size, color_scheme=scheme) as page:
        page.eval_on_selector_all("details", "all => all.forEach(each => { each.open = true; })")
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_inputs_and_figures_are_chosen_and_cells_tell_all(house: Path, browser: Any) -> None:
    report = plait.report(house / "ties")
    assert report.measured is not None
    with opened(browser, house / "ties.html") as page:
        maps = page.locator("[data-input] > h3")
        assert [maps.nth(index).is_visible() for index in range(4)] == [True, False, False, False]
        page.get_by_role("radio", name="family/ft2").check()
        assert [maps.nth(index).is_visible() for index in range(4)] == [False, False, True, False]
        cell = page.locator("[data-input='2'] table.heat td").first
        figures = report.measured.movements[2].cells["model.layers", 0, "input_layernorm"]
        assert cell.inner_text() == f"{100 * (figures.relative_l2 or 0):.2f}%"
        page.get_by_role("radio", name="cosine").check()
        assert cell.inner_text() == f"{figures.cosine:.6f}"[:6]
        page.get_by_role("radio", name="changed").check()
        assert cell.inner_text() == f"{100 * figures.changed_share:.1f}%"
        cell.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        told = page.locator(".detail").inner_text()
        assert told.startswith("layer 1, mlp.down_proj: cosine 0.9")
        page.get_by_role("button", name="Dark").click()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_pointer_that_lies_still_does_not_talk_over_the_keyboard(house: Path, browser: Any) -> None:
    with opened(browser, house / "ties.html", (1280, 400)) as page:
        cells = page.locator("[data-input='0'] table.heat td[tabindex]")
        told = page.locator(".detail")
        cells.nth(0).hover()  # it comes to be on the screen
        page.mouse.move(*middle(cells.nth(1)))
        assert told.inner_text().startswith("layer 0, mlp.down_proj:")
        cells.last.evaluate("cell => cell.focus({ preventScroll: true })")
        focused = told.inner_text()
        # Rows pass beneath the pointer, one after the other.
        for _ in range(4):
            page.evaluate("scrollBy({ top: 12, behavior: 'instant' })")
            page.wait_for_timeout(100)
        assert told.inner_text() == focused


def test_the_graph_tells_nothing_of_another_run_than_the_one_that_was(house: Path) -> None:
    text = (house / "ties.html").read_text(encoding="utf-8")
    assert "in 3 shards" in text.partition("<template")[0]
    drawn = text.partition("<template")[2].partition("</template>")[0]
    assert "model.embed_tokens.weight" in drawn
    # Planned again, here and now, it has one shard, this machine's memory and its workers.
    assert not [word for word in ("shard", "allowed", "worker", "tiles of") if word in drawn]


def middle(cell: Any) -> tuple[float, float]:
    """Where to point at a cell."""
    box = cell.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_graph_is_drawn_and_keeps_to_the_page_s_colours(house: Path, browser: Any) -> None:
    with opened(browser, house / "ties.html", color_scheme="dark") as page:
        drawn = page.locator(".picture svg")
        assert drawn.count() == 1
        assert "dare_ties" in (drawn.text_content() or "")
        colours = """() => {
            const root = document.querySelector(".picture").shadowRoot;
            return [getComputedStyle(root.querySelector("rect.ground")).fill, getComputedStyle(document.body).color];
        }"""
        dark = page.evaluate(colours)
        page.get_by_role("button", name="Dark").click()
        light = page.evaluate(colours)
        assert dark[0] != light[0]
        assert dark[1] != light[1]


def test_hostile_names_stay_text_in_a_browser(tmp_path: Path, browser: Any) -> None:
    path = tmp_path / "evil.html"
    path.write_text("\n".join(page_of(hostile(tmp_path))), encoding="utf-8")
    with opened(browser, path) as page:
        assert page.locator("img").count() == 0
        assert "<script>alert(2)</script>" in page.locator("pre").inner_text()


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_shows_writes_and_reports(house: Path, say: Callable[..., Said]) -> None:
    page = house / "written.html"
    shown = in_a_process("report", "ties", "--html", page, "--memory", "400MiB", cwd=house)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "\x1b" not in shown.stdout
    for said in ("dare_ties, 4 inputs", "self_attn.q_proj", "sign agreement", "while it ran", "ties/README.md"):
        assert said in shown.stdout
    assert Page(page.read_text(encoding="utf-8")).open == []
    found = say("report", "ties", "--json", "-q", cwd=house).report
    assert [each["reference"] for each in found["moved"]] == list(MODELS)
    assert {"output", "method", "run", "samples", "inputs", "task_vectors", "sign_agreement", "notes"} <= set(found)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("family/base",), 3, "has no plait-manifest.json"),
        (("ties", "--memory", "20MiB"), 4, "the least that works"),
        (("ties", "--html", "ties/page.html"), 2, "put the page somewhere else"),
        (("ties", "--html", "family/base/page.html"), 2, "put the page somewhere else"),
        (("ties", "--map", "family/ft1"), 2, "write REF=PATH"),
        (("ties", "--map", "family/ft9=x"), 2, "the run had no such input"),
    ],
)
def test_a_mistake_is_a_line(
    house: Path, say: Callable[..., Said], arguments: tuple[str, ...], code: int, said: str
) -> None:
    told = say("report", *arguments, cwd=house)
    assert told.code == code
    assert said in told.err
    assert "Traceback" not in told.err
