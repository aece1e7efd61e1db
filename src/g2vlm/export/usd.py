"""USD stages (`.usd`, `.usdc`, `.usda`, `.usdz`): points and cameras, y up."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from g2vlm.errors import MissingExtraError, OutputError
from g2vlm.export.clouds import capped_cloud
from g2vlm.export.conventions import FLIP_YZ, camera_pose, original_intrinsics, scale_errors
from g2vlm.export.frusta import frustum_depth
from g2vlm.export.fusion import pixel_at_median_depth
from g2vlm.export.gltf import linear_colors
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View
from g2vlm.scene.writing import atomic_path

_APERTURE = 36.0
"""Width of the film, in tenths of a unit as USD counts it: only ratios to the focal length matter."""


def write_usd(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write points with colours and widths, and a camera for each view.

    The world is turned by diag(1, -1, -1) from OpenCV axes to y up; the layer's custom data hold that matrix
    and the unit.

    Args:
        scene: with valid points.
        path: ends in .usd, .usdc (binary), .usda (text) or .usdz (packed).
        options: `max_points`.
        on_progress: not told: it is one step.

    Raises:
        OutputError: no valid points, or a place that cannot be written.
        MissingExtraError: usd-core is not installed.
    """
    try:
        from pxr import Usd, UsdGeom
    except ImportError as error:
        raise MissingExtraError("Writing USD", "usd") from error
    cloud = capped_cloud(scene, options)
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, "/scene")
    stage.SetDefaultPrim(root.GetPrim())
    stage.GetRootLayer().customLayerData = {
        "T_usd_world": str(FLIP_YZ.tolist()),
        "scale": scene.scale.kind.value,
        "unit": scene.scale.unit,
        "scale_source": scene.scale.source,
        **scale_errors(scene),
    }
    _add_points(
        stage, cloud.points * np.array([1, -1, -1], np.float32), cloud.colors, pixel_at_median_depth(scene)
    )
    near = 0.1 * frustum_depth(scene)
    for index, view in enumerate(scene.views):
        _add_camera(stage, view, index, near)
    _export(stage, Path(path))


def _add_points(stage: Any, points: np.ndarray, colors: np.ndarray, width: float) -> None:
    from pxr import UsdGeom, Vt

    prim = UsdGeom.Points.Define(stage, "/scene/points")
    prim.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(points, dtype=np.float32)))
    prim.CreateWidthsAttr(Vt.FloatArray([width]))
    prim.SetWidthsInterpolation(UsdGeom.Tokens.constant)
    color = prim.CreateDisplayColorPrimvar(UsdGeom.Tokens.vertex)
    color.Set(Vt.Vec3fArray.FromNumpy(linear_colors(colors)))
    low, high = points.min(axis=0), points.max(axis=0)
    prim.CreateExtentAttr(
        Vt.Vec3fArray.FromNumpy(np.stack([low - width / 2, high + width / 2]).astype(np.float32))
    )


def _add_camera(stage: Any, view: View, index: int, near: float) -> None:
    from pxr import Gf, UsdGeom

    camera = UsdGeom.Camera.Define(stage, f"/scene/camera_{index:04d}")
    K, (width, height) = original_intrinsics(view), view.original_size
    focal = K[0, 0] / width * _APERTURE
    tall = height / K[1, 1] * focal
    camera.CreateFocalLengthAttr(focal)
    camera.CreateHorizontalApertureAttr(_APERTURE)
    camera.CreateVerticalApertureAttr(tall)
    # The window's centre beside the optical axis: to the right, and upwards.
    camera.CreateHorizontalApertureOffsetAttr((width / 2 - K[0, 2] - 0.5) / width * _APERTURE)
    camera.CreateVerticalApertureOffsetAttr((K[1, 2] + 0.5 - height / 2) / height * tall)
    camera.CreateClippingRangeAttr(Gf.Vec2f(near, 1e6))
    # USD's matrices act on rows from the right: the transpose of ours.
    pose = FLIP_YZ @ camera_pose(view) @ FLIP_YZ
    camera.AddTransformOp().Set(Gf.Matrix4d(pose.T.tolist()))
    camera.GetPrim().SetCustomDataByKey("name", view.name)


def _export(stage: Any, path: Path) -> None:
    from pxr import Sdf, Tf, UsdUtils

    with atomic_path(path) as temporary:
        try:
            if path.suffix.lower() == ".usdz":
                _pack(stage, temporary, Sdf, UsdUtils)
            else:
                stage.GetRootLayer().Export(str(temporary), args=_encoding(path))
        except Tf.ErrorException as error:
            raise OutputError(f"Expected to write {path}, got {error}.") from error


def _encoding(path: Path) -> dict[str, str]:
    return (
        {"format": "usda" if path.suffix.lower() == ".usda" else "usdc"}
        if path.suffix.lower() == ".usd"
        else {}
    )


def _pack(stage: Any, target: Path, Sdf: Any, UsdUtils: Any) -> None:
    """A package of one binary layer."""
    layer = target.with_name(f"{target.stem}.usdc")
    try:
        stage.GetRootLayer().Export(str(layer))
        if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(target), "scene.usdc"):
            raise OutputError(f"Expected to pack {target.name}, but USD refused.")
    finally:
        layer.unlink(missing_ok=True)
