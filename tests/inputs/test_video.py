"""Frames of a video: which are taken, in order, upright, with their times; and videos that are damaged."""

import struct
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from g2vlm.errors import InputError
from g2vlm.inputs import video as module
from g2vlm.inputs.capture import Capture
from g2vlm.inputs.decode import Photo
from g2vlm.inputs.video import (
    BrokenVideoWarning,
    FrameChoice,
    FrameChoiceKind,
    evenly_spread,
    iterate_frames,
    read_frames,
)

COUNT, RATE, MOTION = FrameChoiceKind.COUNT, FrameChoiceKind.RATE, FrameChoiceKind.MOTION


def write(path: Path, frames: list[np.ndarray], fps: float = 10, codec: str = "MJPG") -> Path:
    """Write RGB frames."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def numbered(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Frames that carry their number in the red channel; blue is always strong, green weak."""
    frames = [np.full((height, width, 3), (0, 20, 200), np.uint8) for _ in range(count)]
    for index, frame in enumerate(frames):
        frame[..., 0] = 5 * (index % 50)
    return frames


def number(photo: Photo) -> int:
    red, green, blue = np.asarray(photo.image, float).mean(axis=(0, 1))
    assert blue > 150 > 60 > green  # RGB, not BGR
    return round(red / 5)


def textured(shift: float) -> np.ndarray:
    """A view of an endless pattern, moved by `shift` pixels."""
    y, x = np.mgrid[0:72, 0:96].astype(float)
    x = x + shift
    gray = 127 + 60 * np.sin(x / 5) * np.cos(y / 7) + 50 * np.sin(x / 11 + y / 4)
    return np.repeat(gray[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)


def failure(path: Path, *arguments: object, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read_frames(path, *arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("video") / "walk.avi", numbered(40))


@pytest.mark.parametrize(("codec", "suffix"), [("MJPG", "avi"), ("mp4v", "mp4")])
def test_count_is_spread_evenly(tmp_path: Path, codec: str, suffix: str) -> None:
    path = write(tmp_path / f"v.{suffix}", numbered(40), codec=codec)
    frames = read_frames(path, FrameChoice(COUNT, count=4))
    assert frames.indices == (0, 13, 26, 39)
    shown = np.array([number(photo) for photo in frames.photos])
    assert abs(shown - [0, 13, 26, 39]).max() <= 1  # colours suffer from compression
    assert [photo.time_s for photo in frames.photos] == pytest.approx([0, 1.3, 2.6, 3.9])
    assert [photo.name for photo in frames.photos] == ["v_000000", "v_000013", "v_000026", "v_000039"]
    assert frames.photos[0].image.size == (64, 48)


@pytest.mark.parametrize("kind", FrameChoiceKind)
def test_count_one_and_more_than_there_are(walk: Path, kind: FrameChoiceKind) -> None:
    everything = read_frames(walk, FrameChoice(kind, count=500, rate_hz=1000.0))
    assert everything.indices == tuple(range(40))
    assert [number(photo) for photo in everything.photos] == list(range(40))
    assert read_frames(walk, FrameChoice(kind, count=1, rate_hz=0.01)).indices == (0,)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(1.0, [0, 10, 20, 30]), (2.5, [*range(0, 40, 4)]), (10.0, [*range(40)]), (0.4, [0, 25]), (3.0, None)],
)
def test_rate(walk: Path, rate: float, expected: list[int] | None) -> None:
    frames = read_frames(walk, FrameChoice(RATE, rate_hz=rate))
    assert len(frames.photos) == round(4 * rate + 0.39)
    if expected is not None:
        assert list(frames.indices) == expected
    gaps = np.diff([photo.time_s for photo in frames.photos])
    assert (abs(gaps - 1 / rate) < 0.1).all()


def test_maximum_number_of_frames(walk: Path) -> None:
    assert read_frames(walk, FrameChoice(COUNT, count=9), max_frames=2).indices == (0, 39)
    assert read_frames(walk, FrameChoice(COUNT, count=2), max_frames=9).indices == (0, 39)
    assert read_frames(walk, FrameChoice(RATE, rate_hz=1.0), max_frames=2).indices == (0, 30)
    assert len(read_frames(walk, FrameChoice(MOTION, count=9), max_frames=3).indices) == 3
    assert "at least 1 frame, got 0" in failure(walk, max_frames=0)


def test_motion_takes_frames_where_things_move(tmp_path: Path) -> None:
    """Still, then a steady move, then still: all but the ends fall into the move."""
    shifts = [0.0] * 15 + [2.0 * step for step in range(1, 21)] + [40.0] * 15
    path = write(tmp_path / "m.avi", [textured(shift) for shift in shifts])
    indices = read_frames(path, FrameChoice(MOTION, count=6)).indices
    assert (indices[0], indices[-1]) == (0, 49)
    inner = np.array(indices[1:-1])
    assert (inner >= 14).all()
    assert (inner <= 37).all()
    assert np.ptp(np.diff([14, *inner])) <= 3  # even steps inside the move
    assert read_frames(path, FrameChoice(MOTION, count=6)).indices == indices


