"""Two scenes of the same photos, brought into one frame: how far cameras, depth and points differ.

Neither is the truth; `geometry.compare` measures against one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from g2vlm.errors import InputError
from g2vlm.evaluation.metrics.points import PointErrors, Surface, point_errors
from g2vlm.geometry.alignment import robust_similarity
from g2vlm.geometry.rotations import rotation_angle
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View

_PIXELS_PER_VIEW = 4000
_QUERIES = 20_000
_LEAST_COMMON = 10
_GAP = 1.15


@dataclass(frozen=True)
class ViewDifference:
    """One photo in both scenes, after the alignment."""

    name: str
    rotation_deg: float
    """Angle between both cameras."""
    translation: float
    """Distance between both cameras, in the unit of the first scene."""
    depth_ratio: float
    """Median over the pixels of the second depth divided by the first."""
    depth_spread: float
    """How far single pixels stray from that: median of the ratio's deviation from it, as a share of it."""
    point_distance: float
    """Median distance between both points of a pixel, in the unit of the first scene."""


@dataclass(frozen=True)
class SceneDifference:
    """Two scenes in the frame and unit of the first."""

    first: Scene
    second: Scene
    """Aligned."""
    scale: float
    """Units of the first scene in one of the second, before the alignment."""
    views: tuple[ViewDifference, ...]
    """In the order of the first scene's views."""
    clouds: PointErrors
    """From points of the second to the nearest ones of the first (accuracy), and back (completeness)."""

    def summary(self) -> dict[str, Any]:
        """As JSON can say it."""
        return {
            "unit": self.first.scale.unit,
            "scale": self.scale,
            "views": [vars(view) for view in self.views],
            "clouds": {
                "second_to_first_median": self.clouds.accuracy_median,
                "first_to_second_median": self.clouds.completeness_median,
                "second_to_first_mean": self.clouds.accuracy,
                "first_to_second_mean": self.clouds.completeness,
            },
        }

    def table(self) -> str:
        """A table in Markdown, and a line about the clouds."""
        unit = self.first.scale.unit
        lines = [
            f"| view | rotation, deg | position, {unit} | depth ratio | its spread | points, {unit} |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {view.name} | {view.rotation_deg:.2f} | {view.translation:.4g} | {view.depth_ratio:.3f} | "
            f"{view.depth_spread:.1%} | {view.point_distance:.4g} |"
            for view in self.views
        ]
        return "\n".join(
            [
                *lines,
                "",
                f"1 unit of the second is {self.scale:.4g} of the first. Between the clouds, median: "
                f"{self.clouds.accuracy_median:.4g} {unit} from the second to the first, "
                f"{self.clouds.completeness_median:.4g} {unit} back.",
            ]
        )

    def side_by_side(self, *, overlaid: bool = False) -> Scene:
        """One scene of both, for viewing: the second stands to the right of the first, or in it.

        Args:
            overlaid: leave it where the alignment put it.

        Raises:
            InputError: networks' images of different sizes.
        """
        shift = np.zeros(3)
        if not overlaid:
            low, high = _usual_bounds(self.first)
            right = self.first.views[0].T_world_camera[:3, 0].astype(np.float64)
            shift = right * float(np.abs(right) @ (high - low)) * _GAP
        T = np.eye(4)
        T[:3, 3] = shift
        moved = self.second.transformed(T)
        named = [replace(view, name=f"A {view.name}") for view in self.first.views]
        named += [replace(view, name=f"B {view.name}") for view in moved.views]
        return Scene(tuple(named), self.first.scale)


def compare_scenes(first: Scene, second: Scene) -> SceneDifference:
    """Align a scene with another by the points of common pixels (Sim(3), robust), and measure what is left.

    Args:
        first: gives frame and unit.
        second: of the same photos by name, in any order; the networks' images may have other sizes.

    Raises:
        InputError: no common photos, or hardly any common points.
    """
    pairs = _matched(first, second)
    common = [_common_points(one, other) for one, other in pairs]
    source, target = (torch.from_numpy(np.concatenate(side)) for side in zip(*common, strict=True))
    if len(source) < _LEAST_COMMON:
        raise InputError(f"Expected scenes with common points, got {len(source)} pixels valid in both.")
    fit = robust_similarity(target, source)
    aligned = second.transformed(fit, first.scale)
    by_name = {view.name: view for view in aligned.views}
    views = tuple(_difference(one, by_name[other.name]) for one, other in pairs)
    surfaces = [Surface(torch.from_numpy(scene.point_cloud().points)) for scene in (aligned, first)]
    return SceneDifference(
        first, aligned, float(fit.scale), views, point_errors(surfaces[0], surfaces[1], _QUERIES)
    )


def _matched(first: Scene, second: Scene) -> list[tuple[View, View]]:
    others = {view.name: view for view in second.views}
    pairs = [(view, others[view.name]) for view in first.views if view.name in others]
    if not pairs:
        raise InputError(
            f"Expected two scenes of the same photos, got {_names(first.views)} and {_names(second.views)}."
        )
    return pairs


def _names(views: Sequence[View]) -> str:
    return ", ".join(view.name for view in views[:3]) + (", ..." if len(views) > 3 else "")


def _common_pixels(one: View, other: View) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns in both views of pixels that show the same place of the photo and are valid."""
    rows, columns = np.nonzero(one.valid)
    step = max(1, len(rows) // _PIXELS_PER_VIEW)
    rows, columns = rows[::step], columns[::step]
    pixels = np.stack([columns, rows, np.ones(len(rows))])
    size = np.array(other.original_size) / np.array(one.original_size)
    in_photo = (np.linalg.inv(one.T_model_original) @ pixels)[:2] + 0.5
    # Photos that were given in other sizes are the same photos all the same.
    there = other.T_model_original @ np.concatenate([in_photo * size[:, None] - 0.5, pixels[2:]])
    u, v = np.rint(there[:2]).astype(int)
    inside = (u >= 0) & (v >= 0) & (u < other.width) & (v < other.height)
    inside[inside] = other.valid[v[inside], u[inside]]
    return rows[inside], columns[inside], v[inside], u[inside]


def _common_points(
    one: View, other: View
) -> tuple[Float64[np.ndarray, "points 3"], Float64[np.ndarray, "points 3"]]:
    rows, columns, v, u = _common_pixels(one, other)
    return one.points_world[rows, columns].astype(np.float64), other.points_world[v, u].astype(np.float64)


def _difference(one: View, other: View) -> ViewDifference:
    rows, columns, v, u = _common_pixels(one, other)
    nan = float("nan")
    ratio = spread = distance = nan
    if len(rows):
        ratios = other.depth[v, u].astype(np.float64) / np.maximum(one.depth[rows, columns], 1e-9)
        ratio = float(np.median(ratios))
        spread = float(np.median(np.abs(ratios - ratio)) / abs(ratio))
        points, others = _common_points(one, other)
        distance = float(np.median(np.linalg.norm(points - others, axis=1)))
    turn = torch.from_numpy(one.T_world_camera[:3, :3].T @ other.T_world_camera[:3, :3]).double()
    return ViewDifference(
        name=one.name,
        rotation_deg=float(torch.rad2deg(rotation_angle(turn))),
        translation=float(np.linalg.norm(one.T_world_camera[:3, 3] - other.T_world_camera[:3, 3])),
        depth_ratio=ratio,
        depth_spread=spread,
        point_distance=distance,
    )


def _usual_bounds(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """A box around all but the outermost points."""
    points = scene.point_cloud(max_points=100_000).points.astype(np.float64)
    return np.percentile(points, 1, axis=0), np.percentile(points, 99, axis=0)
