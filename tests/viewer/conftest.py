"""A real browser (Debian's Chromium through playwright) and scenes to look at."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rendered_room import rendered_room

from g2vlm.scene.scene import Scene

FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--force-device-scale-factor=1",
]
"""Draw with the processor: machines that test have no GPU."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Opens an address in a context of its own; a script error in any page fails the test."""
    contexts, errors = [], []

    def open_one(url: str, width: int = 1000, height: int = 700) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return rendered_room(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def shots() -> Path | None:
    """Where screenshots are kept to look at; nowhere unless asked for."""
    import os

    folder = os.environ.get("G2VLM_SCREENSHOTS")
    if folder is None:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)
