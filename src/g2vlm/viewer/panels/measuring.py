"""The tab "Measure": the distance between two clicks, and the metre from a known one."""

from typing import TYPE_CHECKING, Any

import numpy as np

from g2vlm.errors import InputError
from g2vlm.scene.measurement import Measurement
from g2vlm.scene.metre.calibration import KnownThings
from g2vlm.scene.metre.lengths import KnownDistance
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.view import PixelSpace
from g2vlm.viewer.cloud import Picked
from g2vlm.viewer.points import ShownPoints

if TYPE_CHECKING:
    from g2vlm.viewer.session import Session

_HELP = "Switch it on, then click two points of the cloud."
_ENDS_SHARE = 3.0
_COLOR = (255, 150, 30)


class MeasurePanel:
    """Controls of measuring.

    Args:
        session: the browser.
    """

    def __init__(self, session: "Session") -> None:
        self._session, gui = session, session.client.gui
        self._active = gui.add_checkbox("Click to measure", False)
        self._told = gui.add_markdown(_HELP)
        self._clear = gui.add_button("Clear", icon="eraser", color="gray")
        with gui.add_folder("Set the metre", expand_by_default=True):
            self._known = gui.add_number("True length (m)", 1.0, min=0.0, step=0.001)
            self._set = gui.add_button("This length is that long", icon="ruler-2", disabled=True)
        self._ends: list[Picked] = []
        self._drawn: list[Any] = []
        session.on(self._active, "Measuring", self._switch)
        session.on(self._clear, "Measuring", self.renew)
        session.on(self._set, "Metre", self._set_metre)

    @property
    def measured(self) -> Measurement | None:
        """The distance between both ends."""
        scene = self._session.scene
        if len(self._ends) < 2 or scene is None:
            return None
        first, second = self._ends
        return scene.measure_distance(first.view, first.pixel, second.view, second.pixel, PixelSpace.MODEL)

    def renew(self) -> None:
        """Forget what was clicked."""
        self._ends = []
        for handle in self._drawn:
            handle.remove()
        self._drawn = []
        self._told.content = _HELP
        self._set.disabled = True

    def _switch(self) -> None:
        scene = self._session.client.scene
        if self._active.value:
            scene.on_click()(self._clicked)
        else:
            scene.remove_click_callback(self._clicked)

    def _clicked(self, event: Any) -> None:
        with self._session.guarded("Measuring"):
            direction = np.asarray(event.ray_direction, dtype=np.float64)
            picked = self._session.cloud.pick(
                np.asarray(event.ray_origin, dtype=np.float64), direction / np.linalg.norm(direction)
            )
            if picked is None:
                self._told.content = "No point there: click on the cloud."
                return
            if len(self._ends) == 2:
                self.renew()
            self._ends.append(picked)
            self._draw()

    def _draw(self) -> None:
        scene, measured = self._session.client.scene, self.measured
        number, parts = len(self._ends), self._session.cloud.parts
        radius = _ENDS_SHARE * parts[0].footprint
        self._drawn.append(
            scene.add_icosphere(
                f"/measure/{number}", radius=radius, color=_COLOR, position=tuple(self._ends[-1].point)
            )
        )
        if measured is None:
            self._told.content = "Click the second point."
            return
        ends = np.array([[end.point for end in self._ends]], dtype=np.float32)
        self._drawn.append(
            scene.add_line_segments("/measure/line", ends, _COLOR, thickness=3.0, thickness_units="screen")
        )
        text = str(measured).replace("+-", "±")
        self._drawn.append(scene.add_label("/measure/text", text, position=tuple(ends[0].mean(axis=0))))
        self._told.content = (
            f"**{text}**\n\n{_about_unit(measured.scale)} Confidence of the ends: {measured.confidence:.2f}."
        )
        self._set.disabled = False

    def _set_metre(self) -> None:
        scene = self._session.scene
        if len(self._ends) < 2 or scene is None:
            raise InputError("Expected a measured length: click two points first.")
        first, second = self._ends
        known = KnownDistance(
            first.view, first.pixel, second.view, second.pixel, float(self._known.value), PixelSpace.MODEL
        )
        metric = scene.calibrated(KnownThings(distances=(known,))).scene
        self._session.show(ShownPoints.of(metric), self._session.perception)
        self._session.tell("Lengths are metres now", str(metric.scale))


def _about_unit(scale: Scale) -> str:
    if scale.kind is ScaleKind.METRIC:
        return f"Metric: {scale.source}."
    return "No metric scale: ratios of lengths mean something, metres do not until one length is known."
