"""The tab "Photos": files come in, and a scene comes out."""

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from g2vlm.errors import InputError
from g2vlm.inputs.video import is_video
from g2vlm.viewer.studio import CancelledError, Material
from g2vlm.viewer.uploads import DROP_ZONE, bound_uploads, store
from g2vlm.viewer.wording import plain
from g2vlm.viewer.work import Job

if TYPE_CHECKING:
    from pathlib import Path

    from g2vlm.viewer.session import Session

_ACCEPT = "image/*,video/*,.heic,.heif,.dng,.cr2,.nef,.arw,.mkv,.mts"
_AT_ONCE, _GROWING = "evenly spread frames, at once", "frame by frame, growing"
_RATE_HZ = 2.0
_LISTED = 12


class PhotosPanel:
    """Controls of uploading and reconstructing.

    Args:
        session: the browser; it has a studio.
    """

    def __init__(self, session: "Session") -> None:
        assert session.studio is not None
        self._session, self._studio, gui = session, session.studio, session.client.gui
        self._limits = session.studio.limits
        self._folder = session.folder / "uploads"
        self._folder.mkdir()
        self._files: list[tuple[Path, str]] = []
        self._uploaded_bytes = 0
        self._changing, self._starting = threading.Lock(), threading.Lock()
        self._arrivals: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._is_taking = False
        self._job: Job | None = None
        bound_uploads(session.client, self._limits.max_upload_mb * 1_000_000)
        gui.add_html(DROP_ZONE)
        self._upload = gui.add_upload_button(
            "Choose photos or a video", icon="photo", color="gray", mime_type=_ACCEPT
        )
        self._list = gui.add_markdown("")
        self._video = gui.add_dropdown("Video", (_AT_ONCE, _GROWING), visible=False)
        self._go = gui.add_button("Reconstruct", icon="cube", disabled=True)
        self._stop = gui.add_button("Stop", icon="player-stop", color="gray", visible=False)
        self._progress = gui.add_progress_bar(0.0, visible=False, animated=True)
        self._status = gui.add_markdown("")
        self._clear = gui.add_button("Start anew", icon="trash", color="gray", visible=False)
        self._example = gui.add_button(
            "Try the example photos", icon="sparkles", visible=self._studio.examples is not None
        )
        self._upload.on_upload(self._arrived)
        session.on(self._go, "Reconstruction", lambda: self._start(self._material()))
        session.on(self._stop, "Reconstruction", self.cancel)
        session.on(self._clear, "Photos", self._start_anew)
        session.on(self._example, "Reconstruction", self._try_example)

    def cancel(self) -> None:
        """Stop the reconstruction that waits or runs."""
        job = self._job
        if job is not None:
            self._studio.queue.cancel(job)
            if self._job is job:
                self._finished(job, "Stopped.")

    async def _arrived(self, event: Any) -> None:
        # The button holds the latest file only: it is taken in the loop that stores it there, before the next
        # one can arrive. Files are read one by one in a thread of this browser, not in those that all share.
        self._arrivals.put(self._upload.value)
        with self._starting:
            if not self._is_taking:
                self._is_taking = True
                threading.Thread(target=self._take_all, name="g2vlm-uploads", daemon=True).start()

    def _take_all(self) -> None:
        while True:
            with self._starting:
                if self._arrivals.empty() or self._session.closed.is_set():
                    self._is_taking = False
                    return
            self._take(self._arrivals.get())

    def _take(self, uploaded: Any) -> None:
        with self._session.guarded(f"Upload of {uploaded.name}"), self._changing:
            if len(self._files) >= self._limits.max_files:
                raise InputError(f"Expected at most {self._limits.max_files} files: start anew for others.")
            size = len(uploaded.content)
            if self._uploaded_bytes + size > self._limits.max_upload_mb * 1_000_000:
                raise InputError(f"Expected at most {self._limits.max_upload_mb} MB of files in all.")
            path, about = store(uploaded.name, uploaded.content, self._folder), None
            try:
                self._check_mixture(path)
                about = self._studio.examine(path)
            except InputError as error:
                # Where the file lies here is nobody's business there.
                raise InputError(str(error).replace(f"{path.parent}/", "")) from error
            finally:
                if about is None:
                    path.unlink(missing_ok=True)
            self._uploaded_bytes += size
            self._files.append((path, about))
            self._tell_files()

    def _check_mixture(self, path: "Path") -> None:
        if self._files and (is_video(path) or is_video(self._files[0][0])):
            raise InputError("Expected photos, or one video alone: start anew for another scene.")

    def _tell_files(self) -> None:
        lines = [f"- {plain(path.name)} ({plain(about)})" for path, about in self._files[:_LISTED]]
        if len(self._files) > _LISTED:
            lines.append(f"- and {len(self._files) - _LISTED} more")
        self._list.content = "\n".join(lines)
        self._go.disabled = not self._files or self._job is not None
        self._clear.visible = bool(self._files) or self._session.scene is not None
        self._video.visible = bool(self._files) and is_video(self._files[0][0])

    def _material(self) -> Material:
        if not self._files:
            raise InputError("Expected photos or a video: upload some first.")
        # In the order of their names, as a folder would be read.
        from g2vlm.inputs.photos import natural_key

        return Material(tuple(sorted((path for path, _ in self._files), key=natural_key)))

    def _try_example(self) -> None:
        assert self._studio.examples is not None
        self._start(Material((self._studio.examples,)))

    def _start_anew(self) -> None:
        self.cancel()
        with self._changing:
            for path, _ in self._files:
                path.unlink(missing_ok=True)
            self._files, self._uploaded_bytes = [], 0
            self._session.clear()
            self._status.content = ""
            self._tell_files()

    def _start(self, material: Material) -> None:
        if self._job is not None:
            raise InputError("Expected the reconstruction that runs to end first, or to be stopped.")
        grows = material.is_video and self._video.value == _GROWING
        work: Callable[[Material, Job], None] = self._stream if grows else self._reconstruct

        def run(job: Job) -> None:
            problem = "Failed."
            with self._session.guarded("Reconstruction"):
                try:
                    work(material, job)
                    problem = ""
                except CancelledError:
                    problem = "Stopped."
            self._finished(job, problem)

        self._job = Job(run, self._tell_place)
        self._go.disabled = self._example.disabled = True
        self._stop.visible = self._progress.visible = True
        self._studio.queue.add(self._job)

    def _tell_place(self, place: int) -> None:
        if place:
            self._status.content = f"Waiting: {place} before you." if place > 1 else "Waiting: you are next."
            self._progress.value = 0.0

    def _step(self, text: str, share: float | None) -> None:
        self._session.touch()
        self._status.content = f"{text} ..."
        self._progress.animated = share is None
        self._progress.value = 100.0 if share is None else 100.0 * min(1.0, share)

    def _reconstruct(self, material: Material, job: Job) -> None:
        points, perception, notices = self._studio.reconstruct(material, self._step, job)
        if not self._session.closed.is_set():
            self._session.show(points, perception)
            for notice in notices:
                self._session.tell("Please note", notice)

    def _stream(self, material: Material, job: Job) -> None:
        self._session.clear()
        points = self._studio.stream(material, _RATE_HZ, self._step, job, self._session.grow)
        if not self._session.closed.is_set():
            self._session.show(points, fly=False)

    def _finished(self, job: Job, text: str) -> None:
        if self._job is not job:
            return
        self._job = None
        self._status.content = text
        self._stop.visible = self._progress.visible = False
        self._example.disabled = False
        self._tell_files()
