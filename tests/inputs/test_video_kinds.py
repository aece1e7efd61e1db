"""Videos as telephones and camcorders write them: by content, in square pixels, by time; and what is none."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from g2vlm.errors import InputError
from g2vlm.inputs.capture import Capture
from g2vlm.inputs.formats.kinds import FileKind, kind_of
from g2vlm.inputs.formats.video_files import coded_size, is_cover_art
from g2vlm.inputs.frame_choice import FrameChoice, FrameChoiceKind, choose_frames
from g2vlm.inputs.photos import load_photos
from g2vlm.inputs.reduction import Reduction


def video(path: Path, codec: str = "mp4v", frames: int = 8) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 20 * index % 256, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "MJPG")])
def test_videos_are_known_by_their_content(tmp_path: Path, suffix: str, codec: str) -> None:
    path = video(tmp_path / f"v.{suffix}", codec)
    for name in ("no_ending", "photo.jpg"):
        assert len(load_photos(path.rename(tmp_path / name)).photos) == 8
        path = tmp_path / name


def test_kinds_by_first_bytes() -> None:
    packets = (b"\x47" + bytes(187)) * 5
    assert kind_of(packets) is kind_of(bytes(4) + b"\x47" + (bytes(191) + b"\x47") * 4) is FileKind.VIDEO
    assert kind_of(b"const x = 1;", ".ts") is FileKind.UNKNOWN
    assert kind_of(b"\0\0\0\x20ftypM4A ") is FileKind.AUDIO
    assert kind_of(b"\0\0\0\x20ftypheic") is FileKind.IMAGE
    assert kind_of(b"II*\0" + bytes(99), ".nef") is FileKind.RAW


def test_pixels_that_are_not_square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video(tmp_path / "v.mp4")
    original = cv2.VideoCapture

    class Anamorphic:
        def __init__(self, *arguments: object) -> None:
            self.capture = original(*arguments)

        def get(self, quantity: int) -> float:
            told = {cv2.CAP_PROP_SAR_NUM: 2.0, cv2.CAP_PROP_SAR_DEN: 1.0, cv2.CAP_PROP_ORIENTATION_META: turn}
            return told.get(quantity, self.capture.get(quantity))

        def __getattr__(self, name: str) -> object:
            return getattr(self.capture, name)

    monkeypatch.setattr(cv2, "VideoCapture", Anamorphic)
    for degrees, size in ((0.0, (128, 48)), (90.0, (64, 96))):
        turn = degrees
        assert load_photos(path).photos[0].size == size


def test_frames_of_a_changing_size_keep_their_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video(tmp_path / "v.mp4")
    monkeypatch.setattr(Capture, "_coded_sizes", lambda _: [(0, (64, 48)), (5, (48, 64))])
    with pytest.warns(UserWarning, match="size of the pictures changes"):
        photos = load_photos(path).photos
    assert [photo.size for photo in photos] == [(64, 48)] * 5 + [(48, 64)] * 3


def bits(*values: tuple[int, int] | int) -> bytes:
    """Pack (value, number of bits) pairs, and plain numbers in Exp-Golomb code."""
    text = ""
    for value in values:
        if isinstance(value, tuple):
            text += f"{value[0]:0{value[1]}b}"
        else:
            code = f"{value + 1:b}"
            text += "0" * (len(code) - 1) + code
    text += "1"
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def test_sizes_in_parameter_sets() -> None:
    # Baseline profile, 1920x1080: 120 by 68 blocks, the last eight rows cropped.
    h264 = bits((66, 8), (0, 16), 0, 0, 2, 1, (0, 1), 119, 67, (1, 1), (1, 1), (1, 1), 0, 0, 0, 4, (0, 1))
    assert coded_size(b"\0\0\0\1\x09\xf0" + b"\0\0\0\1\x67" + h264) == (1920, 1080)
    hevc = bits((0, 4), (0, 3), (1, 1), (2**95 + 12345, 96), 0, 1, 1920, 1088, (1, 1), 0, 0, 0, 4, 0, 0)
    assert coded_size(b"\0\0\0\1\x42\x01" + hevc) == (1920, 1080)
    assert coded_size(b"\0\0\1\x67\xff") is None
    assert coded_size(bytes(300)) is None


def test_uneven_rhythms_are_chosen_by_time() -> None:
    times = [0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 6.0, 9.0]
    assert choose_frames(times, FrameChoice(count=4)) == [0, 5, 6, 7]
    assert choose_frames(list(np.arange(40) / 10), FrameChoice(count=4)) == [0, 13, 26, 39]
    pages = [None] * 9
    assert choose_frames(pages, FrameChoice(count=3)) == [0, 4, 8]
    assert choose_frames(pages, FrameChoice(FrameChoiceKind.RATE)) == list(range(9))


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


def sound(*extra: bytes) -> bytes:
    """An MP4 file with one track of sound."""
    handler = box(b"hdlr", bytes(8) + b"soun" + bytes(12))
    return box(b"ftyp", b"isom" + bytes(8)) + box(
        b"moov", box(b"trak", box(b"mdia", handler)) + b"".join(extra)
    )


def test_files_without_pictures_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(sound())
    with pytest.raises(InputError, match="sound without pictures"):
        load_photos(path)
    path.write_bytes(sound(box(b"covr", b"...")))
    assert is_cover_art(path, "MJPG")
    assert not is_cover_art(path, "avc1")
    path.write_bytes(box(b"ftyp", b"isom" + bytes(8)) + box(b"mdat", bytes(99)))
    with pytest.raises(InputError, match=r"index \(the moov box\) is missing.*repair it"):
        load_photos(path)
    (tmp_path / "song.mp3").write_bytes(b"ID3" + bytes(99))
    with pytest.raises(InputError, match="sound without pictures"):
        load_photos(tmp_path / "song.mp3")


def test_progress_and_reduction_of_frames(tmp_path: Path) -> None:
    path = video(tmp_path / "v.avi", "MJPG", frames=40)
    told: list[tuple[int, int]] = []
    keep = Reduction(width=56, semantic_side=None)
    photos = load_photos(path, keep=keep, on_progress=lambda done, total: told.append((done, total))).photos
    assert told[0] == (16, 40)
    assert told[-1] == (40, 40)
    assert photos[3]._image is None
    assert photos[3].image.size == (64, 48)


def test_panorama_videos_are_told(tmp_path: Path) -> None:
    path = video(tmp_path / "v.mp4")
    data = path.read_bytes()
    at = data.index(b"moov") - 4
    size = struct.unpack_from(">I", data, at)[0]
    extra = box(
        b"uuid", bytes(16) + b"<GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType>"
    )
    path.write_bytes(
        data[:at]
        + struct.pack(">I", size + len(extra))
        + data[at + 4 : at + size]
        + extra
        + data[at + size :]
    )
    with pytest.warns(UserWarning, match="panorama video"):
        load_photos(path)
