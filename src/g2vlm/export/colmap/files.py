"""COLMAP's files, binary and text: cameras, images, points3D, and since COLMAP 3.12 rigs and frames.

Formats: https://colmap.github.io/format.html. Every camera is a rig of its own and every image a frame of its
own, as COLMAP itself makes them ("trivial") when it reads models of earlier versions.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from g2vlm.export.colmap.model import SparseImage, SparseModel, SparsePoints

_PINHOLE = 1
_SENSOR_CAMERA = 0
_OBSERVATION = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])
_TRACK_ELEMENT = np.dtype([("image", "<i4"), ("place", "<i4")])


def write_binary(model: SparseModel, folder: Path) -> None:
    """Write the five binary files of a model into an existing folder."""
    with (folder / "cameras.bin").open("wb") as file:
        file.write(struct.pack("<Q", len(model.cameras)))
        for camera in model.cameras:
            file.write(struct.pack("<iiQQ", camera.camera_id, _PINHOLE, camera.width, camera.height))
            file.write(struct.pack("<4d", *camera.focal_px, *camera.centre_px))
    with (folder / "images.bin").open("wb") as file:
        file.write(struct.pack("<Q", len(model.images)))
        for image in model.images:
            file.write(struct.pack("<i", image.image_id) + _pose(image))
            file.write(struct.pack("<i", image.camera_id) + image.name.encode() + b"\0")
            file.write(struct.pack("<Q", len(image.pixels)) + _observations(image))
    with (folder / "points3D.bin").open("wb") as file:
        file.write(struct.pack("<Q", len(model.points)))
        file.write(_packed_points(model.points).tobytes())
    with (folder / "rigs.bin").open("wb") as file:
        file.write(struct.pack("<Q", len(model.cameras)))
        for camera in model.cameras:
            file.write(struct.pack("<IIii", camera.camera_id, 1, _SENSOR_CAMERA, camera.camera_id))
    with (folder / "frames.bin").open("wb") as file:
        file.write(struct.pack("<Q", len(model.images)))
        for image in model.images:
            file.write(struct.pack("<II", image.image_id, image.camera_id) + _pose(image))
            file.write(struct.pack("<IiIQ", 1, _SENSOR_CAMERA, image.camera_id, image.image_id))


def _pose(image: SparseImage) -> bytes:
    return struct.pack("<7d", *image.quaternion, *image.translation)


def _observations(image: SparseImage) -> bytes:
    rows = np.empty(len(image.pixels), dtype=_OBSERVATION)
    rows["x"], rows["y"] = image.pixels.T
    rows["point"] = image.point_ids
    return rows.tobytes()


def _packed_points(points: SparsePoints) -> UInt8[np.ndarray, " bytes"]:
    """Records whose length depends on the track: written for all points of one length at a time."""
    lengths = np.diff(points.track_start)
    fixed = [("id", "<u8"), ("xyz", "<f8", (3,)), ("rgb", "|u1", (3,)), ("error", "<f8"), ("length", "<u8")]
    size = np.dtype(fixed).itemsize
    starts = np.concatenate([[0], np.cumsum(size + _TRACK_ELEMENT.itemsize * lengths)])
    packed = np.empty(starts[-1], dtype=np.uint8)
    for length in np.unique(lengths):
        chosen = np.flatnonzero(lengths == length)
        elements = points.track_start[chosen, None] + np.arange(length)
        record = np.dtype([*fixed, ("track", _TRACK_ELEMENT, (int(length),))])
        rows = np.empty(len(chosen), dtype=record)
        rows["id"], rows["xyz"], rows["rgb"] = chosen + 1, points.xyz[chosen], points.rgb[chosen]
        rows["error"], rows["length"] = points.error_px[chosen], length
        rows["track"]["image"] = points.track_image[elements]
        rows["track"]["place"] = points.track_place[elements]
        place = starts[chosen, None] + np.arange(record.itemsize)
        packed[place] = rows.view(np.uint8).reshape(len(chosen), record.itemsize)
    return packed


def write_text(model: SparseModel, folder: Path) -> None:
    """Write the five text files of a model into an existing folder; numbers come back exactly."""
    for name, lines in {
        "cameras.txt": _camera_lines(model),
        "images.txt": _image_lines(model),
        "points3D.txt": _point_lines(model.points),
        "rigs.txt": _rig_lines(model),
        "frames.txt": _frame_lines(model),
    }.items():
        with (folder / name).open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)


def _numbers(*values: float) -> str:
    return " ".join(repr(float(value)) for value in values)


def _camera_lines(model: SparseModel) -> Iterator[str]:
    yield "# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"
    for camera in model.cameras:
        lens = _numbers(*camera.focal_px, *camera.centre_px)
        yield f"{camera.camera_id} PINHOLE {camera.width} {camera.height} {lens}"


def _image_lines(model: SparseModel) -> Iterator[str]:
    yield "# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME"
    yield "# POINTS2D[] as (X, Y, POINT3D_ID)"
    for image in model.images:
        pose = _numbers(*image.quaternion, *image.translation)
        yield f"{image.image_id} {pose} {image.camera_id} {image.name}"
        seen = zip(image.pixels.tolist(), image.point_ids.tolist(), strict=True)
        yield " ".join(f"{x!r} {y!r} {point}" for (x, y), point in seen)


def _point_lines(points: SparsePoints) -> Iterator[str]:
    yield "# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)"
    start, image, place = (
        array.tolist() for array in (points.track_start, points.track_image, points.track_place)
    )
    columns = zip(points.xyz.tolist(), points.rgb.tolist(), points.error_px.tolist(), strict=True)
    for index, ((x, y, z), (red, green, blue), error) in enumerate(columns):
        track = " ".join(f"{image[k]} {place[k]}" for k in range(start[index], start[index + 1]))
        yield f"{index + 1} {x!r} {y!r} {z!r} {red} {green} {blue} {error!r} {track}"


def _rig_lines(model: SparseModel) -> Iterator[str]:
    yield "# RIG_ID, NUM_SENSORS, REF_SENSOR_TYPE, REF_SENSOR_ID"
    for camera in model.cameras:
        yield f"{camera.camera_id} 1 CAMERA {camera.camera_id}"


def _frame_lines(model: SparseModel) -> Iterator[str]:
    yield "# FRAME_ID, RIG_ID, RIG_FROM_WORLD[QW, QX, QY, QZ, TX, TY, TZ], NUM_DATA_IDS, DATA_IDS[]"
    for image in model.images:
        pose = _numbers(*image.quaternion, *image.translation)
        yield f"{image.image_id} {image.camera_id} {pose} 1 CAMERA {image.camera_id} {image.image_id}"
