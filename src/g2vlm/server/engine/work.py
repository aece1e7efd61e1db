"""Long work, such as looking at photos, and who waits for it."""

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, TypeVar

from g2vlm.server.engine.perceptions import PerceptionKey
from g2vlm.server.guard.refusals import CancelledError

T = TypeVar("T")
_numbers = itertools.count()


class Priority(IntEnum):
    """What goes first; among equals, what came first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True)
class Terms:
    """When work must be done, and before what other work."""

    priority: Priority = Priority.NORMAL
    deadline_s: int | float | None = None
    """On the clock of `time.monotonic`; none waits for ever."""

    @classmethod
    def within(cls, seconds: int | float | None, priority: Priority = Priority.NORMAL) -> "Terms":
        """Terms that count from now."""
        return cls(priority, None if seconds is None else time.monotonic() + seconds)

    @property
    def is_over(self) -> bool:
        """Whether it is too late."""
        return self.deadline_s is not None and time.monotonic() > self.deadline_s


class Ticket(Generic[T]):
    """What somebody holds who waits for work; from any thread."""

    def __init__(self, terms: Terms, wake: Callable[[], None], give_back: Callable[[T], None] | None) -> None:
        self.future: Future[T] = Future()
        # From here on nobody but a ticket can cancel it, and every result has a taker.
        self.future.set_running_or_notify_cancel()
        self.terms = terms
        self._wake, self._give_back = wake, give_back
        self._lock, self._cancelled = threading.Lock(), False

    @property
    def is_cancelled(self) -> bool:
        """Whether the holder has left."""
        return self._cancelled

    def cancel(self) -> None:
        """Leave; a result that is there already, or comes, is given back."""
        with self._lock:
            if self._cancelled:
                return
            self._cancelled = True
            done = self.future.done()
        if done and self.future.exception() is None:
            self._return(self.future.result())
        self.fail(CancelledError("The request was cancelled."))
        self._wake()

    def succeed(self, result: T) -> None:
        """Hand the result over."""
        with self._lock:
            wanted = not self._cancelled and not self.future.done()
            if wanted:
                self.future.set_result(result)
        if not wanted:
            self._return(result)

    def fail(self, error: BaseException) -> None:
        """Say why there is no result; nothing happens where there is one."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def _return(self, result: T) -> None:
        if self._give_back is not None:
            self._give_back(result)


class LongWork:
    """Something that takes a while, done in the engine's thread for one or several who wait.

    Args:
        run: does it, with `pause` between its pieces.
        cost: in tokens; much shorter work may pass by.
        num_bytes: of the memory that its result will take in the cache; none for other results.
        num_pieces: about how often it pauses.
        key: of the perception that it makes; its result is then a function that gives leases.
    """

    def __init__(
        self,
        run: Callable[[], Any],
        *,
        cost: int,
        num_bytes: int = 0,
        num_pieces: int = 1,
        key: PerceptionKey | None = None,
    ) -> None:
        self.run, self.cost, self.num_bytes, self.num_pieces = run, cost, num_bytes, num_pieces
        self.key = key
        self.tickets: list[Ticket[Any]] = []
        self.listeners: list[Callable[[float], None]] = []
        self._number, self._pieces_done = next(_numbers), 0

    @property
    def rank(self) -> tuple[int, int]:
        """Smaller goes first."""
        priority = min((ticket.terms.priority for ticket in self.tickets), default=Priority.LOW)
        return int(priority), self._number

    def drop_leavers(self) -> None:
        """Forget those who left, and tell those whose time is over."""
        for ticket in self.tickets:
            if ticket.terms.is_over:
                ticket.fail(CancelledError("Expected to finish within the time limit, but it is over."))
        self.tickets = [ticket for ticket in self.tickets if not ticket.future.done()]

    def check(self) -> None:
        """Count a piece, and end the work if nobody waits for it.

        Raises:
            CancelledError: nobody does.
        """
        self._pieces_done += 1
        for listener in self.listeners:
            listener(min(self._pieces_done / max(self.num_pieces, 1), 1.0))
        self.drop_leavers()
        if not self.tickets:
            raise CancelledError("Nobody waits for this work any more.")

    def fail(self, error: BaseException) -> None:
        """Tell all who wait why there is no result."""
        for ticket in self.tickets:
            ticket.fail(error)
        self.tickets = []
