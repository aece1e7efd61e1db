"""The server of the viewer: browsers come and go, each with a session of its own."""

import contextlib
import importlib.util
import io
import threading
import time
from typing import Any

from g2vlm.errors import InputError, MissingExtraError
from g2vlm.inference.perception import Perception
from g2vlm.viewer.cloud import POINT_BUDGET
from g2vlm.viewer.limits import Limits
from g2vlm.viewer.points import ShownPoints
from g2vlm.viewer.session import Session
from g2vlm.viewer.studio import Studio

LOOPBACK = "127.0.0.1"
_LOOK_EVERY_S = 5.0
_BRAND = (38, 118, 225)


def require_viser() -> None:
    """Make sure that the viewer can run, before long work.

    Raises:
        MissingExtraError: viser is not installed.
    """
    if importlib.util.find_spec("viser") is None:
        raise MissingExtraError("The viewer", "viewer")


class Viewer:
    """Shows scenes to browsers; the server runs until `close`.

    Args:
        given: the scene that every browser sees first, prepared; None for an empty page.
        studio: what makes scenes of uploaded photos; None for looking only.
        perception: what answers questions about the given scene.
        host: address to listen on; by default browsers of this machine only.
        port: the first one tried; others follow if it is taken.
        limits: what one browser may ask for.
        budget: points that a browser draws at once.

    Raises:
        MissingExtraError: viser is not installed.
        InputError: an address that cannot be listened on.
    """

    def __init__(
        self,
        given: ShownPoints | None = None,
        studio: Studio | None = None,
        *,
        perception: Perception | None = None,
        host: str = LOOPBACK,
        port: int = 8080,
        limits: Limits = Limits(),
        budget: int = POINT_BUDGET,
    ) -> None:
        require_viser()
        import viser

        self.given, self.perception, self.studio = given, perception, studio
        self.limits, self._budget = limits, budget
        self.sessions: dict[int, Session] = {}
        self._lock, self._closed = threading.Lock(), threading.Event()
        try:
            # It prints its own banner; ours goes where the command line says things.
            with contextlib.redirect_stdout(io.StringIO()):
                self._server = viser.ViserServer(host=host, port=port, label="g2vlm", verbose=False)
        except OSError as error:
            raise InputError(f"Expected an address to listen on, got {host}:{port}: {error}.") from error
        # It would ask a server elsewhere to make this page public.
        self._server.request_share_url = lambda verbose=True: None  # type: ignore[method-assign]
        # Browsers orbit about the up direction that their camera is given. The root of the world must stay as
        # it is: a browser places cameras by the root that it drew last.
        self._server.scene.set_up_direction("-y")
        self._server.gui.configure_theme(
            dark_mode=True,
            show_logo=False,
            show_share_button=False,
            brand_color=_BRAND,
            control_width="medium",
        )
        self._server.on_client_connect(self._enter)
        self._server.on_client_disconnect(self._leave)
        threading.Thread(target=self._watch, name="g2vlm-idle", daemon=True).start()

    @property
    def address(self) -> str:
        """What to open in a browser."""
        host = self._server.get_host()
        return f"http://{'localhost' if host in ('0.0.0.0', LOOPBACK) else host}:{self._server.get_port()}"

    def wait(self) -> None:
        """Serve until `close`, or until this thread is interrupted."""
        while not self._closed.wait(_LOOK_EVERY_S):
            pass

    def close(self) -> None:
        """End all sessions and the server."""
        self._closed.set()
        for number in list(self.sessions):
            self._end(number)
        if self.studio is not None:
            self.studio.queue.close()
        with contextlib.redirect_stdout(io.StringIO()):
            self._server.stop()

    def _enter(self, client: Any) -> None:
        with self._lock:
            is_full = len(self.sessions) >= self.limits.max_sessions
            if not is_full:
                session = self.sessions[client.client_id] = Session(client, self.studio, self._budget)
        if is_full:
            client.gui.add_markdown(
                f"**All {self.limits.max_sessions} places are taken.** Come back later and reload the page."
            )
        elif self.given is not None:
            with session.guarded("The scene"):
                session.show(self.given, self.perception)

    def _leave(self, client: Any) -> None:
        self._end(client.client_id)

    def _end(self, number: int) -> None:
        with self._lock:
            session = self.sessions.pop(number, None)
        if session is not None:
            session.close()

    def _watch(self) -> None:
        """End sessions in which nothing happens."""
        while not self._closed.wait(_LOOK_EVERY_S):
            now = time.monotonic()
            for number, session in list(self.sessions.items()):
                if now - session.last_used_s > 60 * self.limits.idle_minutes:
                    session.clear()
                    session.tell("This page has expired", "Reload it to begin anew.", is_error=True)
                    self._end(number)
