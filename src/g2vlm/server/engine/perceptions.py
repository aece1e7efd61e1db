"""Photos that were perceived before, kept for further questions in a bounded number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from g2vlm.inference.perception import Perception


@dataclass(frozen=True)
class PerceptionKey:
    """Whose photos, and which: nothing of one tenant is ever found under the key of another."""

    tenant: str
    digest: str
    """Of all pixels, names and options."""


@dataclass(eq=False)
class _Entry:
    perception: Perception
    num_bytes: int
    num_leases: int = 0


class Lease:
    """The use of a perception; it stays in memory until all uses of it have ended."""

    def __init__(self, perception: Perception, release: Callable[[], None], *, was_known: bool) -> None:
        self.perception = perception
        self.was_known = was_known
        """Whether it had been perceived before it was asked for."""
        self._release, self._ended, self._lock = release, False, threading.Lock()

    def release(self) -> None:
        """End the use; more than once does nothing."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self._release()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class PerceptionCache:
    """Perceptions by key; those not used for longest are dropped first. Any thread may call.

    Args:
        max_bytes: of all that is kept, that in use included.
        on_release: told whenever a use ends, because there may be room now.
    """

    def __init__(self, max_bytes: int, on_release: Callable[[], None]) -> None:
        self.max_bytes = max_bytes
        self.num_hits = self.num_misses = 0
        self._on_release = on_release
        self._entries: OrderedDict[PerceptionKey, _Entry] = OrderedDict()
        self._lock = threading.RLock()
        self._reserved = 0

    @property
    def num_bytes(self) -> int:
        """Bytes that are taken or promised."""
        with self._lock:
            return self._reserved + sum(entry.num_bytes for entry in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def lease(self, key: PerceptionKey) -> Lease | None:
        """Use what is there; none if it is not."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self.num_misses += 1
                return None
            self.num_hits += 1
            self._entries.move_to_end(key)
            return self._leased(entry, was_known=True)

    def reserve(self, num_bytes: int) -> bool:
        """Promise room, dropping what nobody uses; false if too much is in use."""
        with self._lock:
            idle = [key for key, entry in self._entries.items() if not entry.num_leases]
            free = self.max_bytes - self.num_bytes
            droppable = sum(self._entries[key].num_bytes for key in idle)
            if num_bytes > free + droppable:
                return False
            for key in idle:
                if free >= num_bytes:
                    break
                free += self._entries.pop(key).num_bytes
            self._reserved += num_bytes
            return True

    def cancel_reservation(self, num_bytes: int) -> None:
        """Take a promise back."""
        with self._lock:
            self._reserved -= num_bytes

    def put(
        self, key: PerceptionKey, perception: Perception, num_bytes: int, reserved: int
    ) -> Callable[[], Lease]:
        """Keep a perception in room that was reserved for it.

        Args:
            key: of it.
            perception: what is kept.
            num_bytes: that it takes.
            reserved: bytes that had been promised.

        Returns:
            What makes a lease of it for each who waits.
        """
        with self._lock:
            self._reserved -= reserved
            entry = _Entry(perception, num_bytes)
            self._entries[key] = entry
        return lambda: self._leased(entry, was_known=False)

    def drop(self, keep: Callable[[PerceptionKey], bool]) -> None:
        """Forget what is not to be kept; running answers keep what they read until they end."""
        with self._lock:
            for key in [key for key in self._entries if not keep(key)]:
                del self._entries[key]

    def _leased(self, entry: _Entry, *, was_known: bool) -> Lease:
        with self._lock:
            entry.num_leases += 1

        def release() -> None:
            with self._lock:
                entry.num_leases -= 1
            self._on_release()

        return Lease(entry.perception, release, was_known=was_known)
