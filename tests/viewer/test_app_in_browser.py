"""The web app in a real browser: files in, a scene and answers out."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pixels import eventually, lit, shown
from plane_checkpoint import plane_checkpoint

pytest.importorskip("viser", reason="viser is not installed")

import g2vlm
from g2vlm.viewer.limits import Limits
from g2vlm.viewer.serving import Viewer
from g2vlm.viewer.studio import Studio

pytestmark = [pytest.mark.browser, pytest.mark.slow]

BLACK = (20, 20, 20)
PICTURE = (slice(170, None), slice(0, 560))
LIMITS = Limits(max_views=4, max_files=6, max_upload_mb=1)


def photo(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).resize((400, 300)).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    folder = plane_checkpoint(tmp_path_factory.mktemp("model") / "tiny")
    studio = Studio(lambda on_progress: g2vlm.load(folder, device="cpu", on_progress=on_progress), LIMITS)
    viewer = Viewer(None, studio, port=18280, limits=LIMITS)
    yield viewer
    viewer.close()


@pytest.fixture
def page(app: Viewer, open_page: Any) -> Any:
    opened = open_page(app.address, 900, 640)
    opened.get_by_text("Drop photos or a video anywhere").wait_for()
    return opened


def give(page: Any, *files: tuple[str, bytes]) -> None:
    page.locator("input[type=file]").set_input_files(
        [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files]
    )


def reconstruct(page: Any) -> None:
    page.get_by_role("button", name="Reconstruct").click()
    page.get_by_text("views,").or_(page.get_by_text("1 view,")).wait_for(timeout=90_000)


def test_from_photos_to_a_scene_and_an_answer(page, app, shots):
    assert page.get_by_role("button", name="Reconstruct").is_disabled()
    for number in (10, 2):
        give(page, (f"img{number}.png", photo(number)))
        page.get_by_text(f"img{number}.png (400 x 300)").wait_for()
    shown(page, shots, "app-photos")
    reconstruct(page)
    session = app.sessions[max(app.sessions)]
    # In the order of their names, numbers by value.
    assert [view.name for view in session.scene.views] == ["img2.png", "img10.png"]
    session.visit(0)
    assert eventually(lambda: lit(shown(page)[PICTURE], BLACK) > 0.5)
    shown(page, shots, "app-scene")
    page.get_by_role("tab", name="Ask").click()
    page.locator("textarea").first.fill("What is *here*?")
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("What is *here*?", exact=True).first.wait_for()
    # What random weights answer may be anything; that it has ended shows by the empty question.
    assert eventually(lambda: page.locator("textarea").first.input_value() == "", 60)
    shown(page, shots, "app-answer")
    # Another scene has another conversation.
    page.get_by_role("tab", name="Photos").click()
    page.get_by_role("button", name="Start anew").click()
    assert eventually(lambda: session.scene is None)
    page.get_by_role("tab", name="Ask").click()
    page.get_by_text("Reconstruct photos first").wait_for()


def test_files_that_cannot_be_used_say_why(page, app, shots):
    give(page, ("broken.png", photo()[:500]))
    page.get_by_text("Upload of broken.png failed").wait_for()
    page.get_by_text("Expected a photo (jpg, png").first.wait_for()
    give(page, ("empty.png", b""))
    page.get_by_text("empty file (0 bytes)").wait_for()
    give(page, ("large.png", bytes(1_500_000)))
    page.get_by_text("Upload refused").wait_for()
    assert page.get_by_text("/tmp").count() == 0
    shown(page, shots, "app-broken")
    session = app.sessions[max(app.sessions)]
    assert list((session.folder / "uploads").iterdir()) == []
    assert page.get_by_role("button", name="Reconstruct").is_disabled()
    assert page.get_by_role("button", name="Choose photos or a video").is_enabled()


def test_several_files_are_dropped_at_once(page):
    encoded = [base64.b64encode(photo(seed)).decode() for seed in range(3)]
    page.evaluate(
        """(photos) => {
          const data = new DataTransfer();
          photos.forEach((text, index) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            data.items.add(new File([bytes], `drop${index}.png`, { type: "image/png" }));
          });
          window.dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
        }""",
        encoded,
    )
    for index in range(3):
        page.get_by_text(f"drop{index}.png (400 x 300)").wait_for()


def test_two_people_have_scenes_of_their_own(page, app, open_page):
    give(page, ("mine.png", photo(1)))
    page.get_by_text("mine.png (").wait_for()
    other = open_page(app.address, 900, 640)
    other.get_by_text("Drop photos or a video anywhere").wait_for()
    give(other, ("yours.png", photo(2)))
    other.get_by_text("yours.png (").wait_for()
    reconstruct(other)
    first, second = (app.sessions[number] for number in sorted(app.sessions)[-2:])
    assert first.scene is None
    assert [view.name for view in second.scene.views] == ["yours.png"]
    reconstruct(page)
    assert [view.name for view in first.scene.views] == ["mine.png"]
    assert other.get_by_text("mine.png").count() == 0


def test_a_video_grows_frame_by_frame(page, app, tmp_path):
    import cv2

    path = tmp_path / "walk.mp4"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 4, (400, 300))
    for seed in range(12):
        video.write(np.asarray(Image.open(io.BytesIO(photo(seed)))))
    video.release()
    page.locator("input[type=file]").set_input_files(path)
    page.get_by_text("walk.mp4 (video, 3 s)").wait_for()
    choice = page.locator("xpath=//label[normalize-space()='Video']/following::input[not(@type='hidden')][1]")
    choice.click()
    page.get_by_role("option", name="frame by frame, growing").click()
    session, counts = app.sessions[max(app.sessions)], []
    grow = session.grow
    session.grow = lambda scene, *rest: (counts.append(len(scene)), grow(scene, *rest))
    page.get_by_role("button", name="Reconstruct").click()
    assert eventually(lambda: len(counts) >= 6, 90)
    assert counts == list(range(1, len(counts) + 1))
    assert eventually(lambda: len(session.cloud.parts) == 1 and len(session.scene) == len(counts), 60)
