"""A headless browser for the pages: Chromium where there is one, and pages that note everything they should not do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import chromium
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WIDE, PHONE = (1280, 800), (390, 844)


@contextmanager
def started_browser() -> Iterator[Any]:
    """A browser; skips the tests, with the reason, where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: no browser to look with"
    )
    found = chromium.find()
    if found is None:
        pytest.skip(chromium.NONE_HERE)
    with playwright.sync_playwright() as running:
        browser = chromium.launch(running, found)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, path: Path, size: tuple[int, int] = WIDE, **settings: Any) -> Iterator[Any]:
    """A page of its own for a file. In the end it must have fetched nothing else and have had nothing to complain of.

    ``settings`` are those of a playwright context: ``color_scheme``, ``has_touch`` and so on.
    """
    asked: list[str] = []
    complaints: list[str] = []
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce", **settings)
    try:
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        wait_until_ready(page)
        yield page
        assert {url.partition("#")[0] for url in asked} == {path.as_uri()}
        assert complaints == []
    finally:
        context.close()


def wait_until_ready(page: Any) -> None:
    """Wait for a page that unpacks what it shows."""
    page.wait_for_selector("body:not(.loading)")


def violations(page: Any) -> list[str]:
    """What axe-core calls a serious or critical fault of accessibility in the page as it stands."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {node['html'][:200]} {node['failureSummary'][:300]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"][:3]
    ]
