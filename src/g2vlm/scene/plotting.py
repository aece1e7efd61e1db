"""`Scene.plot`: photos, depth and confidence beside a map of the cameras, drawn by matplotlib."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from g2vlm.errors import MissingExtraError
from g2vlm.scene.coloring import UNKNOWN, color_confidence, color_depth, depth_range_of
from g2vlm.scene.ground import find_ground
from g2vlm.scene.view import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from g2vlm.scene.scene import Scene

_MOST_VIEWS = 6
_MAP_POINTS = 20_000
_TILE_INCH = 1.9
_MAP_INCH = 5.2


def plot_scene(scene: "Scene") -> "Figure":
    """The figure that `Scene.plot` describes; of many views it shows six, and all cameras.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("Scene.plot", "bench") from error
    chosen = np.unique(np.linspace(0, len(scene) - 1, min(len(scene), _MOST_VIEWS)).round().astype(int))
    width = max(_TILE_INCH * len(chosen), 2.0)
    figure = Figure(figsize=(width + _MAP_INCH, 3 * _TILE_INCH), layout="constrained")
    grid = figure.add_gridspec(
        3, len(chosen) + 1, width_ratios=[width / len(chosen)] * len(chosen) + [_MAP_INCH]
    )
    near, far = depth_range_of(scene.views)
    for column, index in enumerate(chosen):
        view = scene.views[index]
        depth = color_depth(view.depth, view.valid, near, far)
        rows = {"photo": view.rgb, "depth": depth, "confidence": color_confidence(view)}
        for row, (title, pixels) in enumerate(rows.items()):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(pixels)
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(f"{index + 1}: {view.name}"[:22], fontsize=8)
            if column == 0:
                unit = f"{near:.2g} to {far:.2g} {scene.scale.unit}"
                axes.set_ylabel(f"depth, {unit}" if title == "depth" else title, fontsize=8)
    _draw_map(figure.add_subplot(grid[:, -1]), scene)
    figure.suptitle(f"{scene!r}; {scene.scale.source}", fontsize=9)
    return figure


def _draw_map(axes: Any, scene: "Scene") -> None:
    """Points and cameras as a bird sees them, the first camera looking upwards."""
    if scene.num_points == 0:
        axes.text(0.5, 0.5, "no points", ha="center", transform=axes.transAxes)
        return
    up = find_ground(scene).up
    plane = _map_axes(scene.views[0], up)
    cloud = scene.point_cloud(max_points=_MAP_POINTS)
    height = cloud.points @ up
    # What hangs above would hide the room.
    shown = height < np.percentile(height, 85)
    flat = cloud.points[shown] @ plane.T
    axes.scatter(*flat.T, s=0.5, c=cloud.colors[shown] / 255, linewidths=0)
    low, high = np.percentile(flat, (1, 99), axis=0)
    reach = 0.06 * float((high - low).max())
    for index, view in enumerate(scene.views):
        place, ahead = plane @ view.T_world_camera[:3, 3], plane @ view.T_world_camera[:3, 2]
        axes.arrow(*place, *(reach * ahead), width=0.15 * reach, color="tab:red", zorder=3)
        axes.annotate(str(index + 1), place, fontsize=8, zorder=4)
    axes.set_aspect("equal")
    axes.set_facecolor([part / 255 for part in UNKNOWN])
    axes.set_title("cameras from above", fontsize=8)
    axes.set_xlabel(scene.scale.unit, fontsize=8)
    axes.tick_params(labelsize=7)


def _map_axes(view: View, up: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "2 3"]:
    """Rows that take a point of the world to the map's right and upwards."""
    ahead = view.T_world_camera[:3, 2].astype(np.float64)
    ahead = ahead - up * (ahead @ up)
    if np.linalg.norm(ahead) < 1e-6:  # it looks straight down: its upper side is ahead
        ahead = -view.T_world_camera[:3, 1].astype(np.float64)
    ahead /= np.linalg.norm(ahead)
    return np.stack([np.cross(ahead, up), ahead])
