"""One browser: its scene, what it sees of it, and its controls. Nothing is shared but the model."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from g2vlm.errors import G2VLMError
from g2vlm.inference.perception import Perception
from g2vlm.scene.ground import Ground, find_ground
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View
from g2vlm.viewer.cameras import BrowserCameras, overview, stand_of
from g2vlm.viewer.cloud import BrowserCloud
from g2vlm.viewer.floor import BrowserFloor
from g2vlm.viewer.panels.chat import ChatPanel
from g2vlm.viewer.panels.exporting import ExportPanel
from g2vlm.viewer.panels.look import LookPanel
from g2vlm.viewer.panels.measuring import MeasurePanel
from g2vlm.viewer.panels.photos import PhotosPanel
from g2vlm.viewer.points import ShownPoints
from g2vlm.viewer.studio import Studio
from g2vlm.viewer.wording import WELCOME, describe
from g2vlm.viewer.work import report


class Session:
    """What one browser holds.

    Args:
        client: viser's handle of the browser.
        studio: what makes scenes of photos; None where only given scenes are looked at.
        budget: points drawn at once.
    """

    def __init__(self, client: Any, studio: Studio | None, budget: int) -> None:
        self.client, self.studio = client, studio
        self.scene: Scene | None = None
        self.perception: Perception | None = None
        self.last_used_s = time.monotonic()
        self.closed = threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="g2vlm-view-")
        self.cloud = BrowserCloud(client, budget)
        self.cameras = BrowserCameras(client, self.visit)
        self.floor = BrowserFloor(client)
        self._ground: Ground | None = None
        client.camera.on_update(lambda camera: self.touch())
        self._build()

    def _build(self) -> None:
        gui = self.client.gui
        self._about = gui.add_markdown(WELCOME if self.studio else "")
        tabs = gui.add_tab_group()
        self.photos = None
        if self.studio is not None:
            with tabs.add_tab("Photos"):
                self.photos = PhotosPanel(self)
        with tabs.add_tab("View"):
            self.look = LookPanel(self)
        with tabs.add_tab("Measure"):
            self.measure = MeasurePanel(self)
        self.chat = None
        if self.studio is not None:
            with tabs.add_tab("Ask"):
                self.chat = ChatPanel(self)
        with tabs.add_tab("Export"):
            self.export = ExportPanel(self)

    @property
    def folder(self) -> Path:
        """Where its files lie while it lasts."""
        return Path(self._folder.name)

    def show(self, points: ShownPoints, perception: Perception | None = None, *, fly: bool = True) -> None:
        """Show a scene instead of the one before.

        Args:
            points: the scene, prepared.
            perception: what answers questions about it.
            fly: bring the camera to where all is seen.
        """
        scene = points.scene
        self.scene, self.perception = scene, perception
        self._ground = find_ground(scene)
        self.cloud.show([points])
        self.cameras.show(scene)
        self.floor.show(self._ground, scene)
        self._renew_panels()
        if fly:
            self.overview()

    def grow(self, scene: Scene, view: View, points: ShownPoints | None) -> None:
        """Show one more view of a scene that comes piece by piece.

        Args:
            scene: with the new view.
            view: the new one, the last of `scene`.
            points: its points; None if it has none.
        """
        first = self.scene is None
        self.scene, self.perception = scene, None
        if first:
            self.cloud.show([])
            self.cameras.show(scene)
        else:
            self.cameras.add(view)
        if points is not None:
            self.cloud.add(points)
        if first and points is not None:
            self._ground = find_ground(scene)
            self.overview()
        self._about.content = describe(scene)

    def clear(self) -> None:
        """Show nothing."""
        self.scene = self.perception = None
        self.cloud.show([])
        self.cameras.clear()
        self.floor.clear()
        self._renew_panels()

    def _renew_panels(self) -> None:
        self._about.content = describe(self.scene) if self.scene is not None else WELCOME
        for panel in (self.look, self.measure, self.chat, self.export):
            if panel is not None:
                panel.renew()

    def overview(self) -> None:
        """Fly to where the whole scene is seen."""
        if self.scene is not None and self._ground is not None:
            self.cameras.enter(-1)
            overview(self.scene, self._ground, self._aspect()).take(self.client)

    def visit(self, index: int) -> None:
        """Fly to where a photo was taken, and show it."""
        self.touch()
        if self.scene is not None and index < len(self.scene):
            self.cameras.enter(index)
            stand_of(self.scene.views[index], self._aspect()).take(self.client)
            self.look.tell_photo(index)

    def _aspect(self) -> float:
        """Width over height of the picture."""
        camera = self.client.camera
        return float(max(1, camera.image_width) / max(1, camera.image_height))

    def restyle(self, **changes: Any) -> None:
        """Change how the cloud looks."""
        self.cloud.restyle(replace(self.cloud.look, **changes))

    def touch(self) -> None:
        """Somebody is there."""
        self.last_used_s = time.monotonic()

    def tell(self, title: str, text: str = "", *, is_error: bool = False) -> None:
        """Show a notification; errors stay until they are closed."""
        self.client.add_notification(
            title, text, color="red" if is_error else "blue", auto_close_seconds=None if is_error else 5.0
        )

    @contextmanager
    def guarded(self, doing: str) -> Iterator[None]:
        """Tell errors instead of raising them: the user's in their own words, ours with a trace on stderr.

        Args:
            doing: what failed, for the title: "Export", "Upload".
        """
        self.touch()
        try:
            yield
        except G2VLMError as error:
            self.tell(f"{doing} failed", " ".join(str(error).split()), is_error=True)
        except Exception as error:  # noqa: BLE001  a defect of ours must not silence the page
            report(error)
            if not self.closed.is_set():
                self.tell(f"{doing} failed", "This is a defect; the server's log has it.", is_error=True)

    def on(self, handle: Any, doing: str, action: Callable[[], None]) -> None:
        """Do something when a control is clicked or changed."""

        def react(event: Any) -> None:
            with self.guarded(doing):
                action()

        register = handle.on_click if hasattr(handle, "on_click") else handle.on_update
        register(react)

    def close(self) -> None:
        """Give back everything that it holds."""
        self.closed.set()
        if self.photos is not None:
            self.photos.cancel()
        if self.chat is not None:
            self.chat.cancel()
        self.cloud.close()
        self.scene = self.perception = None
        self._folder.cleanup()
