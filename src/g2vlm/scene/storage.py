"""Scenes in `.npz` files: all of a scene, readable by numpy alone.

Keys (N views of H x W pixels): `rgb` (N,H,W,3 uint8); `points_world`, `points_camera` (N,H,W,3), `depth`,
`confidence` (N,H,W), `T_world_camera` (N,4,4), `K`, `K_original` (N,3,3), all float32; `valid` (N,H,W bool);
`original_size` (N,2 int64: width, height); `T_model_original` (N,3,3 float64); `names` (N text); `time_s`
(N float64, NaN for photos); `source_path` (N text, empty where unknown) and `frame_index` (N int64, -1 for
photos), `focal_measured` (N bool), absent in files of earlier releases; `scale` ("relative" or "metric"),
`scale_source` (text), `scale_residual_m`, `scale_relative_error` and `scale_point_error` (float64, NaN where
unknown, absent in files of earlier releases), `format_version` (int64). No key needs pickle. `points_world`,
`depth` and `K_original` are there for other readers; `read_npz` computes them anew.
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from g2vlm.errors import InputError
from g2vlm.scene.formats import Format, register
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View
from g2vlm.scene.writing import atomic_path

FORMAT_VERSION = 1


# What zipfile and numpy raise on damaged files, besides their own errors.
_DAMAGE = (
    *(OSError, ValueError, EOFError, TypeError, LookupError, RuntimeError, SyntaxError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


class _Column(NamedTuple):
    """One key of the file that holds an array per view."""

    dtype: type
    value: Callable[[View], object]


_COLUMNS = {
    "rgb": _Column(np.uint8, lambda view: view.rgb),
    "points_world": _Column(np.float32, lambda view: view.points_world),
    "points_camera": _Column(np.float32, lambda view: view.points_camera),
    "depth": _Column(np.float32, lambda view: view.depth),
    "T_world_camera": _Column(np.float32, lambda view: view.T_world_camera),
    "K": _Column(np.float32, lambda view: view.K),
    "K_original": _Column(np.float32, lambda view: view.K_original),
    "original_size": _Column(np.int64, lambda view: view.original_size),
    "T_model_original": _Column(np.float64, lambda view: view.T_model_original),
    "valid": _Column(np.bool_, lambda view: view.valid),
    "confidence": _Column(np.float32, lambda view: view.confidence),
    "time_s": _Column(np.float64, lambda view: np.nan if view.time_s is None else view.time_s),
}
_RECOMPUTED = {"points_world", "depth", "K_original"}
ORIGIN_KEYS = ("source_path", "frame_index", "focal_measured")
"""Keys of views that files of earlier releases lack."""
SCALE_KEYS = ("scale_residual_m", "scale_relative_error", "scale_point_error")
"""Keys of the scene that files of earlier releases lack."""


def write_npz(scene: Scene, path: str | os.PathLike[str]) -> None:
    """Write all of a scene, uncompressed, atomically, one view at a time.

    The same scene always gives the same bytes. Memory beyond the scene's own stays at one view.

    Raises:
        OutputError: the place cannot be written.
    """
    whole = {
        "names": np.array([view.name for view in scene.views]),
        **origin_columns(scene.views),
        "scale": np.array(scene.scale.kind.value),
        "scale_source": np.array(scene.scale.source),
        "scale_residual_m": np.array(_nan_if_none(scene.scale.residual_m)),
        "scale_relative_error": np.array(_nan_if_none(scene.scale.relative_error)),
        "scale_point_error": np.array(_nan_if_none(scene.scale.point_error)),
        "format_version": np.array(FORMAT_VERSION, dtype=np.int64),
    }
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for key, column in _COLUMNS.items():
            _write_member(archive, key, len(scene), (_row(column, view) for view in scene.views))
        for key, array in whole.items():
            with archive.open(_member(key), "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _row(column: _Column, view: View) -> np.ndarray:
    return np.require(column.value(view), column.dtype, "C")


def _member(key: str) -> zipfile.ZipInfo:
    # A fixed date, zipfile's earliest: files of equal content are equal.
    return zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))


def _write_member(archive: zipfile.ZipFile, key: str, count: int, rows: Iterable[np.ndarray]) -> None:
    """Write `count` rows of one shape as one array, without stacking them in memory."""
    with archive.open(_member(key), "w", force_zip64=True) as member:
        for index, row in enumerate(rows):
            if index == 0:
                header = {
                    "descr": np.lib.format.dtype_to_descr(row.dtype),
                    "fortran_order": False,
                    "shape": (count, *row.shape),
                }
                np.lib.format.write_array_header_1_0(member, header)
            member.write(row.data)


def read_npz(path: str | os.PathLike[str]) -> Scene:
    """Read a scene that `write_npz` wrote.

    Raises:
        InputError: no such file, not a scene file, a newer version of it, or values that a `View` refuses.
    """
    needed = [key for key in _COLUMNS if key not in _RECOMPUTED] + ["names", "scale", "scale_source"]
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            missing = [key for key in [*needed, "format_version"] if key not in file]
            if missing:
                raise InputError(
                    f"Expected a scene file, but {path} lacks {', '.join(missing)}: write it with Scene.save."
                )
            if (version := int(file["format_version"])) > FORMAT_VERSION:
                raise InputError(
                    f"Expected a scene file of version {FORMAT_VERSION} or lower, but {path} is of version "
                    f"{version}: update g2vlm."
                )
            later = [key for key in (*ORIGIN_KEYS, *SCALE_KEYS) if key in file]
            arrays = {key: file[key] for key in [*needed, *later]}
            scale_kind = ScaleKind(str(arrays["scale"]))
    except InputError:
        raise
    except (*_DAMAGE, MemoryError) as error:
        raise InputError(f"Expected a readable scene file at {path}: {error}.") from error
    scale = Scale(
        scale_kind,
        str(arrays["scale_source"]),
        _none_if_nan(arrays.get("scale_residual_m")),
        _none_if_nan(arrays.get("scale_relative_error")),
        _none_if_nan(arrays.get("scale_point_error")),
    )
    return Scene(tuple(_view(arrays, index) for index in range(len(arrays["rgb"]))), scale)


def _nan_if_none(value: float | None) -> float:
    return np.nan if value is None else value


def _none_if_nan(value: np.ndarray | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def _view(arrays: dict[str, np.ndarray], index: int) -> View:
    width, height = (int(side) for side in arrays["original_size"][index])
    time_s = float(arrays["time_s"][index])
    return View(
        name=str(arrays["names"][index]),
        rgb=arrays["rgb"][index],
        points_camera=arrays["points_camera"][index],
        T_world_camera=arrays["T_world_camera"][index],
        K=arrays["K"][index],
        confidence=arrays["confidence"][index],
        valid=arrays["valid"][index],
        original_size=(width, height),
        T_model_original=arrays["T_model_original"][index],
        time_s=None if np.isnan(time_s) else time_s,
        **origin_fields(arrays, index),
    )


def origin_columns(views: Sequence[View]) -> dict[str, np.ndarray]:
    """What later releases added, as arrays: `source_path` ("" if unknown), `frame_index` (-1 if none)."""
    frames = [-1 if view.frame_index is None else view.frame_index for view in views]
    return {
        "source_path": np.array([view.source_path or "" for view in views]),
        "frame_index": np.array(frames, dtype=np.int64),
        "focal_measured": np.array([view.focal_measured for view in views], dtype=np.bool_),
    }


def origin_fields(arrays: Mapping[str, np.ndarray], index: int) -> dict[str, Any]:
    """Fields of one `View` from `origin_columns`; none where a file of an earlier release lacks them."""
    measured = {"focal_measured": bool(arrays["focal_measured"][index])} if "focal_measured" in arrays else {}
    if not {"source_path", "frame_index"} <= set(arrays):
        return measured
    frame = int(arrays["frame_index"][index])
    path = str(arrays["source_path"][index])
    return {"source_path": path or None, "frame_index": None if frame < 0 else frame, **measured}


register(
    Format(
        kind="npz",
        summary="all of a scene, for numpy and for this package",
        write=lambda scene, path, options, on_progress: write_npz(scene, path),
        endings=(".npz",),
        by_ending=(".npz",),
    )
)
