"""The original photos: found where they are, upright, under names that any reader takes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rendered_room import rendered_room

from g2vlm.export.originals import MissingOriginalWarning, image_names, originals, place_image
from g2vlm.scene.save_options import ImageFiles
from g2vlm.scene.scene import Scene


def test_files_at_hand_are_copied_as_they_are(room, tmp_path):
    for original, view in zip(originals(room), room.views, strict=True):
        assert original.path == Path(view.source_path)
        place_image(original, tmp_path / "a.png", ImageFiles.COPY)
        assert (tmp_path / "a.png").read_bytes() == original.path.read_bytes()


def test_photos_stored_lying_are_written_upright(room, tmp_path):
    view = room.views[0]
    upright = Image.open(view.source_path)
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
    scene = Scene((replace(view, name=path.name, source_path=str(path)),), room.scale)
    (original,) = originals(scene)
    assert original.path is None
    place_image(original, tmp_path / "out.jpg", ImageFiles.LINK)
    with Image.open(tmp_path / "out.jpg") as written:
        assert written.size == view.original_size
        assert written.getexif().get(0x0112, 1) == 1
        off = np.abs(np.asarray(written, float) - np.asarray(upright, float))
    assert off.mean() < 4


def test_moved_photos_are_found_by_name(room, tmp_path):
    view = room.views[0]
    moved = tmp_path / Path(view.source_path).name
    moved.write_bytes(Path(view.source_path).read_bytes())
    scene = Scene((replace(view, source_path=f"/nowhere/{moved.name}"),), room.scale)
    (original,) = originals(scene, tmp_path)
    assert original.path == moved
    with pytest.warns(MissingOriginalWarning, match="photo 0.png are not at hand"):
        (stand_in,) = originals(scene)
    assert stand_in.is_stand_in
    # The network's image, enlarged: the same picture, pixel on pixel.
    off = np.asarray(stand_in.image, float)[1::3, 1::3] - view.rgb
    assert np.abs(off).max() <= 1


def test_a_file_of_another_size_is_not_the_original(room, tmp_path):
    path = tmp_path / "other.png"
    Image.new("RGB", (10, 10)).save(path)
    scene = Scene((replace(room.views[0], source_path=str(path)),), room.scale)
    with pytest.warns(MissingOriginalWarning):
        assert next(originals_of(scene)).is_stand_in


def originals_of(scene: Scene):
    return iter(list(originals(scene)))


@pytest.mark.parametrize("order", [[0, 2, 5], [5, 0, 2]])
def test_frames_of_a_video_are_decoded_again(tmp_path, order):
    import cv2

    room = rendered_room(tmp_path / "photos", views=2, factor=4)
    width, height = room.views[0].original_size
    video = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (width, height))
    for index in range(6):
        video.write(np.full((height, width, 3), 40 * index, np.uint8))
    video.release()
    views = [
        replace(room.views[0], name=f"a_{index}", source_path=str(tmp_path / "a.avi"), frame_index=index)
        for index in order
    ]
    levels = [np.asarray(each.image).mean() for each in originals(Scene(tuple(views), room.scale))]
    np.testing.assert_allclose(levels, [40 * index for index in order], atol=4)


def test_names_are_distinct_words_with_an_ending_for_pictures(room):
    names = [
        "my photo.JPG",
        "my_photo.jpg",
        "IMG.HEIC",
        "a/b.png",
        "scan.tif",
        "walk_000012",
        ".png",
        "küche.jpeg",
    ]
    views = tuple(replace(room.views[0], name=name) for name in names)
    found = image_names(Scene(views, room.scale))
    assert found[:3] == ["my_photo.JPG", "my_photo-2.jpg", "IMG.jpg"]
    assert found[4:6] == ["scan.png", "walk_000012.jpg"]
    assert len({name.casefold() for name in found}) == len(found)
    assert not any(set(" /\\") & set(name) for name in found)
    assert all(Path(name).suffix.lower() in (".jpg", ".jpeg", ".png") for name in found)
