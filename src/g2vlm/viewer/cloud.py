"""The cloud in one browser: the blocks of its pyramids that this browser's camera needs, and no others."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from g2vlm.scene.view import Pixel
from g2vlm.viewer.points import Look, ShownPoints
from g2vlm.viewer.pyramid import Block, Eye, count_points

POINT_BUDGET = 1_000_000
"""Points drawn at once; whatever a scene holds, a browser draws no more."""
_SETTLE_S = 0.06
_FILL = 0.8
_COVER = 1.4
_PICK_PX = (3.0, 8.0, 16.0)
_BEHIND = 1.02


@dataclass(frozen=True)
class Picked:
    """A point that somebody clicked on."""

    point: Float[np.ndarray, "3"]
    """In the world."""
    view: int
    """The view that saw it."""
    pixel: Pixel
    """Where in the network's image."""


@dataclass(frozen=True)
class _Near:
    """A point close to a ray."""

    points: ShownPoints
    place: int
    """In the order of the pyramid."""
    along: float
    """Distance along the ray."""
    aside_px: float
    """Distance from it, in pixels of the picture."""


class BrowserCloud:
    """Keeps what a browser draws in step with its camera and its look, in a thread of its own.

    Args:
        client: viser's handle of the browser.
        budget: points drawn at once.
    """

    def __init__(self, client: Any, budget: int = POINT_BUDGET) -> None:
        self.budget = budget
        self.look = Look()
        self._client = client
        self._parts: tuple[ShownPoints, ...] = ()
        # Both by (part, block): what is drawn, and what lies ready in the browser, the latest last.
        self._drawn: dict[tuple[int, int], Any] = {}
        self._ready: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._lock = threading.RLock()
        self._wanted, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="g2vlm-cloud", daemon=True)
        client.camera.on_update(lambda camera: self._wanted.set())
        self._thread.start()

    @property
    def parts(self) -> tuple[ShownPoints, ...]:
        """What is shown."""
        return self._parts

    @property
    def num_drawn(self) -> int:
        """Points in the picture and around it, those included that the look hides."""
        with self._lock:
            blocks = [self._parts[part].pyramid.blocks[number] for part, number in self._drawn]
        return count_points(blocks)

    def show(self, parts: Sequence[ShownPoints]) -> None:
        """Show these clouds instead of those before."""
        with self._lock:
            self._remove_all()
            self._parts = tuple(parts)
        self._wanted.set()

    def add(self, part: ShownPoints) -> None:
        """Show one more."""
        with self._lock:
            self._parts = (*self._parts, part)
        self._wanted.set()

    def restyle(self, look: Look) -> None:
        """Show the same points in another way."""
        with self._lock:
            if look == self.look:
                return
            self.look = look
            self._remove_all()
        self._wanted.set()

    def close(self) -> None:
        """Stop following the camera."""
        self._closed.set()
        self._wanted.set()

    def eye(self) -> Eye:
        """From where the browser looks."""
        camera = self._client.camera
        w, x, y, z = camera.wxyz
        # The third column of the rotation: OpenCV cameras look along z.
        forward = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
        height, width = max(1, camera.image_height), max(1, camera.image_width)
        return Eye(np.asarray(camera.position), forward, float(camera.fov), width / height, float(height))

    def pick(self, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "3"]) -> Picked | None:
        """The drawn point under a ray: the nearest to the viewer of those within some pixels.

        Args:
            origin: of the ray, in the world.
            direction: unit vector.
        """
        pixel_rad = float(self._client.camera.fov) / max(1, self._client.camera.image_height)
        with self._lock:
            parts, look, drawn = self._parts, self.look, list(self._drawn)
        found: list[_Near] = []
        for part, number in drawn:
            points = parts[part]
            found += _under_ray(points, points.pyramid.blocks[number], look, (origin, direction), pixel_rad)
        for limit in _PICK_PX:
            near = [one for one in found if one.aside_px <= limit]
            if near:
                first = min(one.along for one in near)
                # Of the surface in front, the point that was aimed at.
                best = min(
                    (one for one in near if one.along <= first * _BEHIND), key=lambda one: one.aside_px
                )
                view, pixel = best.points.pixel(best.place)
                return Picked(best.points.cloud.points[best.place].astype(np.float64), view, pixel)
        return None

    def _follow(self) -> None:
        while True:
            self._wanted.wait()
            # Movements come in bursts: one picture for all of them.
            self._closed.wait(_SETTLE_S)
            if self._closed.is_set():
                return
            self._wanted.clear()
            self._refresh()

    def _refresh(self) -> None:
        """Draw what the camera needs, block by block, so that looks can change meanwhile."""
        with self._lock:
            parts, look = self._parts, self.look
        if not parts:
            return
        eye, share = self.eye(), max(1, self.budget // len(parts))
        needed = {
            (index, block.number): block
            for index, part in enumerate(parts)
            for block in part.pyramid.choose(eye, share)
        }
        for name, block in needed.items():
            with self._lock:
                if self._parts is not parts or self.look is not look or self._closed.is_set():
                    self._wanted.set()
                    return
                self._draw(name, block, needed)
        with self._lock:
            self._put_away([name for name in self._drawn if name not in needed])

    def _draw(self, name: tuple[int, int], block: Block, needed: dict[tuple[int, int], Block]) -> None:
        points = self._parts[name[0]]
        is_finest = all((name[0], child) in needed for child in block.children)
        spacing = 0.0 if is_finest else _FILL * block.spacing
        size = self.look.point_size * max(_COVER * points.footprint, spacing)
        handle = self._drawn.get(name) or self._ready.pop(name, None)
        if handle is None:
            self._drawn[name] = self._send(name, block, size)
            return
        if abs(handle.point_size - size) > 1e-3 * size:
            handle.point_size = size
        if not handle.visible:
            handle.visible = True
        self._drawn[name] = handle

    def _send(self, name: tuple[int, int], block: Block, size: float) -> Any:
        points = self._parts[name[0]]
        shown = points.visible(block, self.look)
        # Relative to the cube, half precision is at worst a thirtieth of the distance between points of one
        # level. Cubes without finer blocks hold all finer levels, and need all of float32.
        local = points.cloud.points[block.start : block.stop][shown] - block.centre.astype(np.float32)
        precision = "float32" if not block.children else "float16"
        return self._client.scene.add_point_cloud(
            f"/points/{name[0]}/{name[1]}",
            local.astype(np.float32),
            points.colors(block, self.look)[shown],
            point_size=size,
            point_shape="circle",
            point_shading="flat",
            precision=precision,
            position=tuple(block.centre),
        )

    def _put_away(self, names: Sequence[tuple[int, int]]) -> None:
        """Hide blocks, and drop those hidden longest once they are as many points as may be drawn."""
        for name in names:
            handle = self._drawn.pop(name)
            handle.visible = False
            self._ready[name] = handle
        kept = sum(len(self._parts[part].pyramid.blocks[number]) for part, number in self._ready)
        while kept > self.budget:
            (part, number), handle = self._ready.popitem(last=False)
            kept -= len(self._parts[part].pyramid.blocks[number])
            handle.remove()

    def _remove_all(self) -> None:
        for handle in (*self._drawn.values(), *self._ready.values()):
            handle.remove()
        self._drawn.clear()
        self._ready.clear()


def _under_ray(
    points: ShownPoints,
    block: Block,
    look: Look,
    ray: tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]],
    pixel_rad: float,
) -> list[_Near]:
    """Points of a block near a ray (origin and direction)."""
    origin, direction = ray
    offset = block.centre - origin
    reach = block.radius + _PICK_PX[-1] * pixel_rad * (np.linalg.norm(offset) + block.radius)
    if np.linalg.norm(np.cross(direction, offset)) > reach:
        return []
    offsets = points.cloud.points[block.start : block.stop].astype(np.float64) - origin
    along = offsets @ direction
    aside = np.linalg.norm(offsets - along[:, None] * direction, axis=1)
    pixels = aside / np.maximum(along, 1e-12) / pixel_rad
    near = np.flatnonzero((along > 0) & (pixels <= _PICK_PX[-1]) & points.visible(block, look))
    return [_Near(points, block.start + int(i), float(along[i]), float(pixels[i])) for i in near]
