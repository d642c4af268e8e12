"""Headless Chromium for tests of pages: what it needs, and an ear for all that must not happen."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)
PATIENCE = 90_000  # milliseconds: a test machine may be busy
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# Folder that screenshots are kept in; CI names one and saves it.
SCREENSHOTS = "REWARDSTEER_SCREENSHOTS"


def start(playwright):
    """The browser; skips where there is none."""
    place = shutil.which("chromium")
    if place is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    return playwright.chromium.launch(executable_path=place, args=list(FLAGS))


class Ear:
    """Hears requests, console messages and uncaught errors of a page."""

    def __init__(self, page):
        self.requests, self.troubles = [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", self._console)

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.troubles.append(message.text)


def screenshot(page, name: str, **options) -> None:
    """Keep what the page looks like."""
    folder = Path(os.environ.get(SCREENSHOTS) or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", **options)


# The rule of axe that a second theme can break alone.
CONTRAST = {"runOnly": ["color-contrast"]}


def violations(page, rules, within=("body",)) -> list:
    """What axe, the checker of accessibility, finds wrong: rule, meaning, first places. A plot is
    one image with a name; its thousands of lines are not looked at."""
    from axe_playwright_python.sync_playwright import Axe

    return [
        (one["id"], one["help"], [node["html"][:150] for node in one["nodes"][:3]])
        for one in Axe().run(
            page, {"include": [[one] for one in within], "exclude": [["svg"]]}, rules
        ).response["violations"]
    ]
