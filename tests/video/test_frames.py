"""Sources of frames: videos at a rate, cameras that stop or never open."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from g2vlm.errors import InputError
from g2vlm.video import frames as frames_module
from g2vlm.video.frames import open_frames


def write_video(path: Path, count: int, rate: float) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, (64, 48))
    for number in range(count):
        writer.write(np.full((48, 64, 3), 8 * number, np.uint8))
    writer.release()


def test_a_video_gives_its_frames_at_the_rate_asked(tmp_path: Path) -> None:
    path = tmp_path / "walk.mp4"
    write_video(path, 20, 10.0)
    every = list(open_frames(path))
    some = list(open_frames(str(path), rate_hz=5.0))
    assert (len(every), len(some)) == (20, 10)
    assert [photo.name for photo in some] == [photo.name for photo in every[::2]]
    assert some[1].time_s == pytest.approx(0.2, abs=0.01)


class FakeCamera:
    """A camera that delivers three frames, one of them after a failure, and then stops."""

    opened = True
    released = False

    def __init__(self, index: int) -> None:
        self.left = [1, 0, 1, 1]

    def isOpened(self) -> bool:  # noqa: N802
        return self.opened

    def read(self) -> tuple[bool, np.ndarray | None]:
        if not self.left or not self.left.pop(0):
            return False, None
        return True, np.dstack([np.full((4, 6), blue_green_red, np.uint8) for blue_green_red in (1, 2, 3)])

    def release(self) -> None:
        FakeCamera.released = True


def test_a_camera_is_read_until_it_stops_and_then_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    monkeypatch.setattr(frames_module, "_DROPPED_FRAMES", 3)
    found = list(open_frames(2))
    assert [photo.name for photo in found] == ["camera2_000000", "camera2_000001", "camera2_000002"]
    assert found[0].image.getpixel((0, 0)) == (3, 2, 1)
    assert 0 <= found[0].time_s <= found[2].time_s
    assert FakeCamera.released
    monkeypatch.setattr(FakeCamera, "opened", False)
    with pytest.raises(InputError, match="camera at number 2"):
        next(open_frames(2))
