"""Focal length and place from EXIF data."""

import math

import numpy as np
import pytest
from PIL import ExifTags, Image

from g2vlm.errors import InputError
from g2vlm.inputs.known.photo_facts import PhotoFile, east_north_up, exif_intrinsics, exif_positions

SIZE = (600, 400)


def photo(folder, name="a.jpg", tags=None, gps=None, size=SIZE) -> PhotoFile:
    image, exif = Image.new("RGB", size), Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif).update(tags or {})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps or {})
    image.save(folder / name, exif=exif)
    return PhotoFile(name, folder / name, size)


def focal(*photos: PhotoFile) -> float:
    return exif_intrinsics(photos).cameras[0].K[0, 0]


def test_the_equivalent_focal_length_refers_to_the_diagonal(tmp_path):
    found = exif_intrinsics([photo(tmp_path, tags={0xA405: 28})]).cameras[0]
    assert found.K[0, 0] == pytest.approx(28 / math.hypot(36, 24) * math.hypot(600, 400))
    assert found.K[0, 0] == pytest.approx(28 / 36 * 600)  # of 3:2 pictures, along the width too
    np.testing.assert_allclose(found.K[:2, 2], [299.5, 199.5])
    turned = photo(tmp_path, "b.jpg", {0xA405: 28}, size=(400, 600))
    assert focal(turned) == pytest.approx(found.K[0, 0])


def test_pixels_of_the_sensor_come_before_the_equivalent(tmp_path):
    # 5 mm lens, 1000 pixels a millimetre, resized to a half since: 2500 px.
    tags = {0x920A: 5.0, 0xA20E: 1000.0, 0xA210: 4, 0xA002: 1200, 0xA405: 90}
    assert focal(photo(tmp_path, tags=tags)) == pytest.approx(2500)
    inches = {0x920A: 5.0, 0xA20E: 25400.0, 0xA210: 2, 0xA002: 600}
    assert focal(photo(tmp_path, "b.jpg", inches)) == pytest.approx(5000)


def test_senseless_focal_lengths_do_not_count(tmp_path):
    absurd = {0x920A: 5.0, 0xA20E: 1e9, 0xA210: 4, 0xA405: 28}
    assert focal(photo(tmp_path, tags=absurd)) == pytest.approx(28 / 36 * 600)
    with pytest.raises(InputError, match="messengers"):
        exif_intrinsics([photo(tmp_path, "c.jpg", {0xA405: 0}), PhotoFile("memory", None, SIZE)])


def gps_tags(latitude: float, longitude: float, altitude: float = 0.0) -> dict:
    def parts(value: float) -> tuple[float, float, float]:
        value = abs(value)
        return (float(int(value)), float(int(value * 60 % 60)), round(value * 3600 % 60, 6))

    south, west = latitude < 0, longitude < 0
    return {
        1: "S" if south else "N",
        2: parts(latitude),
        3: "W" if west else "E",
        4: parts(longitude),
        5: b"\x01" if altitude < 0 else b"\x00",
        6: abs(altitude),
    }


def test_positions_are_east_north_up_in_metres(tmp_path):
    places = [(52.5, 13.4, 30.0), (52.501, 13.4, 30.0), (52.5, 13.401, 35.0)]
    photos = [photo(tmp_path, f"{i}.jpg", gps=gps_tags(*place)) for i, place in enumerate(places)]
    first, north, east = (each.position_m for each in exif_positions(photos).positions)
    np.testing.assert_allclose(first, 0, atol=1e-6)
    np.testing.assert_allclose(north, [0, 111.26, 0], atol=0.1)
    np.testing.assert_allclose(east, [67.87, 0, 5], atol=0.1)


def test_south_and_west_count_downwards():
    south = east_north_up((-33.001, -70.0, 0.0), (-33.0, -70.0, 0.0))
    west = east_north_up((-33.0, -70.001, 0.0), (-33.0, -70.0, 0.0))
    np.testing.assert_allclose(south, [0, -110.9, 0], atol=0.1)
    np.testing.assert_allclose(west, [-93.4, 0, 0], atol=0.1)


def test_tags_are_read_with_their_signs(tmp_path):
    photos = [photo(tmp_path, f"{i}.jpg", gps=gps_tags(-33 - 0.001 * i, -70, -5 * i)) for i in range(2)]
    np.testing.assert_allclose(exif_positions(photos).positions[1].position_m, [0, -110.9, -5], atol=0.1)


def test_photos_without_places_are_refused(tmp_path):
    with pytest.raises(InputError, match="got 0 of 2"):
        exif_positions([photo(tmp_path), photo(tmp_path, "b.jpg", gps={2: (1.0,), 4: (2.0,)})])
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match="got 0 of 1"):
        exif_positions([PhotoFile("broken.jpg", tmp_path / "broken.jpg", SIZE)])
