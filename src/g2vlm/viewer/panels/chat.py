"""The tab "Ask": questions about the photos, and answers as they are written."""

import threading
import time
from typing import TYPE_CHECKING

from g2vlm.errors import InputError
from g2vlm.viewer.wording import plain

if TYPE_CHECKING:
    from g2vlm.viewer.session import Session

_NOTHING_YET = "Reconstruct photos first, then ask about them."
_READY = "Ask about what the photos show: *Which is closer to the camera, the chair or the lamp?*"
_EVERY_S = 0.08
_MAX_NEW_TOKENS = 200


class ChatPanel:
    """Controls of questions.

    Args:
        session: the browser.
    """

    def __init__(self, session: "Session") -> None:
        self._session, gui = session, session.client.gui
        self._told = gui.add_markdown(_NOTHING_YET)
        self._question = gui.add_text("Question", "", multiline=True)
        self._ask = gui.add_button("Ask", icon="send", disabled=True)
        self._stop = gui.add_button("Stop", icon="player-stop", color="gray", visible=False)
        self._turns: list[tuple[str, str]] = []
        self._cancel = threading.Event()
        session.on(self._ask, "Answer", self._answer)
        session.on(self._stop, "Answer", self.cancel)

    def renew(self) -> None:
        """Forget the conversation: the scene is another one."""
        self.cancel()
        self._turns = []
        can_ask = self._session.perception is not None
        self._told.content = _READY if can_ask else _NOTHING_YET
        self._ask.disabled = not can_ask

    def cancel(self) -> None:
        """End the answer that is being written."""
        self._cancel.set()

    def _answer(self) -> None:
        perception, question = self._session.perception, str(self._question.value).strip()
        if perception is None:
            raise InputError(_NOTHING_YET)
        if not question:
            raise InputError("Expected a question, got an empty text: say what you want to know.")
        self._cancel = cancel = threading.Event()
        turns = self._turns
        turns.append((question, ""))
        self._ask.disabled, self._stop.visible = True, True
        shown_s = 0.0

        def on_text(piece: str) -> None:
            nonlocal shown_s
            turns[-1] = (question, turns[-1][1] + piece)
            # Each update sends the whole conversation: not more often than one can read.
            if time.monotonic() - shown_s > _EVERY_S and turns is self._turns:
                shown_s = time.monotonic()
                self._show()

        self._show()
        try:
            answer = perception.ask(question, max_new_tokens=_MAX_NEW_TOKENS, on_text=on_text, cancel=cancel)
            turns[-1] = (question, answer.text + ("" if answer.finished else " ..."))
            if turns is self._turns:
                self._question.value = ""
        finally:
            self._ask.disabled, self._stop.visible = self._session.perception is None, False
            if turns is self._turns:
                self._show()

    def _show(self) -> None:
        self._told.content = "\n\n".join(
            f"**{plain(question)}**\n\n{plain(answer) or '...'}" for question, answer in self._turns
        )
