"""The thread that owns the work of the model: it looks at photos, and writes all answers side by side.

Looking takes long and answers are short, so that a look is done in pieces (the layers of the network), and
between two pieces the answers that run meanwhile get as much time as the piece took. Much shorter looks may
pass by in the same time. So nobody waits for the whole of somebody else's work, and the long work advances
at half speed or better.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from g2vlm.errors import G2VLMError
from g2vlm.inference.perception import Perception
from g2vlm.model.pausing import pausing
from g2vlm.pipeline import Model
from g2vlm.server.engine.answering import Asking, FullAnswer, OnPiece
from g2vlm.server.engine.answers import AnswerQueue, AnswerWork
from g2vlm.server.engine.errors import StoppingError, told
from g2vlm.server.engine.looking import Look, num_bytes_of, plan_look, require_room
from g2vlm.server.engine.perceptions import Lease, PerceptionCache, PerceptionKey
from g2vlm.server.engine.work import LongWork, Terms, Ticket
from g2vlm.server.guard.refusals import BusyError, CancelledError

T = TypeVar("T")

MUCH_SHORTER = 4.0
"""Work passes by other work that costs this many times more."""
LONGEST_WAIT_S = 0.5
"""Between two looks of an idle engine at deadlines."""


@dataclass(frozen=True)
class EngineLimits:
    """What the engine holds at a time."""

    num_running: int = 64
    """Answers written side by side."""
    num_waiting: int = 256
    """Questions and looks that wait; more are refused."""
    cache_bytes: int = 2 << 30
    """Memory of photos that were perceived, those in use included."""


class Engine:
    """Runs the work of a model in one thread of its own. Any thread may hand in work.

    Args:
        model: nobody else should use it meanwhile: only its time would suffer.
        limits: what is held at a time.
    """

    def __init__(self, model: Model, limits: EngineLimits = EngineLimits()) -> None:
        self.model, self.limits = model, limits
        self._wake = threading.Condition(threading.RLock())
        self.perceptions = PerceptionCache(limits.cache_bytes, self._notify)
        self._answers = AnswerQueue(model, limits.num_running)
        self._waiting: list[LongWork] = []
        self._running: list[LongWork] = []
        self._looks: dict[PerceptionKey, LongWork] = {}
        self._thread = threading.Thread(target=self._work, name="g2vlm-engine", daemon=True)
        self._stopping = self._aborting = False
        self._mean_s = 1.0

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self, grace_s: int | float) -> None:
        """Take no more work, finish what there is as far as it takes no longer than `grace_s`, and end."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join(grace_s)
        with self._wake:
            self._aborting = True
            self._wake.notify_all()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether work is being done, or would be."""
        return self._thread.is_alive() and not self._stopping

    @property
    def num_waiting(self) -> int:
        """Questions and looks that wait."""
        with self._wake:
            return len(self._waiting) + self._answers.num_waiting

    @property
    def num_running(self) -> int:
        """Answers that are being written."""
        return self._answers.num_running

    @property
    def num_looks(self) -> int:
        """Looks and other long work that have begun."""
        return len(self._running)

    def look(
        self, look: Look, terms: Terms, on_progress: Callable[[float], None] | None = None
    ) -> Ticket[Lease]:
        """Perceive photos, or find what was perceived before; several who want the same share one look.

        Args:
            look: the photos.
            terms: of this wish.
            on_progress: called in the engine's thread with the share that is done, 0 to 1.

        Returns:
            A ticket for a lease, which must be released.

        Raises:
            InputError: photos that cannot be used, or too many for the cache.
            BusyError: too much waits.
            StoppingError: the service is going down.
        """
        ticket: Ticket[Lease] = Ticket(terms, self._notify, Lease.release)
        with self._wake:
            self._require_running()
            if lease := self.perceptions.lease(look.key):
                ticket.succeed(lease)
                return ticket
            work = self._looks.get(look.key)
            if work is None:
                work = self._queue(self._new_look(look))
                self._looks[look.key] = work
            work.tickets.append(ticket)
            if on_progress is not None:
                work.listeners.append(on_progress)
            self._wake.notify_all()
        return ticket

    def run(
        self,
        work: Callable[[], T],
        *,
        cost: int,
        terms: Terms,
        num_pieces: int = 1,
        on_progress: Callable[[float], None] | None = None,
    ) -> Ticket[T]:
        """Do some other long work with the model; errors as of `look`.

        Args:
            work: runs in the engine's thread.
            cost: in tokens.
            terms: of it.
            num_pieces: about how often it pauses.
            on_progress: called in the engine's thread with the share that is done, 0 to 1.
        """
        ticket: Ticket[T] = Ticket(terms, self._notify, None)
        with self._wake:
            self._require_running()
            queued = self._queue(LongWork(work, cost=cost, num_pieces=num_pieces))
            queued.tickets.append(ticket)
            if on_progress is not None:
                queued.listeners.append(on_progress)
            self._wake.notify_all()
        return ticket

    def ask(
        self, perception: Perception, asking: Asking, terms: Terms, on_piece: OnPiece | None = None
    ) -> Ticket[FullAnswer]:
        """Answer a question; errors as of `look`.

        Args:
            perception: what it is about; the caller holds a lease until the ticket is done.
            asking: the question.
            terms: of it.
            on_piece: called in the engine's thread with the parts of the answer.
        """
        ticket: Ticket[FullAnswer] = Ticket(terms, self._notify, None)
        with self._wake:
            self._require_running()
            self._require_room()
            self._answers.add(AnswerWork(perception, asking, ticket, on_piece))
            self._wake.notify_all()
        return ticket

    def _new_look(self, look: Look) -> LongWork:
        plan = plan_look(self.model, look.photos)
        require_room(plan, self.limits.cache_bytes, len(look.photos.photos))

        def perceive() -> Callable[[], Lease]:
            perception = self.model.perceive(look.photos, fit=look.fit)
            return self.perceptions.put(look.key, perception, num_bytes_of(perception), plan.num_bytes)

        return LongWork(
            perceive, cost=plan.num_tokens, num_bytes=plan.num_bytes, num_pieces=plan.num_pieces, key=look.key
        )

    def _queue(self, work: LongWork) -> LongWork:
        self._require_room()
        self._waiting.append(work)
        return work

    def _require_running(self) -> None:
        if self._stopping:
            raise StoppingError("Expected a service that takes work, but it is going down: try another one.")

    def _require_room(self) -> None:
        waiting = self.num_waiting
        if waiting >= self.limits.num_waiting:
            after = min(max(1.0, waiting * self._mean_s / 2), 60.0)
            raise BusyError(f"Expected room in the queue, but {waiting} requests wait already.", after)

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def _work(self) -> None:
        """The thread: until it is told to stop, and nothing is left or no time."""
        while True:
            work = self._next(None)
            if work is not None:
                self._perform(work)
            self._answers.step()
            with self._wake:
                if self._aborting or (self._stopping and not self._has_work()):
                    break
                if work is None and not self._answers.is_busy:
                    self._wake.wait(LONGEST_WAIT_S)
        self._give_up(StoppingError("The service went down before this was finished: ask again."))

    def _has_work(self) -> bool:
        return bool(self._waiting) or self._answers.is_busy

    def _next(self, running: LongWork | None) -> LongWork | None:
        """Take the long work that is first, with the memory it will need.

        Args:
            running: work that it would interrupt, which only much shorter or more urgent work may.
        """
        with self._wake:
            for work in sorted(self._waiting, key=lambda one: one.rank):
                work.drop_leavers()
                if not work.tickets:
                    self._forget(work)
                    continue
                if running is not None and not _passes_by(work, running):
                    continue
                # What finds no room yet waits until answers give some back.
                if self.perceptions.reserve(work.num_bytes):
                    self._waiting.remove(work)
                    return work
        return None

    def _forget(self, work: LongWork) -> None:
        if work in self._waiting:
            self._waiting.remove(work)
        if work.key is not None and self._looks.get(work.key) is work:
            del self._looks[work.key]

    def _perform(self, work: LongWork) -> None:
        """Do long work, piece by piece, and hand its result to all who wait."""
        start, turns = time.monotonic(), _Turns()
        self._running.append(work)
        try:
            with pausing(lambda: self._between_pieces(work, turns)):
                result = work.run()
        except Exception as error:  # noqa: BLE001  (whatever it is, the thread must go on)
            self.perceptions.cancel_reservation(work.num_bytes)
            with self._wake:
                self._forget(work)
                work.fail(told(error))
        else:
            with self._wake:
                self._forget(work)
                tickets, work.tickets = work.tickets, []
            for ticket in tickets:
                ticket.succeed(result() if work.key is not None else result)
        finally:
            self._running.remove(work)
        self._mean_s = 0.8 * self._mean_s + 0.2 * (time.monotonic() - start)

    def _between_pieces(self, work: LongWork, turns: "_Turns") -> None:
        """Let others work as long as the last piece took.

        Raises:
            CancelledError: nobody waits for the work any more.
            StoppingError: there is no time left for it.
        """
        with self._wake:
            try:
                work.check()
            except CancelledError:
                self._forget(work)  # whoever wants the same from now on begins anew
                raise
            if self._aborting:
                raise StoppingError("The service went down before this was finished: ask again.")
        turns.end_own()
        while turns.others_may:
            # Two works at a time bound the memory of layers.
            shorter = self._next(work) if len(self._running) < 2 else None
            if shorter is not None:
                with turns.of_others():
                    self._perform(shorter)
            elif self._answers.is_busy:
                with turns.of_others():
                    self._answers.step()
            else:
                break
        turns.begin_own()

    def _give_up(self, error: G2VLMError) -> None:
        with self._wake:
            self._stopping = True
            for work in self._waiting:
                work.fail(error)
            self._waiting.clear()
            self._looks.clear()
            self._answers.give_up(error)


class _Turns:
    """Shares time between long work and the others: in equal parts, and nothing is saved up."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._owed = 0.0

    def end_own(self) -> None:
        self._owed += time.monotonic() - self._since

    def begin_own(self) -> None:
        self._owed = min(self._owed, 0.0)
        self._since = time.monotonic()

    @property
    def others_may(self) -> bool:
        return self._owed > 0

    @contextmanager
    def of_others(self) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self._owed -= time.monotonic() - start


def _passes_by(work: LongWork, running: LongWork) -> bool:
    more_urgent = work.rank[0] < running.rank[0]
    return more_urgent or work.cost * MUCH_SHORTER <= running.cost
