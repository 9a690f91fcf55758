"""Pictures of Plait's pages in a browser, for README and docs: ``docs/pictures/*.png``.

    make pictures

The merge is that of the demo, three small models that come with the project; the graph of an 8B merge is planned over
stand-ins. Draws with the Chromium that the machine has, or the one that PLAIT_CHROMIUM names.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import chromium
import plait
from pictures import DARE_TIES_MODELS, ROOT, SHAPES, Studio
from plait.examples.specialists import FOLDER, MODELS, RECIPE
from plait.views import diff_page, report_page
from plait.views.page_file import write_page
from playwright.sync_api import Browser, sync_playwright

WIDE, TALL, PHONE = (1280, 800), (1280, 1400), (390, 844)


def shoot(browser: Browser, page: Path, name: str, size: tuple[int, int] = WIDE, *, dark: bool = False) -> None:
    """A picture of a page as a window of that size shows it."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
    )
    shown = context.new_page()
    shown.goto(page.as_uri())
    shown.wait_for_selector("body:not(.loading)")
    shown.screenshot(path=ROOT / "docs" / "pictures" / f"{name}.png")
    context.close()


def pages(folder: Path) -> dict[str, Path]:
    """The pages, written into a folder."""
    found = {name: folder / f"{name}.html" for name in ("graph", "report", "diff")}
    studio = Studio(folder, folder)
    recipe = ROOT / "examples" / "llama3-merge-biomed-8b.yml"
    studio.plan(recipe, dict.fromkeys(DARE_TIES_MODELS, SHAPES["8b"])).write_graph(found["graph"])
    os.chdir(folder)  # what the pages name is relative
    for model in MODELS:
        shutil.copytree(FOLDER / model, model)
    shutil.copy(RECIPE, "merge.yml")
    plait.plan("merge.yml").run("merged")
    write_page(found["report"], report_page.page(plait.report("merged")))
    write_page(found["diff"], diff_page.page(plait.diff("base", "merged")))
    return found


def main() -> None:
    """Draw from the command line."""
    program = chromium.find()
    if program is None:
        sys.exit(chromium.NONE_HERE)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as running:
        made = pages(Path(folder).resolve())
        browser = chromium.launch(running, program)
        for name, page in made.items():
            shoot(browser, page, name, WIDE if name == "graph" else TALL)
        shoot(browser, made["graph"], "graph-phone", PHONE, dark=True)
        browser.close()
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
