"""A grid on the floor of a scene, in its unit."""

import math
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from g2vlm.export.conventions import quaternion_wxyz
from g2vlm.scene.ground import Ground
from g2vlm.scene.scene import Scene

_CELLS = 6
_REACH = 1.6


class BrowserFloor:
    """The grid in one browser.

    Args:
        client: viser's handle of the browser.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._handle: Any = None
        self._visible = True
        self.cell = 1.0
        """Side of its cells, in the unit of the scene."""

    def show(self, ground: Ground, scene: Scene) -> None:
        """Lay it on the floor; cells are 1, 2 or 5 times a power of ten."""
        self.clear()
        low, high = scene.bounds()
        centres = np.array(
            [view.points_world[view.valid].mean(axis=0) for view in scene.views if view.valid.any()]
        )
        middle = np.median(centres, axis=0).astype(np.float64)
        middle += ground.up * (ground.height - middle @ ground.up)
        spread = np.array(
            [np.percentile(view.depth[view.valid], 90) for view in scene.views if view.valid.any()]
        )
        extent = min(float((high - low).max()), 3 * float(np.median(spread)))
        self.cell = nice_length(extent / _CELLS)
        side = math.ceil(_REACH * extent / self.cell) * self.cell
        # The grid lies in its own x and y: z is up.
        R, _ = Rotation.align_vectors(ground.up[None], np.array([[0.0, 0.0, 1.0]]))
        self._handle = self._client.scene.add_grid(
            "/floor",
            width=side,
            height=side,
            cell_size=self.cell,
            section_size=5 * self.cell,
            cell_color=(120, 128, 138),
            section_color=(160, 168, 178),
            cell_thickness=0.6,
            wxyz=tuple(quaternion_wxyz(R.as_matrix())),
            position=tuple(middle),
            visible=self._visible,
            shadow_opacity=0.0,
        )

    def set_visible(self, visible: bool) -> None:
        """Show or hide it."""
        self._visible = visible
        if self._handle is not None:
            self._handle.visible = visible

    def clear(self) -> None:
        """Remove it."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None


def nice_length(length: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above a length."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(step * power for step in (1, 2, 5) if step * power <= length * (1 + 1e-9))
