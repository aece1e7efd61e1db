"""What can be measured in a rendered sample: which objects each view shows, where, and how far away."""

import math

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from g2vlm.data.questions.question import Marker, MarkerColour
from g2vlm.data.samples import SceneSample
from g2vlm.data.world.draws import Draws
from g2vlm.data.world.layout import SceneObject

_MIN_SHARE = 0.004
_MIN_PIXELS = 10
_BORDER_SHARE = 0.04


class Observations:
    """Measurements of one sample, in NumPy on the CPU."""

    def __init__(self, sample: SceneSample) -> None:
        self.objects = sample.objects
        self.instance = sample.instance.cpu().numpy().astype(np.int64)
        self.depth = sample.depth.cpu().numpy().astype(np.float64)
        self.T_world_camera = sample.T_world_camera.cpu().numpy().astype(np.float64)
        self.K = sample.K.cpu().numpy().astype(np.float64)
        self.num_views, self.height, self.width = self.depth.shape
        length = len(self.objects) + 1
        self.pixels = np.stack([np.bincount(view.ravel(), minlength=length) for view in self.instance])
        self.enough = max(_MIN_PIXELS, int(_MIN_SHARE * self.height * self.width))
        labels = [thing.label for thing in self.objects]
        self._unique = {label for label in labels if labels.count(label) == 1}

    def shows(self, view: int, thing: SceneObject) -> bool:
        """Whether a view shows enough of an object to recognise it."""
        return bool(self.pixels[view, thing.instance] >= self.enough)

    def hides(self, view: int, thing: SceneObject) -> bool:
        """Whether a view shows nothing of an object."""
        return bool(self.pixels[view, thing.instance] == 0)

    def named(self, view: int) -> list[SceneObject]:
        """Objects that a view shows and whose colour and noun name nothing else in the room."""
        return [thing for thing in self.objects if self.shows(view, thing) and thing.label in self._unique]

    def shown(self, view: int) -> list[SceneObject]:
        """All objects that a view shows."""
        return [thing for thing in self.objects if self.shows(view, thing)]

    def views_showing(self, thing: SceneObject) -> list[int]:
        """The views that show an object."""
        return [view for view in range(self.num_views) if self.shows(view, thing)]

    def in_camera(
        self, view: int, point_world: tuple[float, float, float] | Float64[ndarray, " 3"]
    ) -> Float64[ndarray, " 3"]:
        """A world point in camera axes."""
        T = self.T_world_camera[view]
        return T[:3, :3].T @ (np.asarray(point_world) - T[:3, 3])

    def distance(self, view: int, thing: SceneObject) -> float:
        """From the camera's centre to the middle of an object, metres."""
        return float(np.linalg.norm(self.in_camera(view, thing.centre_m)))

    def bearing(self, view: int, thing: SceneObject) -> float:
        """Angle to the right of the optical axis, radians, -pi to pi, measured in the camera's x-z plane."""
        x, _, z = self.in_camera(view, thing.centre_m)
        return math.atan2(x, z)

    def relative(self, first: int, second: int) -> Float64[ndarray, "4 4"]:
        """Pose of the second camera seen from the first."""
        return np.linalg.inv(self.T_world_camera[first]) @ self.T_world_camera[second]

    def point_world(self, view: int, u: int, v: int) -> Float64[ndarray, " 3"]:
        """The surface point that a pixel sees."""
        K, z = self.K[view], self.depth[view, v, u]
        local = np.array([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z])
        T = self.T_world_camera[view]
        return T[:3, :3] @ local + T[:3, 3]

    def pixel_in(self, view: int, point_world: Float64[ndarray, " 3"]) -> tuple[int, int] | None:
        """The pixel where a view sees a surface point; None if it is hidden or too near the border."""
        x, y, z = self.in_camera(view, point_world)
        if z <= 0.05:
            return None
        K, border = self.K[view], self.border
        u, v = round(K[0, 0] * x / z + K[0, 2]), round(K[1, 1] * y / z + K[1, 2])
        if not (border <= u < self.width - border and border <= v < self.height - border):
            return None
        return (u, v) if abs(self.depth[view, v, u] - z) < 0.02 * z else None

    @property
    def border(self) -> int:
        """Pixels along the border where no marker goes."""
        return max(2, math.ceil(_BORDER_SHARE * self.width))

    def random_pixel(self, draws: Draws) -> tuple[int, int]:
        """Any pixel away from the border."""
        border = self.border
        return (
            draws.integer((border, self.width - 1 - border)),
            draws.integer((border, self.height - 1 - border)),
        )

    def pixel_on(self, view: int, thing: SceneObject, draws: Draws) -> tuple[int, int] | None:
        """A pixel well inside the visible part of an object, for a marker."""
        mask = self.instance[view] == thing.instance
        border = self.border
        inner = np.zeros_like(mask)
        inner[border:-border, border:-border] = mask[border:-border, border:-border]
        shrunk = inner.copy()
        for step in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            shrunk &= np.roll(mask, step, axis=(0, 1))
        rows, columns = np.nonzero(shrunk if shrunk.any() else inner)
        if not len(rows):
            return None
        k = draws.integer((0, len(rows) - 1))
        return int(columns[k]), int(rows[k])

    def marker(self, view: int, pixel: tuple[int, int], colour: MarkerColour) -> Marker:
        """A marker at a pixel (u, v)."""
        return Marker(view, pixel[0], pixel[1], colour)

    def mark(
        self, view: int, things: list[SceneObject], colours: list[MarkerColour], draws: Draws
    ) -> tuple[Marker, ...] | None:
        """One marker on each object; None where one has no room for it or two would overlap."""
        markers: list[Marker] = []
        for thing, colour in zip(things, colours, strict=True):
            pixel = self.pixel_on(view, thing, draws)
            if pixel is None or any(self._touching(pixel, other) for other in markers):
                return None
            markers.append(Marker(view, pixel[0], pixel[1], colour))
        return tuple(markers)

    def _touching(self, pixel: tuple[int, int], other: Marker) -> bool:
        return math.hypot(pixel[0] - other.u, pixel[1] - other.v) < 0.1 * self.width
