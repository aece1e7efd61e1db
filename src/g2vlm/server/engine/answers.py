"""All answers of the service, written side by side; for the engine's thread, which alone steps."""

import threading
from dataclasses import dataclass

from g2vlm.errors import G2VLMError
from g2vlm.inference.batch import AnswerBatch
from g2vlm.inference.perception import Perception
from g2vlm.pipeline import Model
from g2vlm.server.engine.answering import Asking, FullAnswer, GrowingAnswer, OnPiece
from g2vlm.server.engine.errors import told
from g2vlm.server.engine.work import Ticket
from g2vlm.server.guard.refusals import CancelledError


@dataclass(eq=False)
class AnswerWork:
    """A question that waits for its turn."""

    perception: Perception
    asking: Asking
    ticket: Ticket[FullAnswer]
    on_piece: OnPiece | None

    @property
    def is_unwanted(self) -> bool:
        """Whether nobody waits for it any more, or it is too late."""
        if self.ticket.terms.is_over:
            self.ticket.fail(CancelledError("Expected an answer within the time limit, but it is over."))
        return self.ticket.future.done()


class AnswerQueue:
    """Questions by priority, and the batch of those that are being answered.

    Args:
        model: what answers.
        num_rows: answers written side by side.
    """

    def __init__(self, model: Model, num_rows: int) -> None:
        self._model, self._num_rows = model, num_rows
        self._batch: AnswerBatch | None = None
        self._lock = threading.Lock()
        self._waiting: list[AnswerWork] = []
        self._growing: dict[int, tuple[AnswerWork, GrowingAnswer]] = {}

    @property
    def num_waiting(self) -> int:
        """Questions whose answers have not begun."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Answers that have begun."""
        return len(self._growing)

    @property
    def is_busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._waiting or self._growing)

    def add(self, work: AnswerWork) -> None:
        """Let a question wait; from any thread."""
        with self._lock:
            self._waiting.append(work)

    def step(self) -> None:
        """Choose one more token of each answer, and let in as many that wait as there is room for."""
        if not self.is_busy:
            return
        try:
            self._admit()
            if self._batch is not None and self._batch.is_busy:
                self._follow()
        except Exception as error:  # noqa: BLE001  (an error of a pass ends the batch, not the service)
            self._fail_running(told(error))

    def give_up(self, error: G2VLMError) -> None:
        """Tell all who wait that there will be no answer."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for work in waiting:
            work.ticket.fail(error)
        self._fail_running(error)

    def _admit(self) -> None:
        with self._lock:
            wanted = [work for work in self._waiting if not work.is_unwanted]
            wanted.sort(key=lambda work: work.ticket.terms.priority)  # stable: first come, first served
            room = max(0, self._num_rows - len(self._growing))
            admitted, self._waiting = wanted[:room], wanted[room:]
        for work in admitted:
            try:
                self._begin(work)
            except G2VLMError as error:
                work.ticket.fail(error)

    def _begin(self, work: AnswerWork) -> None:
        if self._batch is None:
            self._batch = self._model.answer_batch()
        asking = work.asking
        growing = GrowingAnswer(asking, work.perception, self._model.tokenizer, work.on_piece)
        question = work.perception.question(
            asking.question,
            max_new_tokens=asking.max_new_tokens,
            sampling=asking.sampling,
            cancel=lambda: work.is_unwanted or growing.is_stopped,
            turns=asking.turns,
        )
        growing.running = self._batch.add(question)
        self._growing[id(growing.running)] = (work, growing)

    def _follow(self) -> None:
        assert self._batch is not None
        for running in self._batch.step():
            work, growing = self._growing[id(running)]
            if not work.ticket.future.done():
                growing.follow()
            if running.ending is None:
                continue
            del self._growing[id(running)]
            if not work.ticket.future.done():
                work.ticket.succeed(growing.finish())

    def _fail_running(self, error: Exception) -> None:
        growing, self._growing, self._batch = self._growing, {}, None
        for work, _ in growing.values():
            work.ticket.fail(error)
