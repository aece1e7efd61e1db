"""The tab "View": colours, thresholds, cameras, clip box, screenshot."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from g2vlm.viewer.points import ColorBy

if TYPE_CHECKING:
    from g2vlm.viewer.session import Session

_PHOTO_PX = 480
_MOST_CHECKBOXES = 40
_SHOT_TIMEOUT_S = 30.0
_CLIP_STEPS = 200


class LookPanel:
    """Controls of what is seen.

    Args:
        session: the browser.
    """

    def __init__(self, session: "Session") -> None:
        self._session, gui = session, session.client.gui
        self._color = gui.add_dropdown("Colour", tuple(ColorBy), initial_value=ColorBy.PHOTO)
        self._confidence = gui.add_slider("Confidence ≥", 0.0, 1.0, 0.01, 0.0)
        self._size = gui.add_slider("Point size", 0.2, 5.0, 0.1, 1.0)
        self._frusta = gui.add_checkbox("Cameras", True)
        self._grid = gui.add_checkbox("Floor grid", True)
        self._home = gui.add_button("Whole scene", icon="home", color="gray")
        self._shot = gui.add_button("Screenshot", icon="camera", color="gray")
        self._stand = gui.add_dropdown("Stand in", ("-",), hint="Fly to where a photo was taken")
        self._photo: Any = None
        self._views_folder = gui.add_folder("Views", expand_by_default=False)
        self._clip_folder = gui.add_folder("Clip box", expand_by_default=False)
        self._view_boxes: list[Any] = []
        with self._clip_folder:
            self._clip = gui.add_checkbox("Cut to the box", False)
            self._spans = [gui.add_multi_slider(axis, 0, 1, 0.01, (0, 1)) for axis in "XYZ"]
        for handle in (self._color, self._confidence, self._size):
            session.on(handle, "Look", self._restyle)
        session.on(self._frusta, "Cameras", lambda: session.cameras.set_visible(self._frusta.value))
        session.on(self._grid, "Floor", lambda: session.floor.set_visible(self._grid.value))
        session.on(self._home, "View", session.overview)
        session.on(self._shot, "Screenshot", self._screenshot)
        session.on(self._stand, "View", self._visit)
        for handle in (self._clip, *self._spans):
            session.on(handle, "Clip box", self._clip_changed)

    def renew(self) -> None:
        """Fit the controls to the scene."""
        scene = self._session.scene
        names = [] if scene is None else [f"{i + 1}: {view.name}" for i, view in enumerate(scene.views)]
        self._stand.options = ("-", *names)
        self._drop_photo()
        for box in self._view_boxes:
            box.remove()
        self._view_boxes = []
        with self._views_folder:
            for name in names[:_MOST_CHECKBOXES]:
                box = self._session.client.gui.add_checkbox(name, True)
                self._session.on(box, "Views", self._restyle)
                self._view_boxes.append(box)
        self._renew_clip()
        self._restyle()

    def tell_photo(self, index: int) -> None:
        """Show the photo of a view beside the picture."""
        scene = self._session.scene
        if scene is None:
            return
        view = scene.views[index]
        # The part of the network's image that the photo fills, in the photo's shape.
        picture = Image.fromarray(view.rgb)
        picture = picture.resize(
            (_PHOTO_PX, max(1, round(_PHOTO_PX * view.original_size[1] / view.original_size[0])))
        )
        self._stand.value = self._stand.options[index + 1]
        self._drop_photo()
        self._photo = self._session.client.gui.add_image(
            np.asarray(picture), label=view.name, order=self._stand.order + 0.5
        )

    def _visit(self) -> None:
        index = self._stand.options.index(self._stand.value) - 1
        if index >= 0:
            self._session.visit(index)
        else:
            self._drop_photo()
            self._session.overview()

    def _drop_photo(self) -> None:
        if self._photo is not None:
            self._photo.remove()
        self._photo = None

    def _restyle(self) -> None:
        self._session.restyle(
            color_by=ColorBy(self._color.value),
            min_confidence=float(self._confidence.value),
            point_size=float(self._size.value),
            hidden_views=frozenset(i for i, box in enumerate(self._view_boxes) if not box.value),
        )

    def _renew_clip(self) -> None:
        scene = self._session.scene
        if scene is None or scene.num_points == 0:
            return
        for axis, (span, low, high) in enumerate(zip(self._spans, *scene.bounds(), strict=True)):
            pad = 1e-3 * max(float(high - low), 1e-6)
            low, high = float(low) - pad, float(high) + pad
            with self._session.client.atomic():
                span.min, span.max, span.step = low, high, (high - low) / _CLIP_STEPS
                span.value = (low, high)
            del axis

    def _clip_changed(self) -> None:
        if not self._clip.value:
            self._session.restyle(clip=None)
            return
        low, high = zip(*((float(span.value[0]), float(span.value[1])) for span in self._spans), strict=True)
        self._session.restyle(clip=(low, high))

    def _screenshot(self) -> None:
        client = self._session.client
        height, width = client.camera.image_height, client.camera.image_width
        pixels = client.get_render(height, width, transport_format="png", timeout=_SHOT_TIMEOUT_S)
        picture = io.BytesIO()
        Image.fromarray(pixels).save(picture, "PNG")
        client.send_file_download("scene.png", picture.getvalue(), save_immediately=True)