def test_motion_of_a_jump_gives_distinct_frames_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "j.avi", [textured(0.0)] * 10 + [textured(9.0)] * 3)
    indices = read_frames(path, FrameChoice(MOTION, count=7)).indices
    assert len(set(indices)) == 7
    assert list(indices) == sorted(indices)
    assert 10 in indices


def test_motion_of_a_still_video_is_spread_evenly(tmp_path: Path) -> None:
    path = write(tmp_path / "s.avi", [np.full((48, 64, 3), 90, np.uint8)] * 9)
    assert read_frames(path, FrameChoice(MOTION, count=3)).indices == (0, 4, 8)


@pytest.mark.parametrize("kind", FrameChoiceKind)
def test_same_choice_every_time(walk: Path, kind: FrameChoiceKind) -> None:
    choice = FrameChoice(kind, count=5, rate_hz=1.7)
    assert read_frames(walk, choice).indices == read_frames(walk, choice).indices


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((0, 1, -1, 0), (0, -1)), ((0, -1, 1, 0), (-1, 0)), ((-1, 0, 0, -1), (-1, -1)), ((1, 0, 0, 1), (0, 0))],
    ids=["clockwise", "counterclockwise", "half-turn", "upright"],
)
def test_rotation_of_telephone_videos(
    tmp_path: Path, matrix: tuple[int, int, int, int], corner: tuple[int, int]
) -> None:
    """The bright corner, stored top left, is found where the track's display matrix puts it."""
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:16, :16] = 255
    path = write(tmp_path / "turned.mp4", [frame] * 5, codec="mp4v")
    data = bytearray(path.read_bytes())
    start = data.find(b"tkhd") + 4 + 4 + 20 + 16  # after the version, times and layer of a version-0 header
    a, b, c, d = (65536 * entry for entry in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(data)
    image = read_frames(path, FrameChoice(count=1)).photos[0].image
    assert image.size == ((48, 64) if a == 0 else (64, 48))
    bright = np.asarray(image)[..., 0] > 200
    assert bright.mean() == pytest.approx(1 / 12, abs=0.02)
    assert bright[corner]


def damage_frame(path: Path, place: int) -> None:
    """Overwrite the data of one motion-JPEG frame, its header included."""
    data = bytearray(path.read_bytes())
    start = data.find(b"movi")
    for _ in range(place + 1):
        start = data.find(b"00dc", start + 1)
    size = int.from_bytes(data[start + 4 : start + 8], "little")
    data[start + 8 : start + 8 + size] = b"\x55" * size
    path.write_bytes(data)


@pytest.mark.parametrize("kind", FrameChoiceKind)
def test_broken_frame_in_the_middle(tmp_path: Path, kind: FrameChoiceKind) -> None:
    path = write(tmp_path / "b.avi", numbered(30))
    damage_frame(path, 12)
    frames = read_frames(path, FrameChoice(kind, count=30, rate_hz=100.0))
    assert [number(photo) for photo in frames.photos] == [*range(12), *range(13, 30)]
    assert frames.indices == tuple(range(29))
    assert frames.photos[12].time_s == pytest.approx(1.3)


def test_broken_first_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "b.avi", numbered(10))
    damage_frame(path, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BrokenVideoWarning)
        assert [number(p) for p in read_frames(path, FrameChoice(count=2)).photos] == [1, 9]


def test_truncated_video_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.avi", numbered(40))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.warns(BrokenVideoWarning, match=r"Only \d+ of 40 frames of cut.avi") as caught:
        frames = read_frames(path, FrameChoice(count=5))
    assert len(caught) == 1
    assert len(frames.indices) == 5
    assert 4 < frames.indices[-1] < 35
    assert frames.indices[0] == 0
    with pytest.warns(BrokenVideoWarning):
        assert len(list(iterate_frames(path))) == frames.indices[-1] + 1


@pytest.mark.parametrize("stated", [0, 7, 4000])
def test_container_that_miscounts(walk: Path, monkeypatch: pytest.MonkeyPatch, stated: int) -> None:
    monkeypatch.setattr(Capture, "stated_frames", lambda _: stated)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BrokenVideoWarning)
        assert read_frames(walk, FrameChoice(COUNT, count=3)).indices == (0, 20, 39)


