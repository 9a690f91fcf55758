"""The Chromium that this machine has, for the tests of the pages and for pictures of them."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

NONE_HERE = "no Chromium on this machine: PLAIT_CHROMIUM may name one"

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def find() -> str | None:
    """The program to start: what PLAIT_CHROMIUM names, else the first of its usual names that is there."""
    return os.environ.get("PLAIT_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


def launch(playwright: Playwright, executable: str) -> Browser:
    """A headless browser that fetches nothing of its own accord."""
    return playwright.chromium.launch(executable_path=executable, args=list(_QUIET))
