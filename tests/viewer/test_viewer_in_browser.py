"""A scene in the viewer, in a real browser: what is drawn, measured and downloaded."""

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_wall import DISTANCE_M, FOCAL_PX, HEIGHT, WIDTH, known_wall
from pixels import eventually, lit, shown

pytest.importorskip("viser", reason="viser is not installed")

from g2vlm.scene.storage import read_npz
from g2vlm.viewer.limits import Limits
from g2vlm.viewer.points import ShownPoints
from g2vlm.viewer.serving import Viewer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

BLACK = (20, 20, 20)
SIZE = (900, 640)
PICTURE = (slice(170, None), slice(0, 560))
"""Left of the controls, below the notice that there is no GPU."""


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    serving = Viewer(ShownPoints.of(known_wall()), port=18080)
    yield serving
    serving.close()


@pytest.fixture
def page(viewer: Viewer, open_page: Any) -> Any:
    return entered(viewer, open_page)


def entered(viewer: Viewer, open_page: Any, width: int = SIZE[0]) -> Any:
    """A page whose scene is drawn."""
    before = max(viewer.sessions, default=-1)
    opened = open_page(viewer.address, width, SIZE[1])
    assert eventually(lambda: max(viewer.sessions, default=-1) > before)
    assert eventually(lambda: share_lit(opened) > 0.1)
    return opened


def share_lit(page: Any) -> float:
    return lit(shown(page)[PICTURE], BLACK)


def session_of(viewer: Viewer) -> Any:
    """Of the page opened last."""
    return viewer.sessions[max(viewer.sessions)]


def control(page: Any, label: str) -> Any:
    """The box that belongs to a label."""
    return page.locator(
        f"xpath=//label[normalize-space()='{label}']/following::input[not(@type='hidden')][1]"
    )


def only_points(page: Any) -> None:
    before = share_lit(page)
    for label in ("Cameras", "Floor grid"):
        control(page, label).click()
    assert eventually(lambda: share_lit(page) < before)


def set_number(page: Any, label: str, value: str) -> None:
    box = control(page, label)
    box.fill(value)
    box.press("Enter")


def test_the_canvas_has_the_cloud_and_heeds_the_controls(page, viewer, shots):
    shown(page, shots, "view")
    only_points(page)
    everything = share_lit(page)
    set_number(page, "Confidence ≥", "0.5")
    assert eventually(lambda: 0.2 * everything < share_lit(page) < 0.8 * everything)
    set_number(page, "Confidence ≥", "0")
    assert eventually(lambda: share_lit(page) > 0.9 * everything)
    page.locator("text=Views").first.click()
    control(page, "1: wall.png").click()
    assert eventually(lambda: share_lit(page) < 0.01)


def test_two_clicks_measure_a_known_length_within_a_hundredth(page, viewer, shots):
    session = session_of(viewer)
    session.visit(0)
    page.get_by_role("tab", name="Measure").click()
    control(page, "Click to measure").click()
    assert eventually(lambda: share_lit(page) > 0.95)
    ends = [(150, 200), (430, 480)]
    page.mouse.click(*ends[0])
    page.get_by_text("Click the second point").wait_for()
    page.mouse.click(*ends[1])
    measured = page.get_by_text(re.compile(r"^[\d.]+( ± [\d.e-]+)? m$")).first
    length_m = float(measured.text_content().split()[0])
    # The picture stands where the photo was taken, and shows the photo's whole height.
    pixel_m = DISTANCE_M * 2 * np.tan(session.client.camera.fov / 2) / SIZE[1]
    known_m = np.hypot(ends[1][0] - ends[0][0], ends[1][1] - ends[0][1]) * pixel_m
    assert length_m == pytest.approx(known_m, rel=0.01)
    shown(page, shots, "measure")
    # The metre from a known length: all lengths follow.
    set_number(page, "True length (m)", "5")
    page.get_by_role("button", name="This length is that long").click()
    page.get_by_text("Lengths are metres now").wait_for()
    low, high = session.scene.bounds()
    width_m = (WIDTH - 1) / FOCAL_PX * DISTANCE_M * 5 / length_m
    assert float(high[0] - low[0]) == pytest.approx(width_m, rel=0.01)


@pytest.mark.filterwarnings("ignore::g2vlm.export.originals.MissingOriginalWarning")
def test_every_format_downloads_a_file_that_can_be_read(page, viewer, tmp_path, shots):
    from g2vlm.viewer.panels.exporting import available_kinds

    page.get_by_role("tab", name="Export").click()
    shown(page, shots, "export")
    for kind in available_kinds():
        if kind in ("rerun", "tsdf"):  # the slowest ones go the same way
            continue
        choice = control(page, "Format")
        choice.click()
        page.get_by_role("option", name=kind, exact=True).click()
        with page.expect_download(timeout=60_000) as waiting:
            page.get_by_role("button", name="Download").click()
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        check_file(kind, path)


def check_file(kind: str, path: Path) -> None:
    import trimesh

    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert any(name.endswith("g2vlm.json") for name in archive.namelist())
    elif path.suffix == ".npz":
        assert read_npz(path).num_points == WIDTH * HEIGHT
    elif path.suffix in (".glb", ".ply", ".obj"):
        assert len(trimesh.load(io.BytesIO(path.read_bytes()), file_type=path.suffix[1:]).bounds) == 2
    elif path.suffix == ".html":
        assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    elif path.suffix in (".tum", ".kitti"):
        assert np.loadtxt(path).size in (8, 12)
    else:
        assert kind == "usd"
        assert path.read_bytes()[:8] == b"PXR-USDC"


def test_screenshots_are_pictures(page, tmp_path):
    from PIL import Image

    with page.expect_download(timeout=30_000) as waiting:
        page.get_by_role("button", name="Screenshot").click()
    path = tmp_path / "scene.png"
    waiting.value.save_as(path)
    with Image.open(path) as picture:
        assert min(picture.size) > 300


def test_sessions_stay_apart(page, viewer, open_page):
    first = session_of(viewer)
    other = entered(viewer, open_page)
    second = session_of(viewer)
    assert second is not first
    only_points(other)
    set_number(other, "Confidence ≥", "1")
    assert eventually(lambda: share_lit(other) < 0.01)
    assert first.cloud.look.min_confidence == 0
    assert share_lit(page) > 0.1
    folder = second.folder
    assert folder != first.folder
    other.context.close()
    assert eventually(second.closed.is_set)
    assert eventually(lambda: not folder.exists())


def test_it_fits_a_phone(viewer, open_page, shots):
    phone = entered(viewer, open_page, 390)
    shown(phone, shots, "view-phone")
    # A touch of its title folds the sheet of controls.
    phone.get_by_text("g2vlm", exact=True).click()
    phone.get_by_text("Colour").wait_for(state="hidden")
    shown(phone, shots, "view-phone-folded")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_full_house_says_so(open_page):
    viewer = Viewer(ShownPoints.of(known_wall()), port=18180, limits=Limits(max_sessions=1))
    try:
        entered(viewer, open_page)
        open_page(viewer.address, *SIZE).get_by_text("places are taken").wait_for()
    finally:
        viewer.close()
