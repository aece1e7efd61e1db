"""The cameras of a scene in a browser: frusta with their photos, and flights to them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from g2vlm.export.conventions import camera_pose, original_intrinsics, quaternion_wxyz
from g2vlm.export.frusta import camera_color, frustum_depth, thumbnail
from g2vlm.scene.ground import Ground
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View

_MOST_PICTURES = 200
_LINE_SHARE = 0.02


class BrowserCameras:
    """Frusta of the views of a scene.

    Args:
        client: viser's handle of the browser.
        on_chosen: called with the number of a view whose frustum is clicked.
    """

    def __init__(self, client: Any, on_chosen: Callable[[int], None]) -> None:
        self._client, self._on_chosen = client, on_chosen
        self._handles: list[Any] = []
        self._size, self._visible, self._inside = 1.0, True, -1

    def show(self, scene: Scene) -> None:
        """Show the cameras of this scene instead of those before."""
        self.clear()
        self._size = frustum_depth(scene)
        for view in scene.views:
            self.add(view)

    def add(self, view: View) -> None:
        """Show one more camera, of the size of the others."""
        index, K, (width, height) = len(self._handles), original_intrinsics(view), view.original_size
        pose = camera_pose(view)
        picture = np.asarray(thumbnail(view)) if index < _MOST_PICTURES else None
        handle = self._client.scene.add_camera_frustum(
            f"/cameras/{index}",
            fov=2 * math.atan(height / 2 / K[1, 1]),
            aspect=float(width / K[0, 0] / (height / K[1, 1])),
            scale=self._size,
            thickness=_LINE_SHARE * self._size,
            color=tuple(round(255 * part) for part in camera_color(index)),
            image=picture,
            jpeg_quality=80,
            wxyz=tuple(quaternion_wxyz(pose[:3, :3])),
            position=tuple(pose[:3, 3]),
            visible=self._visible,
        )
        handle.on_click(lambda event, index=index: self._on_chosen(index))
        self._handles.append(handle)

    def set_visible(self, visible: bool) -> None:
        """Show or hide all; the one that the viewer stands in stays hidden."""
        self._visible = visible
        for index, handle in enumerate(self._handles):
            handle.visible = visible and index != self._inside

    def enter(self, index: int) -> None:
        """Hide the frustum that the viewer stands in: it would cover the picture; -1 for none."""
        self._inside = index
        self.set_visible(self._visible)

    def clear(self) -> None:
        """Remove all."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._inside = [], -1


@dataclass(frozen=True)
class Stand:
    """Where a viewer stands and looks."""

    position: Float[np.ndarray, "3"]
    look_at: Float[np.ndarray, "3"]
    up: Float[np.ndarray, "3"]
    fov_rad: float
    """Vertical."""

    def take(self, client: Any) -> None:
        """Bring a browser's camera there."""
        with client.atomic():
            client.camera.up_direction = self.up
            client.camera.position = self.position
            client.camera.look_at = self.look_at
            client.camera.fov = self.fov_rad


def overview(scene: Scene, ground: Ground, aspect: float) -> Stand:
    """Behind and above the first camera, so that it and what it sees are in the picture.

    Args:
        scene: what is looked at.
        ground: its upward direction.
        aspect: width over height of the picture; upright pictures are taken from farther away.
    """
    pose = camera_pose(scene.views[0])
    depth = _usual_depth(scene.views[0])
    ahead = pose[:3, 2]
    target = pose[:3, 3] + 0.8 * depth * ahead
    away = max(1.0, 1 / aspect)
    position = target + away * depth * (0.5 * ground.up - 1.5 * ahead)
    return Stand(position, target, ground.up, 1.0)


def stand_of(view: View, aspect: float) -> Stand:
    """Where the photo was taken, so that the picture shows the whole photo.

    Args:
        view: the camera.
        aspect: width over height of the picture.
    """
    pose, K, (width, height) = camera_pose(view), original_intrinsics(view), view.original_size
    # The photo's middle, which is not always its principal point.
    middle = np.array([((width - 1) / 2 - K[0, 2]) / K[0, 0], ((height - 1) / 2 - K[1, 2]) / K[1, 1], 1.0])
    half = max(height / 2 / K[1, 1], width / 2 / K[0, 0] / aspect)
    target = pose[:3, 3] + pose[:3, :3] @ middle * _usual_depth(view)
    return Stand(pose[:3, 3], target, -pose[:3, 1], 2 * math.atan(half))


def _usual_depth(view: View) -> float:
    depth = view.depth[view.valid]
    return float(np.median(depth)) if depth.size else 1.0
