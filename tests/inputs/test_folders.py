"""Folders as people have them, sizes that make little sense, panoramas, and memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from g2vlm.errors import InputError, MemoryLimitError
from g2vlm.inputs import reading
from g2vlm.inputs.decode import Picture, read_file
from g2vlm.inputs.geometric import Fit, StretchedPhotosWarning, prepare_geometric
from g2vlm.inputs.photos import SkippedInputWarning, UnusualPhotoWarning, load_photos
from g2vlm.inputs.reduction import Reduction
from g2vlm.inputs.semantic import prepare_semantic


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (96, 72), **options: object) -> Path:
    noise = np.random.default_rng(len(path.name)).integers(0, 255, (size[1], size[0], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        Image.fromarray(np.full((size[1], size[0]), 2000, np.uint16)).save(path)
    else:
        Image.fromarray(noise).convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("photo", "beside", "mode"),
    [
        ("frame_0.jpg", "frame_0_mask.png", "1"),
        ("frame_0.jpg", "frame_0_mask.png", "RGB"),
        ("frame_0.jpg", "frame_0_depth.png", "I;16"),
        ("frame_0.jpg", "frame_0.png", "I;16"),
        ("frame_0.jpg", "frame_0.jpg.png", "L"),
        ("0001.jpg", "0001.png", "P"),
        ("rgb_1.png", "depth_1.png", "RGB"),
        ("a.jpg", "whatever.tif", "I;16"),
        ("a.jpg", "seg-3.png", "L"),
    ],
)
def test_what_lies_beside_photos_is_no_view(tmp_path: Path, photo: str, beside: str, mode: str) -> None:
    save(tmp_path / photo)
    save(tmp_path / beside, mode)
    with pytest.warns(SkippedInputWarning, match=beside) as caught:
        photos = load_photos(tmp_path)
    assert len(caught) == 1
    assert [view.name for view in photos.photos] == [photo]
    assert [skipped.name for skipped in photos.skipped] == [beside]
    assert photos.notices == (str(caught[0].message),)
    assert [view.name for view in load_photos([tmp_path / beside]).photos] == [beside]
    assert [view.name for view in load_photos(str(tmp_path / "*")).photos] == sorted([photo, beside])


@pytest.mark.parametrize(
    ("names", "mode"),
    [
        (["frame_0.png", "frame_1.png"], "I;16"),
        (["mask_0.png", "mask_1.png"], "1"),
        (["a.jpg", "b.jpg"], "L"),
        (["a.jpg", "unmasked.jpg"], "RGB"),
        (["a.jpg", "depth.jpg"], "RGB"),
    ],
)
def test_photos_that_lie_beside_nothing_stay(tmp_path: Path, names: list[str], mode: str) -> None:
    for name in names:
        save(tmp_path / name, mode)
    assert [view.name for view in load_photos(tmp_path).photos] == names


def test_raw_versions_of_a_photo_are_no_views(tmp_path: Path) -> None:
    save(tmp_path / "IMG_1.JPG")
    (tmp_path / "IMG_1.DNG").write_bytes(b"II*\0" + bytes(100))
    with pytest.warns(SkippedInputWarning, match=r"raw versions.*IMG_1\.DNG"):
        assert len(load_photos(tmp_path).photos) == 1


def test_patterns_in_folders_with_brackets(tmp_path: Path) -> None:
    save(tmp_path / "trip [2024]" / "IMG 0 [1].JPG")
    for pattern in ("*.JPG", "IMG 0 [1]*", "**/*.JPG"):
        assert len(load_photos(str(tmp_path / "trip [2024]" / pattern)).photos) == 1
    assert len(load_photos(str(tmp_path / "trip*" / "*.JPG")).photos) == 1


XMP = '<rdf:Description xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" {}/>'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (XMP.format('GPano:ProjectionType="equirectangular"'), "an equirectangular panorama"),
        ("<GPano:ProjectionType>cylindrical</GPano:ProjectionType>", "a cylindrical panorama"),
        ("<Camera:ProjectionType>fisheye</Camera:ProjectionType>", "a fisheye photo"),
    ],
)
@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_panoramas_are_told(tmp_path: Path, name: str, text: str, words: str) -> None:
    save(tmp_path / name, xmp=text.encode())
    with pytest.warns(UnusualPhotoWarning, match=words):
        load_photos(tmp_path / name)


def test_fisheye_lenses_are_told_and_others_not(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA434] = "10.5mm f/2.8G Fisheye"
    with pytest.warns(UnusualPhotoWarning, match="a fisheye photo"):
        load_photos(save(tmp_path / "a.jpg", exif=exif))
    exif.get_ifd(0x8769)[0xA434] = "24mm f/2.8"
    load_photos(
        save(tmp_path / "b.jpg", exif=exif, xmp=XMP.format("GPano:ProjectionType='perspective'").encode())
    )


def test_tiny_photos_are_refused_or_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"at least 14x14 pixels, got tiny\.png of 5x4"):
        load_photos(save(tmp_path / "tiny.png", size=(5, 4)), keep=Reduction())
    with pytest.warns(UnusualPhotoWarning, match=r"tiny \(40x30 pixels\)"):
        load_photos(save(tmp_path / "small.png", size=(40, 30)), keep=Reduction())


def test_long_photos_are_told_with_their_cost(tmp_path: Path) -> None:
    with pytest.warns(UnusualPhotoWarning, match=r"518x5180 pixels and take 13 to \d+ times as long"):
        load_photos(save(tmp_path / "tall.png", size=(100, 1000)), keep=Reduction())
    with pytest.warns(UnusualPhotoWarning, match="518x56 pixels"):
        load_photos(save(tmp_path / "wide.png", size=(900, 100)), keep=Reduction())


@pytest.mark.parametrize("fit", Fit)
def test_reduced_photos_give_the_same_inputs(tmp_path: Path, fit: Fit) -> None:
    for name, size in (("a.png", (400, 300)), ("b.png", (300, 400)), ("c.png", (400, 300))):
        save(tmp_path / name, size=size)
    whole = load_photos(tmp_path).photos
    keep = Reduction(width=112, fit=fit, semantic_side=56)
    reduced = load_photos(tmp_path, keep=keep).photos
    other = load_photos(tmp_path, keep=Reduction(width=70, semantic_side=None)).photos
    assert all(photo._image is None for photo in reduced)
    prepare = lambda photos: prepare_geometric(photos, width=112, fit=fit)  # noqa: E731
    with pytest.warns(StretchedPhotosWarning) if fit is Fit.STRETCH else pytest.MonkeyPatch.context():
        expected = prepare(whole)
        for photos in (reduced, other):
            assert (prepare(photos).pixels == expected.pixels).all()
    assert (prepare_semantic(reduced).patches == prepare_semantic(whole).patches).all()
    assert [photo.image.size for photo in reduced] == [photo.size for photo in whole]


def test_full_pictures_do_not_pile_up(tmp_path: Path) -> None:
    """24 photos of 12 MB each, in a process that may grow by little more than its threads hold."""
    for index in range(24):
        Image.new("RGB", (2000, 2000), (index, 0, 0)).save(tmp_path / f"{index}.jpg")
    code = f"""
