"""Files of several pictures: which are views, and that each is decoded as itself."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from g2vlm.inputs.pages import find_pages
from g2vlm.inputs.photos import FrameChoice, FrameChoiceKind, load_photos
from g2vlm.inputs.reduction import Reduction
from g2vlm.inputs.video import iterate_numbered_frames
from g2vlm.video.frames import open_frames

LEVELS = [0, 30, 60, 90, 120, 150, 180, 210]


def pictures(size: tuple[int, int] = (32, 24)) -> list[Image.Image]:
    return [Image.new("RGB", size, (level, level, 255 - level)) for level in LEVELS]


def written(path: Path, **options: object) -> Path:
    first, *others = pictures()
    first.save(path, save_all=True, append_images=others, **options)
    return path


def levels(photos: list[Image.Image]) -> list[int]:
    return [photo.getpixel((3, 3))[0] for photo in photos]


FORMATS = [
    ("walk.gif", {"duration": 200}),
    ("walk.webp", {"duration": 200, "lossless": True}),
    ("walk.png", {"duration": 200}),
    ("pages.tif", {}),
]


@pytest.mark.parametrize(("name", "options"), FORMATS)
def test_all_pictures_are_views(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    path = written(tmp_path / name, **options)
    for source in (path, tmp_path, [path]):
        photos = load_photos(source).photos
        assert np.abs(np.subtract(levels([photo.image for photo in photos]), LEVELS)).max() <= 6
        assert [photo.frame_index for photo in photos] == list(range(8))
        assert {photo.path for photo in photos} == {path}
    if "duration" in options:
        assert [photo.time_s for photo in photos] == pytest.approx(np.arange(8) * 0.2)
    few = load_photos(path, frames=FrameChoice(count=3)).photos
    assert [photo.frame_index for photo in few] == [0, 4, 7]
    again = dict(iterate_numbered_frames(path, [2, 5]))
    assert list(again) == [2, 5]
    assert np.abs(np.subtract(levels([photo.image for photo in again.values()]), [60, 150])).max() <= 6
    assert len(list(open_frames(path))) == 8


def test_reduced_pictures_of_an_animation_can_be_had_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "walk.webp", duration=100, lossless=True)
    photos = load_photos(path, keep=Reduction(width=28, semantic_side=None)).photos
    assert levels([photo.image for photo in photos]) == LEVELS
    assert photos[3].image.size == (32, 24)


def test_a_rate_takes_pictures_by_time(tmp_path: Path) -> None:
    path = written(tmp_path / "walk.gif", duration=[100, 100, 100, 100, 3000, 100, 100, 100])
    photos = load_photos(path, frames=FrameChoice(FrameChoiceKind.RATE, rate_hz=1.0)).photos
    assert [photo.frame_index for photo in photos] == [0, 5]


def test_a_still_for_programs_that_know_no_animation_is_no_view(tmp_path: Path) -> None:
    first, *others = pictures()
    first.save(tmp_path / "a.png", save_all=True, append_images=others, default_image=True)
    assert find_pages(tmp_path / "a.png").places == tuple(range(1, 8))


def test_thumbnails_and_masks_of_tiff_are_no_views(tmp_path: Path) -> None:
    tags = []
    for kind in (0, 1, 4, 0):
        info = TiffImagePlugin.ImageFileDirectory_v2()
        info[254] = kind
        tags.append(info)
    buffer = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer, new=True) as writer:
        for image, info in zip(pictures(), tags, strict=False):
            image.save(writer, format="TIFF", tiffinfo=info)
            writer.newFrame()
    (tmp_path / "a.tif").write_bytes(buffer.getvalue())
    assert find_pages(tmp_path / "a.tif").places == (0, 3)


def test_stereo_pairs_are_two_views(tmp_path: Path) -> None:
    left, right = pictures()[2:4]
    left.save(tmp_path / "pair.mpo", save_all=True, append_images=[right])
    photos = load_photos(tmp_path).photos
    assert np.abs(np.subtract(levels([photo.image for photo in photos]), [60, 90])).max() <= 6


def test_gain_maps_and_previews_behind_a_photo_are_no_views(tmp_path: Path) -> None:
    photo, other = pictures()[:2]
    for second in (other.convert("L"), other.resize((16, 12))):
        photo.save(tmp_path / "a.mpo", save_all=True, append_images=[second])
        assert find_pages(tmp_path / "a.mpo").places == (0,)
    photo.save(tmp_path / "b.mpo", save_all=True, append_images=[other])
    data = bytearray((tmp_path / "b.mpo").read_bytes())
    entry = data.index(struct.pack("<I", 0x030000), data.index(b"MPF\0") + 50) + 16
    data[entry : entry + 4] = struct.pack("<I", 0x010001)  # a large thumbnail
    (tmp_path / "b.mpo").write_bytes(data)
    assert find_pages(tmp_path / "b.mpo").places == (0,)


def test_raw_photos_are_never_their_previews(tmp_path: Path) -> None:
    entries = [(254, 4, 1, 1), (256, 4, 1, 32), (257, 4, 1, 24), (50706, 1, 4, 0x401)]
    body = b"II*\0" + struct.pack("<IH", 8, len(entries))
    body += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4000)
    for name in ("a.dng", "a.tif"):
        (tmp_path / name).write_bytes(body)
        with pytest.raises(ValueError, match=r"raw photo that cannot be developed|g2vlm\[raw"):
            load_photos(tmp_path / name)
