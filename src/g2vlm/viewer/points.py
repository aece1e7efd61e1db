"""A cloud prepared for the viewer: in the order of its pyramid, with the colours that a look asks for."""

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from g2vlm.errors import InputError
from g2vlm.export.frusta import camera_color
from g2vlm.scene.cloud import PointCloud
from g2vlm.scene.coloring import depth_range_of, map_colors
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import Pixel
from g2vlm.viewer.pyramid import Block, Pyramid, build_pyramid

_TINT = 0.75


class ColorBy(StrEnum):
    """What the colour of a point says."""

    PHOTO = "photo"
    """What the camera saw."""
    CONFIDENCE = "confidence"
    """Dark violet 0, yellow 1."""
    DEPTH = "depth"
    """Red near its camera, blue far away."""
    NORMAL = "normal"
    """Which way its surface faces, in the world."""
    VIEW = "view"
    """Which camera saw it: the colour of that camera's frustum."""


@dataclass(frozen=True)
class Look:
    """What of a cloud is shown, and how; every browser has its own."""

    color_by: ColorBy = ColorBy.PHOTO
    min_confidence: float = 0.0
    """Points of lower confidence are hidden."""
    point_size: float = 1.0
    """Times the usual size."""
    hidden_views: frozenset[int] = frozenset()
    """Views whose points are hidden."""
    clip: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    """Lowest and highest corner of the box outside of which points are hidden."""


@dataclass(frozen=True, eq=False)
class ShownPoints:
    """The points of a scene, shared by all browsers that show it."""

    scene: Scene
    pyramid: Pyramid
    cloud: PointCloud
    """In the order of the pyramid."""
    footprint: float
    """What one pixel covers at the median depth: the usual size of a point, in the unit of the scene."""
    depths: tuple[float, float]
    """Between which the colours of depth run."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def of(scene: Scene, first_view: int = 0) -> "ShownPoints":
        """Sort the points of a scene into a pyramid.

        Args:
            scene: with valid points.
            first_view: number of its first view, where it is a later part of what is shown.

        Raises:
            InputError: no valid points.
        """
        cloud = scene.point_cloud()
        if len(cloud) == 0:
            raise InputError("Expected a scene with points to show, but all are invalid: filter less.")
        pyramid = build_pyramid(cloud.points)
        numbered = PointCloud(
            cloud.points, cloud.colors, cloud.confidence, (cloud.view_index + first_view).astype(np.int32)
        )
        views = scene.views
        sample = np.concatenate([view.depth[view.valid][::97] / view.K[0, 0] for view in views])
        footprint = float(np.median(np.abs(sample))) if sample.size else 0.01
        return ShownPoints(scene, pyramid, numbered.taken(pyramid.order), footprint, depth_range_of(views))

    def pixel(self, place: int) -> tuple[int, Pixel]:
        """View and pixel (of the network's image) that a point comes from.

        Args:
            place: in the order of the pyramid.
        """
        rest = int(self.pyramid.order[place])
        for view in self.scene.views:
            count = int(np.count_nonzero(view.valid))
            if rest < count:
                row, column = divmod(int(np.flatnonzero(view.valid)[rest]), view.width)
                return int(self.cloud.view_index[place]), (column, row)
            rest -= count
        raise IndexError(place)

    def visible(self, block: Block, look: Look) -> Bool[np.ndarray, " points"]:
        """Which points of a block a look shows."""
        part = slice(block.start, block.stop)
        shown = self.cloud.confidence[part] >= np.float32(look.min_confidence)
        if look.hidden_views:
            shown &= ~np.isin(self.cloud.view_index[part], list(look.hidden_views))
        if look.clip is not None:
            points = self.cloud.points[part]
            low, high = (np.array(corner, dtype=np.float32) for corner in look.clip)
            shown &= ((points >= low) & (points <= high)).all(axis=1)
        return shown

    def colors(self, block: Block, look: Look) -> UInt8[np.ndarray, "points 3"]:
        """Colours of all points of a block."""
        part = slice(block.start, block.stop)
        colors = self.cloud.colors[part]
        if look.color_by is ColorBy.CONFIDENCE:
            return map_colors(self.cloud.confidence[part], "viridis")
        if look.color_by is ColorBy.DEPTH:
            near, far = self.depths
            share = (1 / np.maximum(self._depth[part], 1e-9) - 1 / far) / (1 / near - 1 / far)
            return map_colors(share, "turbo")
        if look.color_by is ColorBy.NORMAL:
            with self._lock:
                normals = self._normals[part]
            return np.rint((normals + 1) * 127.5).astype(np.uint8)
        if look.color_by is ColorBy.VIEW:
            own = self._view_colors[self.cloud.view_index[part] % len(self._view_colors)]
            grey = colors @ np.array([0.3, 0.6, 0.1]) / 255
            mixed = (1 - _TINT + _TINT * own) * (0.35 + 0.65 * grey[:, None]) * 255
            return np.rint(mixed).astype(np.uint8)
        return colors

    @cached_property
    def _depth(self) -> Float32[np.ndarray, " points"]:
        depth = np.concatenate([view.depth[view.valid] for view in self.scene.views])
        return depth[self.pyramid.order].astype(np.float32)

    @cached_property
    def _normals(self) -> Float32[np.ndarray, "points 3"]:
        # Computed when first asked for: they cost more than all the rest.
        normals = self.scene.point_cloud(normals=True).normals
        assert normals is not None
        return normals[self.pyramid.order]

    @cached_property
    def _view_colors(self) -> Float[np.ndarray, "colors 3"]:
        return np.array([camera_color(index) for index in range(256)])