import resource
from g2vlm.inputs.photos import Reduction, load_photos
load_photos({str(tmp_path / "0.jpg")!r}, keep=Reduction())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(load_photos({str(tmp_path)!r}, keep=Reduction()).photos) == 24
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    unit = 1024 if sys.platform != "darwin" else 1
    held = 24 * 3 * (518 * 518 + 768 * 768)
    assert int(done.stdout) * unit < held + 12e6 * (reading._num_threads() + 3)


def test_results_come_in_order_from_several_threads(tmp_path: Path) -> None:
    for index in range(12):
        Image.new("RGB", (900 if index % 2 else 60, 60), (20 * index, 0, 0)).save(tmp_path / f"{index}.png")
    told: list[tuple[int, int]] = []
    photos = load_photos(tmp_path, on_progress=lambda done, total: told.append((done, total))).photos
    assert [photo.image.getpixel((0, 0))[0] for photo in photos] == [20 * index for index in range(12)]
    assert told[-1] == (12, 12)
    assert told == sorted(told)


def test_a_machine_out_of_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        save(tmp_path / f"{index}.png")
    failed: list[str] = []

    def once(path: Path) -> Picture:
        if path.name in ("2.png", "3.png") and path.name not in failed:
            failed.append(path.name)
            raise MemoryLimitError("full")
        return read_file(path)

    monkeypatch.setattr(reading, "read_file", once)
    assert len(load_photos(tmp_path).photos) == 6  # one after the other there was room

    def never(path: Path) -> Picture:
        raise MemoryLimitError("full")

    monkeypatch.setattr(reading, "read_file", never)
    with pytest.raises(MemoryLimitError, match="full"):
        load_photos(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")
def test_memory_that_runs_out_in_a_decoder_is_no_damage(tmp_path: Path) -> None:
    save(tmp_path / "a.png", size=(4000, 4000))
    code = f"""
import resource
from pathlib import Path
from g2vlm.errors import MemoryLimitError
from g2vlm.inputs.decode import read_file
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 60_000_000,) * 2)
try:
    read_file(Path({str(tmp_path / "a.png")!r}))
except MemoryLimitError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "has run out of it" in done.stdout
