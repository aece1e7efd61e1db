"""The static page in a real browser, opened as a file."""

import re

import numpy as np
import pytest
from pixels import lit, shown

from g2vlm.export.page import static_page

pytestmark = pytest.mark.browser
DARK = (16, 18, 21)


@pytest.fixture(scope="module")
def address(room, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "room.html"
    path.write_text(static_page(room), encoding="utf-8")
    return path.as_uri()


def set_range(page, name, value):
    page.evaluate(
        "([name, value]) => { const e = document.getElementById(name); e.value = value; e.oninput(); }",
        [name, value],
    )
    page.wait_for_timeout(150)


def test_it_shows_the_cloud_and_heeds_the_threshold(open_page, address, shots):
    page = open_page(address)
    page.wait_for_selector("#views li img")
    page.wait_for_function("document.getElementById('message').textContent === ''")
    page.uncheck("#floor")
    page.uncheck("#cameras")
    page.wait_for_timeout(200)
    canvas = (slice(None), slice(0, 700))
    everything = lit(shown(page, shots, "page")[canvas], DARK)
    assert everything > 0.2
    set_range(page, "confidence", 60)
    half = lit(shown(page)[canvas], DARK)
    assert 0.1 * everything < half < 0.9 * everything
    set_range(page, "confidence", 100)
    assert lit(shown(page)[canvas], DARK) < 0.05 * everything
    set_range(page, "confidence", 0)
    for view in page.locator("#views input").all():
        view.uncheck()
    page.wait_for_timeout(150)
    assert lit(shown(page)[canvas], DARK) == 0


def test_a_camera_shows_its_photo_and_what_it_saw(open_page, address, room, shots):
    page = open_page(address, 900, 700)
    page.wait_for_selector("#views li img")
    page.locator("#views button").nth(1).click()
    page.wait_for_timeout(300)
    assert page.locator("#beside").is_visible()
    page.click("#fold")
    page.click("#leave")
    page.wait_for_timeout(300)
    middle = shown(page, shots, "page-camera")[150:550, 250:650].mean(axis=(0, 1))
    view = room.views[1]
    seen = view.rgb[14:49, 24:60].mean(axis=(0, 1))
    assert np.abs(middle - seen).max() < 25


def test_two_clicks_measure(open_page, address, room):
    page = open_page(address, 900, 700)
    page.wait_for_selector("#views li img")
    page.locator("#views button").nth(0).click()
    page.click("#fold")
    page.evaluate("document.getElementById('measure').click()")
    view, height, width = room.views[0], 700, 900
    focal = height / 2 / np.tan(np.arctan(view.original_size[1] / 2 / view.K_original[1, 1]))
    ends = []
    for x, y in ((300, 420), (640, 300)):
        page.mouse.click(x, y)
        ray = np.array([(x - width / 2) / focal, (y - height / 2) / focal])
        u, v = np.rint(view.K[:2, :2] @ ray + view.K[:2, 2]).astype(int)
        ends.append(view.points_camera[v, u])
    told = page.locator("#overlay text").text_content()
    number, unit = re.fullmatch(r"([\d.]+) (\w+)", told).groups()
    assert unit == "m"
    # A click finds a point within some pixels of it.
    assert float(number) == pytest.approx(np.linalg.norm(ends[0] - ends[1]), rel=0.05)


def test_it_fits_a_phone(open_page, address, shots):
    page = open_page(address, 390, 780)
    page.wait_for_selector("#views li", state="attached")
    page.wait_for_timeout(300)
    assert lit(shown(page, shots, "page-phone"), DARK) > 0.2
    assert not page.locator("#panel").is_visible()
    page.click("#fold")
    box = page.locator("#panel").bounding_box()
    assert (box["x"], box["width"]) == (0, 390)
    shown(page, shots, "page-phone-panel")
