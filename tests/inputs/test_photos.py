"""Where photos come from, in what order, and what is said about those that cannot be used."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.inputs import reading
from g2vlm.inputs.decode import Picture
from g2vlm.inputs.photos import (
    FrameChoice,
    PhotoSet,
    SkippedInputWarning,
    load_photos,
    natural_key,
)


def save(path: Path, level: int = 100, size: tuple[int, int] = (20, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)
    return path


def names(photos: PhotoSet) -> list[str]:
    return [photo.name for photo in photos.photos]


def levels(photos: PhotoSet) -> list[int]:
    return [photo.image.getpixel((0, 0))[0] for photo in photos.photos]


def failure(source: object, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        load_photos(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def warning(source: object, **options: object) -> tuple[str, PhotoSet]:
    with pytest.warns(SkippedInputWarning) as caught:
        photos = load_photos(source, **options)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    return str(caught[0].message), photos


def write_video(path: Path, frames: int = 6) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
    for index in range(frames):
        writer.write(np.full((24, 32, 3), 20 * index, np.uint8))
    writer.release()
    return path


def test_natural_order() -> None:
    ordered = ["1.jpg", "02.jpg", "2.jpg", "10.jpg", "a/img9.jpg", "a/img10.jpg", "b/img1.jpg"]
    ordered += ["IMG.jpg", "img1.jpg", "img1-2.jpg", "IMG2.jpg", "img2.png", "img10.jpg", "x"]
    for seed in range(5):
        shuffled = list(np.random.default_rng(seed).permutation(ordered))
        assert sorted(shuffled, key=natural_key) == ordered


@pytest.mark.parametrize("name", ["", "²", "٣", "a/b.jpg", "a.jpg", "1/2", "12"])
def test_any_names_can_be_compared(name: str) -> None:
    others = ["a", "a.jpg", "a/b", "1", "a/b/c.jpg", "a/b.jpg/c"]
    assert len(sorted([name, *others], key=natural_key)) == 7


def test_photos_know_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [save(tmp_path / "a.png"), save(tmp_path / "b.png")]
    monkeypatch.chdir(tmp_path)
    for source in (tmp_path, ".", "*.png", files, ["a.png", "b.png"]):
        photos = load_photos(source).photos
        assert [photo.path for photo in photos] == files
        assert all(photo.frame_index is None for photo in photos)
    assert load_photos("a.png").photos[0].path == files[0]
    assert load_photos(Image.new("RGB", (8, 8))).photos[0].path is None
    video = load_photos(write_video(tmp_path / "walk.avi"), frames=FrameChoice(count=3))
    assert [photo.frame_index for photo in video.photos] == list(video.frame_indices) == [0, 3, 5]
    assert {photo.path for photo in video.photos} == {tmp_path / "walk.avi"}


def test_folder_in_natural_order_without_hidden_and_system_files(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        save(tmp_path / f"img{number}.jpg", 10 * number)
    save(tmp_path / ".hidden.jpg")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    for source in (tmp_path, str(tmp_path)):
        photos = load_photos(source)
        assert names(photos) == ["img1.jpg", "img2.jpg", "img10.jpg"]
        assert photos.skipped == ()
        assert photos.source == str(tmp_path)
        assert photos.frame_indices is None
        assert [photo.time_s for photo in photos.photos] == [None] * 3


def test_endings_in_capitals_and_links(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "real.png")
    room = tmp_path / "room"
    room.mkdir()
    save(room / "A.PNG")
    (room / "link.png").symlink_to(tmp_path / "elsewhere" / "real.png")
    (tmp_path / "room_link").symlink_to(room)
    assert names(load_photos(tmp_path / "room_link")) == ["A.PNG", "link.png"]


def test_mixed_sizes_and_orientations(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg", size=(40, 30))
    save(tmp_path / "2.jpg", size=(30, 40))
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "3.jpg", exif=exif)
    assert [photo.image.size for photo in load_photos(tmp_path).photos] == [(40, 30), (30, 40), (48, 64)]


def test_unusable_files_are_left_out_and_named(tmp_path: Path) -> None:
    save(tmp_path / "good.jpg")
    data = save(tmp_path / "cut.jpg", size=(200, 200)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "noise.jpg").write_bytes(b"\x00\x01garbage" * 50)
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("chairs")
    (tmp_path / "README").write_text("chairs")
    (tmp_path / "inner").mkdir()
    save(tmp_path / "flat.png", size=(500, 2))
    write_video(tmp_path / "walk.avi")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    message, photos = warning(tmp_path)
    assert names(photos) == ["good.jpg"]
    reasons = {skipped.name: skipped.reason for skipped in photos.skipped}
    assert reasons.keys() == {
        *(
            "cut.jpg",
            "noise.jpg",
            "zero.png",
            "notes.txt",
            "README",
            "inner",
            "flat.png",
            "walk.avi",
            "gone.jpg",
        )
    }
    assert "truncated" in reasons["cut.jpg"]
    assert "not an image" in reasons["noise.jpg"]
    assert "0 bytes" in reasons["zero.png"]
    assert reasons["notes.txt"] == "not a photo: ending '.txt'"
    assert reasons["README"] == "not a photo: no ending"
    assert reasons["inner"].startswith("a folder")
    assert "elongated" in reasons["flat.png"]
    assert reasons["walk.avi"].startswith("a video")
    assert "does not exist" in reasons["gone.jpg"]
    assert message.startswith("Left out 9 of the inputs in ")
    assert "and 1 more" in message


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("chairs")
    message = failure(tmp_path)
    assert "No usable photo in" in message
    assert "zero.png (empty file, 0 bytes)" in message
    assert "notes.txt" in message


def test_empty_and_missing_folder(tmp_path: Path) -> None:
    assert "is empty" in failure(tmp_path)
    (tmp_path / ".hidden").write_bytes(b"x")
    assert "is empty" in failure(tmp_path)
    assert "No such file or folder" in failure(tmp_path / "none")
    assert "empty path" in failure("")


def test_impossible_paths() -> None:
    assert "Cannot look up" in failure("x" * 5000)
    assert "download it first" in failure("https://example.org/room.jpg")


def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert failure(tmp_path) == f"Cannot read the folder {tmp_path}: Permission denied."


def test_folder_of_videos_says_so(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi")
    assert f"one video: pass a video on its own, such as {tmp_path / 'a.avi'}" in failure(tmp_path)
    write_video(tmp_path / "b.avi")
    assert "2 videos" in failure(tmp_path)


def test_folder_of_folders(tmp_path: Path) -> None:
    save(tmp_path / "kitchen" / "1.jpg")
    assert "kitchen (a folder: pass it on its own)" in failure(tmp_path)


def test_pattern(tmp_path: Path) -> None:
    for number in (10, 9):
        save(tmp_path / f"img{number}.jpg")
    save(tmp_path / "other.png")
    save(tmp_path / "deep" / "er" / "img1.jpg")
    assert names(load_photos(f"{tmp_path}/img*.jpg")) == ["img9.jpg", "img10.jpg"]
    assert names(load_photos(tmp_path / "**" / "*.jpg")) == ["img1.jpg", "img9.jpg", "img10.jpg"]
    assert "No file matches" in failure(f"{tmp_path}/*.webp")
    assert "is empty" not in failure(f"{tmp_path}/none*")


def test_folder_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    save(tmp_path / "room[1]" / "a.jpg")
    assert names(load_photos(tmp_path / "room[1]")) == ["a.jpg"]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.jpg")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names(load_photos("~/a.jpg")) == ["a.jpg"]
    assert names(load_photos(["~/a.jpg"])) == ["a.jpg"]


def test_single_photo_whatever_its_ending(tmp_path: Path) -> None:
    assert names(load_photos(save(tmp_path / "a.png"))) == ["a.png"]
    save(tmp_path / "b.png").rename(tmp_path / "b.xyz")
    assert names(load_photos(tmp_path / "b.xyz")) == ["b.xyz"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("notes.txt", b"chairs", "not an image"),
        ("photo.xyz", b"\x00" * 64, "not an image"),
        ("zero.jpg", b"", "0 bytes"),
        ("zero.mp4", b"", "0 bytes"),
        ("noise.mp4", b"\x01\x02" * 900, "no frames"),
    ],
)
def test_single_unusable_file(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    message = failure(tmp_path / name)
    assert words in message
    assert str(tmp_path / name) in message


def test_list_keeps_its_order(tmp_path: Path) -> None:
    first, second = save(tmp_path / "b.png", 50), save(tmp_path / "a.png", 60)
    array = np.full((16, 20, 3), 70, np.uint8)
    photos = load_photos([str(first), second, array, Image.new("L", (20, 16), 80)])
    assert names(photos) == ["b.png", "a.png", "image_2", "image_3"]
    assert levels(photos) == [50, 60, 70, 80]


def test_list_with_unusable_elements(tmp_path: Path) -> None:
    good = save(tmp_path / "a.png")
    message, photos = warning([tmp_path / "none.png", good, np.zeros((4, 4, 9), np.uint8), tmp_path])
    assert names(photos) == ["a.png"]
    assert [skipped.name for skipped in photos.skipped] == ["none.png", "image_2", tmp_path.name]
    assert "none.png (no such file)" in message
    assert "got none in a list" in failure([])
    assert "No usable photo in a list" in failure([tmp_path / "none.png"])


def test_images_in_memory() -> None:
    assert names(load_photos(Image.new("RGB", (20, 16)))) == ["image_0"]
    assert names(load_photos(np.zeros((16, 20, 3), np.uint8))) == ["image_0"]
    stack = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 20, 3), np.uint8)
    assert levels(load_photos(stack)) == [0, 1, 2]
    assert load_photos(stack).source == "memory"
    assert "shape" in failure(np.zeros(5, np.uint8))
    assert "got none in memory" in failure(np.zeros((0, 16, 20, 3), np.uint8))


def test_photos_of_the_same_name_are_numbered(tmp_path: Path) -> None:
    for room in ("a", "b", "c"):
        save(tmp_path / room / "0.jpg")
    save(tmp_path / "d" / "0-2.jpg")
    photos = load_photos([tmp_path / room / "0.jpg" for room in "abc"] + [tmp_path / "d" / "0-2.jpg"])
    assert names(photos) == ["0.jpg", "0-3.jpg", "0-4.jpg", "0-2.jpg"]


def test_names_that_cannot_be_printed(tmp_path: Path) -> None:
    save(tmp_path / "two\nlines.jpg")
    (tmp_path / "bad\nzero.jpg").write_bytes(b"")
    message, photos = warning(tmp_path)
    assert names(photos) == ["two?lines.jpg"]
    assert "bad?zero.jpg" in message


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    save(tmp_path / "a.jpg").rename(tmp_path / os.fsdecode(b"caf\xe9.jpg"))
    assert os.listdir(folder) == [b"caf\xe9.jpg"]
    assert names(load_photos(tmp_path)) == ["caf?.jpg"]


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, [*range(10)]), (99, [*range(10)])]
)
def test_limit_keeps_an_evenly_spread_part(tmp_path: Path, limit: int, expected: list[int]) -> None:
    for number in range(10):
        save(tmp_path / f"{number}.png", number)
    assert levels(load_photos(tmp_path, max_views=limit)) == expected


def test_limit_counts_usable_photos_only(tmp_path: Path) -> None:
    for number in range(10):
        save(tmp_path / f"{number}.png", number)
    for number in (0, 3, 9):
        (tmp_path / f"{number}.png").write_bytes(b"")
    _, photos = warning(tmp_path, max_views=4)
    assert levels(photos) == [1, 4, 6, 8]
    assert {skipped.name for skipped in photos.skipped} == {"0.png", "3.png", "9.png"}


def test_limit_decodes_no_more_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    original: Callable[[Path], Picture] = reading.read_file

    def count(path: Path) -> Picture:
        decoded.append(path.name)
        return original(path)

    monkeypatch.setattr(reading, "read_file", count)
    for number in range(9):
        save(tmp_path / f"{number}.png")
    load_photos(tmp_path, max_views=3)
    assert sorted(decoded) == ["0.png", "4.png", "8.png"]


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_below_one(tmp_path: Path, limit: int) -> None:
    save(tmp_path / "a.png")
    assert f"at least 1 view, got {limit}" in failure(tmp_path, max_views=limit)


def test_video_records_the_frames_chosen(tmp_path: Path) -> None:
    path = write_video(tmp_path / "walk.avi")
    photos = load_photos(path, frames=FrameChoice(count=3))
    assert photos.frame_indices == (0, 3, 5)
    assert names(photos) == ["walk_000000", "walk_000003", "walk_000005"]
    assert [photo.time_s for photo in photos.photos] == pytest.approx([0, 0.3, 0.5])
    assert load_photos(path, max_views=2).frame_indices == (0, 5)
    assert photos.source == str(path)


def test_loading_says_nothing_when_all_is_well(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_photos(tmp_path)
        load_photos(write_video(tmp_path / "v.avi"))
    assert capfd.readouterr() == ("", "")


def test_photos_that_were_loaded_before_are_only_thinned():
    pictures = [np.full((8, 8, 3), i, np.uint8) for i in range(5)]
    loaded = load_photos(pictures)
    assert load_photos(loaded) is loaded
    assert load_photos(loaded, max_views=9) is loaded
    thinned = load_photos(loaded, max_views=3)
    assert thinned.photos == tuple(loaded.photos[i] for i in (0, 2, 4))
    assert thinned.source == loaded.source
