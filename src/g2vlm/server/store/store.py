"""The store: uploads and scenes of all tenants in one data folder."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from g2vlm.server.guard.limits import Limits
from g2vlm.server.store.database import Database
from g2vlm.server.store.folders import DataFolder, describe, discard
from g2vlm.server.store.records import Recovery, Usage
from g2vlm.server.store.scenes import Scenes
from g2vlm.server.store.shelf import LINKED, SCENES, UPLOADS, Item, Shelf
from g2vlm.server.store.uploads import Uploads


class Store:
    """Uploads and scenes that survive the end of the service, whatever ends it. Thread-safe.

    A scene is either done with all of its files, or waits to be computed again; an upload is whole or absent.
    No method gives one tenant anything of another.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        limits: Limits | None = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open a data folder, or create it, and put right what an interrupted service left.

        Args:
            folder: The data folder; a temporary one, removed at the end, if None.
            limits: How much may be stored and for how long; the defaults if None.
            now: The time in seconds since 1970.

        Raises:
            InputError: Another service uses the folder, or it holds something else.
            OutputError: It cannot be written.
        """
        self._temporary = None if folder is not None else tempfile.mkdtemp(prefix="g2vlm-server-")
        self._folder = DataFolder(Path(folder if folder is not None else self._temporary or "").absolute())
        try:
            self._database = Database(self._folder.root / "store.sqlite", durable=folder is not None)
        except BaseException:
            self._folder.release()
            raise
        self.limits = limits or Limits()
        self._shelf = Shelf(self._database, self._folder, self.limits, now)
        self.uploads = Uploads(self._shelf)
        """Photos and videos."""
        self.scenes = Scenes(self._shelf)
        """Scenes, asked for or finished."""
        self.recovery = self._recover()
        """What the start put right."""

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_kept(self) -> bool:
        """Whether results survive the end of the service."""
        return self._temporary is None

    def usage(self, tenant: str) -> Usage:
        """How much of its share a tenant uses."""
        counts = self.scenes.counts(tenant)
        return Usage(
            self._shelf.used_bytes().get(tenant, 0), sum(counts.values()), self.uploads.count(tenant)
        )

    def used_bytes(self) -> int:
        """Bytes on the disk of all tenants."""
        return sum(self._shelf.used_bytes().values())

    def sweep(self) -> int:
        """Remove what has expired; call it now and then.

        Returns:
            How many uploads and scenes that were.
        """
        now = self._shelf.now()
        expired = self._database.rows(
            "SELECT 'scenes' AS kind, tenant, id FROM scenes "
            "WHERE expires_s < :now AND state IN ('done', 'failed') UNION ALL "
            "SELECT 'uploads', tenant, id FROM uploads "
            f"WHERE expires_s < :now AND state = 'ready' AND NOT {LINKED}",
            {"now": now},
        )
        removed = 0
        for row in expired:
            item = Item(row["kind"], row["tenant"], row["id"])
            removed += self._shelf.evict(item)
        return removed

    def check(self) -> tuple[str, ...]:
        """Compare all rows with all files, digests included; what is wrong, one line each.

        Meant for tests and for operators after a fault of the disk: it reads every file.
        """
        wrong = []
        for row in self._database.rows("SELECT * FROM scenes WHERE state = 'done'"):
            folder = self._folder.scene(row["tenant"], row["id"])
            listed = {file.name: file for file in self.scenes.files(row["tenant"], row["id"])}
            there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
            wrong += [f"{row['id']}: {name} is missing" for name in sorted(listed.keys() - there)]
            wrong += [f"{row['id']}: {name} is not listed" for name in sorted(there - listed.keys())]
            wrong += [
                f"{row['id']}: {name} is not what was stored"
                for name in sorted(listed.keys() & there)
                if describe(folder / name) != listed[name]
            ]
        for row in self._database.rows("SELECT * FROM uploads WHERE state = 'ready'"):
            path = self._folder.upload(row["tenant"], row["id"])
            if not path.is_file() or describe(path).digest != row["digest"]:
                wrong.append(f"{row['id']}: missing, or not what was stored")
        return (*wrong, *self._strays())

    def close(self) -> None:
        """Let go of the folder; a temporary one is removed."""
        self._database.close()
        self._folder.release()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _strays(self) -> list[str]:
        """Files and folders that no row knows."""
        strays: list[str] = []
        for kind in (SCENES, UPLOADS):
            known = {
                (row["tenant"], row["id"])
                for row in self._database.rows(f"SELECT tenant, id FROM {kind} WHERE state != 'deleting'")
            }
            strays += [
                f"{path.name}: no row knows this"
                for path in sorted((self._folder.root / "tenants").glob(f"*/{kind}/*"))
                if (path.parent.parent.name, path.name) not in known
            ]
        return strays

    def _recover(self) -> Recovery:
        """Put right what an interrupted service left; only rows in motion are looked at, so this is quick."""
        half = self._folder.empty_incoming()
        unfinished = self._database.rows(
            "SELECT 'uploads' AS kind, tenant, id FROM uploads WHERE state IN ('arriving', 'deleting') "
            "UNION ALL SELECT 'scenes', tenant, id FROM scenes WHERE state = 'deleting'"
        )
        items = [Item(row["kind"], row["tenant"], row["id"]) for row in unfinished]
        for item in items:
            discard(self._shelf.path(item))
        # One transaction for all: each waits for the disk.
        with self._database.changing() as rows:
            for item in items:
                rows.execute(f"DELETE FROM {item.kind} WHERE tenant = ? AND id = ?", (item.tenant, item.id))
        half += len(items) + self._drop_half_added()
        requeued, failed = self._take_up_interrupted()
        return Recovery(half, requeued, failed)

    def _drop_half_added(self) -> int:
        """Remove files whose adding to a finished scene was interrupted; how many."""
        added = self._database.rows("SELECT tenant, scene_id, name FROM scene_files WHERE digest = ''")
        for tenant, scene_id, name in added:
            discard(self._folder.scene(tenant, scene_id) / name)
        if added:
            with self._database.changing() as rows:
                rows.execute("DELETE FROM scene_files WHERE digest = ''")
        return len(added)

    def _take_up_interrupted(self) -> tuple[int, int]:
        """Queue the scenes again that were being computed; numbers of queued and of failed ones."""
        running = self._database.rows("SELECT tenant, id FROM scenes WHERE state = 'running'")
        for tenant, scene_id in running:
            discard(self._folder.scene(tenant, scene_id))
        now, most = self._shelf.now(), self.limits.scene_attempts
        with self._database.changing() as rows:
            # What ends the service every time it is tried must not do so for ever.
            failed = rows.execute(
                "UPDATE scenes SET state = 'failed', updated_s = ?, error = 'The service ended ' || attempts "
                "|| ' times while it was computed.' WHERE state = 'running' AND attempts >= ?",
                (now, most),
            ).rowcount
            requeued = rows.execute(
                "UPDATE scenes SET state = 'queued', updated_s = ? WHERE state = 'running'", (now,)
            ).rowcount
        return requeued, failed
