"""Focal lengths and places that photos tell about themselves in EXIF."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.geometry.known import CameraBook, KnownCamera, KnownPosition, PositionTrack
from g2vlm.inputs.decode import decoding

_EXIF, _GPS = 0x8769, 0x8825
_FOCAL_MM, _FOCAL_35, _PIXELS_X = 0x920A, 0xA405, 0xA002
_PLANE_X, _PLANE_UNIT = 0xA20E, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_FULL_FRAME_DIAGONAL_MM = math.hypot(36, 24)
_SANE_FOCAL = (0.2, 50.0)
"""Focal length in image diagonals that a lens can have."""
_WGS84_A, _WGS84_E2 = 6378137.0, 6.69437999014e-3


@dataclass(frozen=True)
class PhotoFile:
    """A photo whose metadata are wanted."""

    name: str
    """Of its view."""
    path: Path | None
    """The file; None for pictures from memory."""
    size: tuple[int, int]
    """Width and height of the upright picture."""


def exif_intrinsics(photos: Sequence[PhotoFile]) -> CameraBook:
    """Focal lengths from EXIF: from the size of sensor pixels where given, else the 35 mm equivalent.

    The principal point is the centre. The 35 mm equivalent refers to the diagonal (CIPA DCG-001).

    Raises:
        InputError: no photo says its focal length.
    """
    cameras = []
    for photo in photos:
        focal = _focal_px(photo)
        if focal is not None:
            width, height = photo.size
            K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
            cameras.append(KnownCamera(K, photo.size, photo.name))
    if not cameras:
        raise InputError(
            f"Expected focal lengths in the EXIF data of {len(photos)} photos, got none (messengers and "
            "editors "
            "remove them): give fx,fy,cx,cy instead."
        )
    return CameraBook(tuple(cameras), "EXIF")


def _focal_px(photo: PhotoFile) -> float | None:
    tags = _tags(photo.path, _EXIF)
    diagonal = math.hypot(*photo.size)
    for focal in (_by_sensor(tags, max(photo.size)), _by_equivalent(tags, diagonal)):
        if focal is not None and _SANE_FOCAL[0] <= focal / diagonal <= _SANE_FOCAL[1]:
            return focal
    return None


def _by_sensor(tags: Mapping[int, Any], longest: int) -> float | None:
    """From millimetres and sensor pixels per unit of length; None if the photo was cropped since."""
    focal, density, stored = (_number(tags.get(tag)) for tag in (_FOCAL_MM, _PLANE_X, _PIXELS_X))
    unit = _UNIT_MM.get(int(_number(tags.get(_PLANE_UNIT)) or 2))
    if not (focal and density and unit):
        return None
    # Resizing keeps the field of view: pixels of the sensor become pixels of the file.
    return focal * density / unit * (longest / stored if stored else 1.0)


def _by_equivalent(tags: Mapping[int, Any], diagonal: float) -> float | None:
    equivalent = _number(tags.get(_FOCAL_35))
    return equivalent / _FULL_FRAME_DIAGONAL_MM * diagonal if equivalent else None


def exif_positions(photos: Sequence[PhotoFile]) -> PositionTrack:
    """Places from the GPS data of photos: east, north, up in metres from the first (WGS84).

    Raises:
        InputError: fewer than two photos say where they were taken.
    """
    places = [(photo, _latitude_longitude_altitude(_tags(photo.path, _GPS))) for photo in photos]
    known = [(photo, place) for photo, place in places if place is not None]
    if len(known) < 2:
        raise InputError(
            f"Expected places in the EXIF data of several photos, got {len(known)} of {len(photos)}: give "
            "poses "
            "or a known distance instead."
        )
    origin = known[0][1]
    return PositionTrack(
        tuple(KnownPosition(east_north_up(place, origin), photo.name) for photo, place in known),
        "GPS of the photos",
    )


Place = tuple[float, float, float]
"""Latitude and longitude in degrees, altitude in metres."""


def east_north_up(place: Place, origin: Place) -> np.ndarray:
    """Metres from `origin` in its local axes."""
    latitude, longitude = math.radians(origin[0]), math.radians(origin[1])
    sin_lat, cos_lat, sin_lon, cos_lon = (
        math.sin(latitude),
        math.cos(latitude),
        math.sin(longitude),
        math.cos(longitude),
    )
    axes = np.array(
        [
            [-sin_lon, cos_lon, 0],
            [-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat],
            [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat],
        ]
    )
    return axes @ (_earth_centred(place) - _earth_centred(origin))


def _earth_centred(place: Place) -> np.ndarray:
    latitude, longitude, altitude = math.radians(place[0]), math.radians(place[1]), place[2]
    radius = _WGS84_A / math.sqrt(1 - _WGS84_E2 * math.sin(latitude) ** 2)
    across = (radius + altitude) * math.cos(latitude)
    z = (radius * (1 - _WGS84_E2) + altitude) * math.sin(latitude)
    return np.array([across * math.cos(longitude), across * math.sin(longitude), z])


def _latitude_longitude_altitude(tags: Mapping[int, Any]) -> Place | None:
    latitude, longitude = _degrees(tags.get(2), tags.get(1)), _degrees(tags.get(4), tags.get(3))
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):
        return None
    altitude = _number(tags.get(6)) or 0.0
    below = tags.get(5) in (1, b"\x01")
    return latitude, longitude, -altitude if below else altitude


def _degrees(value: Any, reference: Any) -> float | None:
    try:
        degrees, minutes, seconds = (float(part) for part in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not all(math.isfinite(part) for part in (degrees, minutes, seconds)):
        return None
    sign = -1 if str(reference).strip("\0 ").upper() in ("S", "W") else 1
    return sign * (degrees + minutes / 60 + seconds / 3600)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number != 0 else None


def _tags(path: Path | None, directory: int) -> Mapping[int, Any]:
    """One directory of a photo's EXIF data; empty where it cannot be read."""
    if path is None or not path.is_file():
        return {}
    try:
        with decoding(), Image.open(path) as image:
            return dict(image.getexif().get_ifd(directory))
    except InputError:
        return {}  # a photo that tells nothing, as one without metadata