def test_container_without_times(walk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Timeless:
        def __init__(self, *arguments: object) -> None:
            self.capture = original(*arguments)

        def get(self, quantity: int) -> float:
            return 0.0 if quantity == cv2.CAP_PROP_POS_MSEC else self.capture.get(quantity)

        def __getattr__(self, name: str) -> object:
            return getattr(self.capture, name)

    original = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Timeless)
    times = [photo.time_s for photo in read_frames(walk, FrameChoice(count=40)).photos]
    assert times == pytest.approx(np.arange(40) / 10)


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "zero.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "letter.avi").write_text("Dear all")
    whole = write(tmp_path / "whole.mp4", numbered(20), codec="mp4v").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    assert "0 bytes" in failure(tmp_path / "zero.mp4")
    for name, words in (("noise.mp4", "no frames"), ("letter.avi", "no frames"), ("half.mp4", "untrunc")):
        message = failure(tmp_path / name)
        assert words in message
        assert name in message
    assert "no such file" in failure(tmp_path / "none.mp4")
    assert "a folder" in failure(tmp_path)


def test_damaged_videos_print_nothing(tmp_path: Path) -> None:
    """In a process of its own: OpenCV decides what to print when it first touches a video."""
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 20)
    whole = write(tmp_path / "whole.mp4", numbered(20), codec="mp4v").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    damage_frame(write(tmp_path / "broken.avi", numbered(20)), 10)
    code = f"""
import contextlib
from pathlib import Path
from g2vlm.errors import InputError
from g2vlm.inputs.video import read_frames
for name in ("noise.mp4", "half.mp4", "broken.avi"):
    with contextlib.suppress(InputError):
        read_frames(Path({str(tmp_path)!r}, name))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_video_without_frames(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "none.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    writer.release()
    assert "no frames" in failure(tmp_path / "none.mp4")
    path = write(tmp_path / "all_broken.avi", numbered(2))
    damage_frame(path, 0)
    damage_frame(path, 1)
    assert "frames" in failure(path)


def test_unreadable_video(walk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "locked.mp4").write_bytes(b"not a video")
    monkeypatch.setattr(Path, "open", refuse)
    assert "permission denied" in failure(tmp_path / "locked.mp4")


def test_extreme_shape(tmp_path: Path) -> None:
    path = write(tmp_path / "flat.avi", [np.zeros((16, 640, 3), np.uint8)] * 2)
    assert "flat.avi" in failure(path)
    assert "too elongated" in failure(path)


def test_name_that_is_a_pattern_to_others(tmp_path: Path) -> None:
    path = write(tmp_path / "f.avi", numbered(3)).rename(tmp_path / "frame_%03d.avi")
    assert read_frames(path).indices == (0, 1, 2)


@pytest.mark.parametrize("count", [0, -1, 1001])
def test_wrong_count(count: int) -> None:
    with pytest.raises(InputError, match=f"got {count}"):
        FrameChoice(count=count)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_wrong_rate(rate: float) -> None:
    with pytest.raises(InputError, match="positive"):
        FrameChoice(rate_hz=rate)


def test_too_many_frames(walk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FRAMES", 30)
    assert "40 frames of walk.avi" in failure(walk, FrameChoice(RATE, count=1, rate_hz=100.0))
    assert len(read_frames(walk, FrameChoice(RATE, count=1, rate_hz=100.0), max_frames=30).indices) == 30


def test_streaming_every_frame_or_some(walk: Path) -> None:
    assert [number(photo) for photo in iterate_frames(walk)] == list(range(40))
    photos = list(iterate_frames(walk, rate_hz=2.0))
    assert [number(photo) for photo in photos] == list(range(0, 40, 5))
    assert [photo.time_s for photo in photos] == pytest.approx(np.arange(8) / 2)
    stream = iterate_frames(walk)
    assert number(next(stream)) == 0
    stream.close()
    with pytest.raises(InputError, match="positive"):
        next(iterate_frames(walk, rate_hz=0.0))


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    """60 frames of 0.9 MB pass through; a handful may be alive at once."""
    path = write(tmp_path / "long.avi", numbered(60, 640, 480))
    tracemalloc.start()
    for _ in iterate_frames(path):
        pass
    for kind in FrameChoiceKind:
        read_frames(path, FrameChoice(kind, count=2, rate_hz=0.1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 640 * 480 * 3


@pytest.mark.parametrize("total", range(12))
@pytest.mark.parametrize("count", range(1, 14))
def test_evenly_spread(total: int, count: int) -> None:
    places = evenly_spread(total, count)
    assert len(places) == min(total, count)
    assert places == sorted(set(places))
    if total:
        assert places[0] == 0
        assert places[-1] == (total - 1 if count > 1 else 0)
        assert np.ptp(np.diff(places, prepend=places[0] - 1)[1:]) <= 1 if len(places) > 2 else True
