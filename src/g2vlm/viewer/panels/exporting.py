"""The tab "Export": the scene as a file for other software."""

import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import g2vlm.export  # noqa: F401  (registers its formats)
from g2vlm.errors import InputError
from g2vlm.scene.formats import FORMATS, ZIP, Format, Target, no_progress
from g2vlm.scene.save_options import SaveOptions

if TYPE_CHECKING:
    from g2vlm.viewer.session import Session

_FIRST = ("glb", "html", "ply", "colmap")


class ExportPanel:
    """Controls of export.

    Args:
        session: the browser.
    """

    def __init__(self, session: "Session") -> None:
        self._session, gui = session, session.client.gui
        self._kinds = available_kinds()
        self._kind = gui.add_dropdown("Format", tuple(self._kinds), initial_value="glb")
        self._about = gui.add_markdown(FORMATS["glb"].summary)
        self._as_shown = gui.add_checkbox("Only points shown", True, hint="Heeds the confidence threshold")
        self._button = gui.add_button("Download", icon="download", disabled=True)
        session.on(self._kind, "Export", self._chosen)
        session.on(self._button, "Export", self._download)

    def renew(self) -> None:
        """Offer what there is."""
        self._button.disabled = self._session.scene is None

    def _chosen(self) -> None:
        self._about.content = FORMATS[self._kind.value].summary

    def _download(self) -> None:
        scene = self._session.scene
        if scene is None:
            raise InputError("Expected a scene to export: reconstruct one first.")
        if self._as_shown.value:
            scene = scene.filtered(min_confidence=self._session.cloud.look.min_confidence)
        kind = FORMATS[self._kind.value]
        self._button.disabled = True
        try:
            with tempfile.TemporaryDirectory(prefix="g2vlm-", dir=self._session.folder) as folder:
                path = Path(folder) / download_name(kind)
                Target(kind, path).write(scene, SaveOptions(), no_progress)
                self._session.client.send_file_download(path.name, path.read_bytes(), save_immediately=True)
        finally:
            self._button.disabled = False


def available_kinds() -> list[str]:
    """Formats whose packages are installed, the usual ones first."""
    known = [k for k, each in FORMATS.items() if each.module is None or importlib.util.find_spec(each.module)]
    return sorted(known, key=lambda kind: (_FIRST.index(kind) if kind in _FIRST else len(_FIRST), kind))


def download_name(format: Format) -> str:
    """Name of the file that a browser gets: folders are packed."""
    if format.is_folder:
        return f"scene-{format.kind}{ZIP}"
    if format.by_ending:
        return f"scene{format.by_ending[0]}"
    # Kinds without an ending of their own (tsdf, gaussians) say in the name what they are.
    return f"scene-{format.kind}{format.endings[0]}"
