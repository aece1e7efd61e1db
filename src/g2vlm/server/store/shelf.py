"""What uploads and scenes share: rows, files, room on the disk, and who is using what right now."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from g2vlm.server.guard.limits import Limits
from g2vlm.server.guard.refusals import NotFoundError, QuotaError
from g2vlm.server.store.database import Database
from g2vlm.server.store.folders import DataFolder
from g2vlm.server.store.records import UNFINISHED

SCENES, UPLOADS = "scenes", "uploads"

_UNFINISHED = ", ".join(f"'{state.value}'" for state in UNFINISHED)

PINNED = f"""EXISTS (SELECT 1 FROM scene_uploads AS link JOIN scenes AS user
    ON user.tenant = link.tenant AND user.id = link.scene_id
    WHERE link.tenant = uploads.tenant AND link.upload_id = uploads.id AND user.state IN ({_UNFINISHED}))"""
"""Whether an unfinished scene still needs a row of `uploads`."""

LINKED = """EXISTS (SELECT 1 FROM scene_uploads AS link
    WHERE link.tenant = uploads.tenant AND link.upload_id = uploads.id)"""
"""Whether any scene was made of a row of `uploads`: questions about it look at its photos again."""

# Least recently used first; what is unfinished, pinned or half-removed may not go.
_CANDIDATES = f"""
SELECT 'scenes' AS kind, tenant, id, used_s FROM scenes WHERE tenant = :tenant AND state IN ('done', 'failed')
UNION ALL
SELECT 'uploads', tenant, id, used_s FROM uploads WHERE tenant = :tenant AND state = 'ready' AND NOT {PINNED}
ORDER BY used_s, id"""

_BYTES = """SELECT tenant, SUM(num_bytes) AS num_bytes FROM (
    SELECT tenant, num_bytes FROM scenes UNION ALL SELECT tenant, num_bytes FROM uploads) GROUP BY tenant"""


@dataclass(frozen=True)
class Item:
    """An upload or a scene."""

    kind: str
    """`SCENES` or `UPLOADS`: the table it is in."""

    tenant: str
    """Whose it is."""

    id: str
    """Name in requests."""


class Shelf:
    """Rows and files together. Thread-safe."""

    def __init__(
        self, database: Database, folder: DataFolder, limits: Limits, now: Callable[[], float]
    ) -> None:
        self.database = database
        self.folder = folder
        self.limits = limits
        self.now = now
        self._lock = threading.RLock()
        self._users: Counter[Item] = Counter()
        self._arriving: Counter[str] = Counter()

    def path(self, item: Item) -> Path:
        """Where an item's file or folder lies."""
        place = self.folder.scene if item.kind == SCENES else self.folder.upload
        return place(item.tenant, item.id)

    @contextmanager
    def in_use(self, item: Item) -> Iterator[None]:
        """Keep an item from being evicted or expiring while the block runs."""
        with self._lock:
            self._users[item] += 1
        try:
            yield
        finally:
            with self._lock:
                self._users[item] -= 1
                if not self._users[item]:
                    del self._users[item]

    def used_bytes(self) -> dict[str, int]:
        """Bytes on the disk by tenant, with room that is set aside."""
        with self._lock:
            totals = Counter(self._arriving)
        totals.update({row["tenant"]: row["num_bytes"] for row in self.database.rows(_BYTES)})
        return dict(totals)

    @contextmanager
    def room(self, tenant: str) -> Iterator[Callable[[int], None]]:
        """Set room aside for something that arrives.

        Args:
            tenant: Whose it is.

        Yields:
            A function that takes a further number of bytes, or gives back a negative one; what it took is
            given back when the block ends, since by then the row counts it. It raises QuotaError when the
            tenant's share or the disk is full of things that may not be evicted.
        """
        taken = 0

        def take(num_bytes: int) -> None:
            nonlocal taken
            with self._lock:
                self.make_room(tenant, num_bytes)
                self._arriving[tenant] += num_bytes
                taken += num_bytes

        try:
            yield take
        finally:
            with self._lock:
                self._arriving[tenant] -= taken
                if not self._arriving[tenant]:
                    del self._arriving[tenant]

    def make_room(self, tenant: str, num_bytes: int) -> None:
        """Evict least recently used items until a tenant may store so many more bytes.

        The tenant's own share comes first. Where the whole disk is short, whoever uses most of it gives: a
        tenant cannot push out others that use less than itself.

        Raises:
            QuotaError: Not enough may be evicted.
        """
        with self._lock:
            # What can never fit must not push out everything else first.
            if self._arriving[tenant] + num_bytes > self.limits.tenant_disk_bytes:
                raise _full(num_bytes, self.limits.tenant_disk_bytes)
            while True:
                used = self.used_bytes()
                if used.get(tenant, 0) + num_bytes > self.limits.tenant_disk_bytes:
                    giver, limit = tenant, self.limits.tenant_disk_bytes
                elif sum(used.values()) + num_bytes > self.limits.disk_bytes:
                    used[tenant] = used.get(tenant, 0) + num_bytes
                    giver, limit = max(used, key=lambda name: used[name]), self.limits.disk_bytes
                else:
                    return
                if not self.evict_one(giver):
                    raise _full(num_bytes, limit)

    def evict_one(self, tenant: str, kind: str | None = None) -> bool:
        """Remove the least recently used item of a tenant that may go; whether there was one."""
        for row in self.database.rows(_CANDIDATES, {"tenant": tenant}):
            item = Item(row["kind"], row["tenant"], row["id"])
            if (kind is None or item.kind == kind) and self.evict(item):
                return True
        return False

    def evict(self, item: Item) -> bool:
        """Remove an item unless somebody uses it or an unfinished scene needs it; whether it is gone."""
        may_go = "state IN ('done', 'failed')" if item.kind == SCENES else f"state = 'ready' AND NOT {PINNED}"
        # Under the lock: whoever begins to use it comes before, and is seen, or after, and finds it gone.
        with self._lock:
            if self._users[item] or not self._mark_doomed(item, may_go):
                return False
        self._finish_removal(item)
        return True

    def remove(self, item: Item) -> None:
        """Remove row and files. A crash on the way is finished by the next start.

        Raises:
            NotFoundError: There is no such item of this tenant.
        """
        if not self._mark_doomed(item, "state != 'deleting'"):
            raise missing(item)
        self._finish_removal(item)

    def _mark_doomed(self, item: Item, condition: str) -> bool:
        """Note that an item goes, if a condition on its row holds; from here on nobody finds it."""
        with self.database.changing() as rows:
            changed = rows.execute(
                f"UPDATE {item.kind} SET state = 'deleting' WHERE tenant = ? AND id = ? AND {condition}",
                (item.tenant, item.id),
            ).rowcount
        return bool(changed)

    def _finish_removal(self, item: Item) -> None:
        self.folder.remove(self.path(item))
        with self.database.changing() as rows:
            rows.execute(f"DELETE FROM {item.kind} WHERE tenant = ? AND id = ?", (item.tenant, item.id))


def _full(num_bytes: int, limit: int) -> QuotaError:
    return QuotaError(
        f"Expected room for {num_bytes} more bytes, but at most {limit} may be stored and what is there is "
        "in use: delete scenes or uploads, wait until those in work are finished, or send less."
    )


def missing(item: Item) -> NotFoundError:
    """The error for an item that is not there, or belongs to somebody else."""
    word = "scene" if item.kind == SCENES else "upload"
    return NotFoundError(
        f"Expected the id of one of your {item.kind}, got {item.id[:64]!r}: no such {word}, or it has "
        "expired."
    )
