"""Scenes of tenants, from the request to the files of the result."""

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from g2vlm.errors import OutputError
from g2vlm.scene.writing import flush_path
from g2vlm.server.guard.keys import check_tenant
from g2vlm.server.guard.refusals import BusyError, ConflictError, QuotaError
from g2vlm.server.store.folders import StoredFile, check_file_name, describe, discard, flushed_files
from g2vlm.server.store.records import UNFINISHED, WAITING, JobState, SceneRecord
from g2vlm.server.store.shelf import SCENES, UPLOADS, Item, Shelf, missing

_TOUCH_AFTER_S = 60.0
_MOST_LISTED = 1000
PREFIX = "scene_"


@dataclass
class Filling:
    """A result on its way: write plain files into `folder`."""

    folder: Path
    """Empty at first."""

    about: dict[str, Any] = field(default_factory=dict)
    """What the computation says about its result, as JSON can say it."""


class Scenes:
    """All scenes of all tenants; every method but `waiting` sees those of one."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def add(self, tenant: str, request: Mapping[str, Any], uploads: Sequence[str] = ()) -> SceneRecord:
        """Ask for a scene. It survives the end of the service from here on.

        Args:
            tenant: Whose it is.
            request: What is asked for, as JSON can say it.
            uploads: Ids of the uploads it is made of, in order; they are kept until it is finished.

        Raises:
            NotFoundError: An upload is not there, or another tenant's.
            BusyError: The tenant has too many unfinished scenes.
            QuotaError: The tenant has too many scenes, and none may be evicted.
        """
        check_tenant(tenant)
        text, now = json.dumps(dict(request), allow_nan=False), self._shelf.now()
        self._make_place(tenant)
        scene_id = PREFIX + secrets.token_hex(16)
        expires_s = now + self._shelf.limits.keep_scene_seconds
        with self._shelf.database.changing() as rows:
            # Inside the transaction: an upload that is there now cannot be evicted before the link is made.
            for upload_id in uploads:
                query = "SELECT 1 FROM uploads WHERE tenant = ? AND id = ? AND state = 'ready'"
                if not rows.execute(query, (tenant, upload_id)).fetchone():
                    raise missing(Item(UPLOADS, tenant, upload_id))
            rows.execute(
                "INSERT INTO scenes (tenant, id, state, request, created_s, updated_s, used_s, expires_s) "
                "VALUES (?, ?, 'queued', ?, ?, ?, ?, ?)",
                (tenant, scene_id, text, now, now, now, expires_s),
            )
            rows.executemany(
                "INSERT INTO scene_uploads VALUES (?, ?, ?, ?)",
                [(tenant, scene_id, place, upload_id) for place, upload_id in enumerate(uploads)],
            )
        return self.get(tenant, scene_id)

    def _make_place(self, tenant: str) -> None:
        """Keep a tenant's number of scenes within the limits."""
        limits = self._shelf.limits
        counts = self.counts(tenant)
        if sum(counts.get(state, 0) for state in UNFINISHED) >= limits.jobs_per_tenant:
            raise BusyError(
                f"Expected at most {limits.jobs_per_tenant} unfinished scenes, got one more: wait until some "
                "are finished, or delete them.",
                retry_after_s=10.0,
            )
        if sum(counts.values()) >= limits.scenes_per_tenant and not self._shelf.evict_one(tenant, SCENES):
            raise QuotaError(
                f"Expected at most {limits.scenes_per_tenant} scenes, got one more, and all are in use: "
                "delete some."
            )

    def get(self, tenant: str, scene_id: str) -> SceneRecord:
        """A scene of a tenant.

        Raises:
            NotFoundError: There is none of this id, or it is another tenant's.
        """
        found = self._shelf.database.rows(
            "SELECT * FROM scenes WHERE tenant = ? AND id = ? AND state != 'deleting'", (tenant, scene_id)
        )
        if not found:
            raise missing(Item(SCENES, tenant, scene_id))
        return self._record(found[0])

    def list(self, tenant: str, limit: int = 100, before: str | None = None) -> tuple[SceneRecord, ...]:
        """Scenes of a tenant, newest first.

        Args:
            tenant: Whose.
            limit: How many at most, up to 1000.
            before: Only those older than the scene of this id, to go on after a first list.

        Raises:
            NotFoundError: There is no scene of the id `before`.
        """
        last = (float("inf"), "") if before is None else (self.get(tenant, before).created_s, before)
        found = self._shelf.database.rows(
            "SELECT * FROM scenes WHERE tenant = ? AND state != 'deleting' AND (created_s, id) < (?, ?) "
            "ORDER BY created_s DESC, id DESC LIMIT ?",
            (tenant, *last, max(1, min(limit, _MOST_LISTED))),
        )
        return tuple(self._record(row) for row in found)

    def counts(self, tenant: str) -> dict[JobState, int]:
        """How many scenes of a tenant are in each state."""
        found = self._shelf.database.rows(
            "SELECT state, COUNT(*) FROM scenes WHERE tenant = ? AND state != 'deleting' GROUP BY state",
            (tenant,),
        )
        return {JobState(state): count for state, count in found}

    def waiting(self) -> tuple[SceneRecord, ...]:
        """Scenes of all tenants that wait to be computed, oldest first; for the scheduler alone."""
        marks = ", ".join("?" for _ in WAITING)
        found = self._shelf.database.rows(
            f"SELECT * FROM scenes WHERE state IN ({marks}) ORDER BY created_s, id",
            [state.value for state in WAITING],
        )
        return tuple(self._record(row) for row in found)

    def begin(self, tenant: str, scene_id: str) -> SceneRecord:
        """Note that a waiting scene is being computed from now on.

        Returns:
            The scene, to be handed to `filling`, `fail` or `hand_back`.

        Raises:
            NotFoundError: It is not there any more.
            ConflictError: It does not wait.
        """
        record = self.get(tenant, scene_id)
        if record.state not in WAITING or not self._move(
            record, JobState.RUNNING, attempts=record.attempts + 1
        ):
            raise ConflictError(f"The scene {scene_id} does not wait: it is {record.state.value}.")
        return self.get(tenant, scene_id)

    def fail(self, begun: SceneRecord, error: str) -> None:
        """Note why a scene cannot be computed; does nothing if it was deleted or begun anew meanwhile."""
        self._move(begun, JobState.FAILED, error=error[:2000])

    def hand_back(self, begun: SceneRecord) -> None:
        """Give an unfinished scene back for the next start; the attempt does not count."""
        self._move(begun, JobState.HANDED_BACK, attempts=max(0, begun.attempts - 1))

    @contextmanager
    def filling(self, begun: SceneRecord) -> Iterator[Filling]:
        """Write the result of a scene: all of it is there when the block ends well, nothing if it raises.

        Args:
            begun: As `begin` returned it.

        Raises:
            ConflictError: It was deleted or begun anew meanwhile.
            QuotaError: The tenant's share of the disk is used up.
            OutputError: The disk fails.
        """
        shelf, item = self._shelf, Item(SCENES, begun.tenant, begun.id)
        filling = Filling(shelf.folder.fresh())
        filling.folder.mkdir(mode=0o700)
        try:
            yield filling
            files = flushed_files(filling.folder)
            num_bytes = sum(file.num_bytes for file in files)
            with shelf.room(begun.tenant) as take_room:
                take_room(num_bytes)
                self._require_current(begun)
                # Files first, then the row: a row that says "done" is always right. A crash in between
                # leaves a running scene, whose files the next start removes before it is computed again.
                shelf.folder.move_in(filling.folder, shelf.path(item))
                if not self._publish(begun, files, filling.about):
                    shelf.folder.remove(shelf.path(item))
                    raise _gone(begun)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"Cannot store the scene: {error.strerror or error}.") from error
        finally:
            discard(filling.folder)

    @contextmanager
    def adding(self, tenant: str, scene_id: str, name: str) -> Iterator[Path]:
        """Write one more file of a finished scene, such as another format; whole or not at all.

        Args:
            tenant: Whose.
            scene_id: Which.
            name: Plain file name; a file of this name is replaced.

        Yields:
            The path to create, with the same ending.

        Raises:
            NotFoundError, ConflictError: No such scene, or it is not finished.
            QuotaError: The tenant's share of the disk is used up.
            OutputError: The disk fails.
        """
        shelf, item = self._shelf, Item(SCENES, tenant, scene_id)
        temporary = shelf.folder.fresh().with_suffix(Path(check_file_name(name)).suffix)
        try:
            with shelf.in_use(item):
                self._require_done(tenant, scene_id)
                yield temporary
                flush_path(temporary)
                file = replace(describe(temporary), name=name)
                with shelf.room(tenant) as take_room:
                    take_room(file.num_bytes)
                    # Without a digest nobody finds it, and the next start removes it: whatever happens
                    # between the two transactions, no row belongs to another content.
                    with shelf.database.changing() as rows:
                        _require_row(rows, item)
                        _insert_files(rows, item, (replace(file, digest=""),))
                    shelf.folder.move_in(temporary, shelf.path(item) / name)
                    with shelf.database.changing() as rows:
                        _require_row(rows, item)
                        _insert_files(rows, item, (file,))
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"Cannot store {name}: {error.strerror or error}.") from error
        finally:
            discard(temporary)

    @contextmanager
    def reading(self, tenant: str, scene_id: str) -> Iterator[Mapping[str, Path]]:
        """The files of a finished scene, which are kept while the block runs.

        Yields:
            Path by name.

        Raises:
            NotFoundError: There is none of this id, or it is another tenant's.
            ConflictError: It is not finished.
        """
        item = Item(SCENES, tenant, scene_id)
        with self._shelf.in_use(item):
            self._require_done(tenant, scene_id)
            self._touch(tenant, scene_id)
            folder = self._shelf.path(item)
            yield {file.name: folder / file.name for file in self.files(tenant, scene_id)}

    def files(self, tenant: str, scene_id: str) -> tuple[StoredFile, ...]:
        """Names, sizes and digests of a scene's files; none before it is finished."""
        found = self._shelf.database.rows(
            "SELECT name, num_bytes, digest FROM scene_files WHERE tenant = ? AND scene_id = ? "
            "AND digest != '' ORDER BY name",
            (tenant, scene_id),
        )
        return tuple(StoredFile(*row) for row in found)

    def delete(self, tenant: str, scene_id: str) -> None:
        """Remove a scene, finished or not; whoever computes it must be stopped by the caller.

        Raises:
            NotFoundError: There is none of this id, or it is another tenant's.
        """
        self._shelf.remove(Item(SCENES, tenant, scene_id))

    def _move(self, record: SceneRecord, state: JobState, **changes: Any) -> bool:
        """Change the state if nobody else has meanwhile; whether it was so."""
        columns = "".join(f", {name} = ?" for name in changes)
        with self._shelf.database.changing() as rows:
            return bool(
                rows.execute(
                    f"UPDATE scenes SET state = ?, updated_s = ?{columns} "
                    "WHERE tenant = ? AND id = ? AND state = ? AND attempts = ?",
                    (
                        *(state.value, self._shelf.now(), *changes.values()),
                        *(record.tenant, record.id, record.state.value, record.attempts),
                    ),
                ).rowcount
            )

    def _require_current(self, begun: SceneRecord) -> None:
        found = self._shelf.database.rows(
            "SELECT 1 FROM scenes WHERE tenant = ? AND id = ? AND state = 'running' AND attempts = ?",
            (begun.tenant, begun.id, begun.attempts),
        )
        if not found:
            raise _gone(begun)

    def _publish(self, begun: SceneRecord, files: Sequence[StoredFile], about: Mapping[str, Any]) -> bool:
        """Mark a scene done with its files; whether it was still wanted."""
        item, now = Item(SCENES, begun.tenant, begun.id), self._shelf.now()
        text = json.dumps(dict(about), allow_nan=False)
        with self._shelf.database.changing() as rows:
            changed = rows.execute(
                "UPDATE scenes SET state = 'done', about = ?, updated_s = ?, used_s = ?, expires_s = ? "
                "WHERE tenant = ? AND id = ? AND state = 'running' AND attempts = ?",
                (
                    *(text, now, now, now + self._shelf.limits.keep_scene_seconds),
                    *(begun.tenant, begun.id, begun.attempts),
                ),
            ).rowcount
            if changed:
                _insert_files(rows, item, files)
        return bool(changed)

    def _require_done(self, tenant: str, scene_id: str) -> None:
        record = self.get(tenant, scene_id)
        if record.state is not JobState.DONE:
            detail = f": {record.error}" if record.error else ""
            raise ConflictError(
                f"Expected a finished scene, but {scene_id} is {record.state.value}{detail}."
                + (" Wait for it." if record.state in UNFINISHED else "")
            )

    def _touch(self, tenant: str, scene_id: str) -> None:
        """Note the use, at most once a minute: every note is flushed to the disk."""
        now = self._shelf.now()
        stale = "WHERE tenant = ? AND id = ? AND used_s < ?"
        values = (tenant, scene_id, now - _TOUCH_AFTER_S)
        if self._shelf.database.rows(f"SELECT 1 FROM scenes {stale}", values):
            with self._shelf.database.changing() as rows:
                rows.execute(
                    f"UPDATE scenes SET used_s = ?, expires_s = ? {stale}",
                    (now, now + self._shelf.limits.keep_scene_seconds, *values),
                )

    def _record(self, row: sqlite3.Row) -> SceneRecord:
        links = self._shelf.database.rows(
            "SELECT upload_id FROM scene_uploads WHERE tenant = ? AND scene_id = ? ORDER BY place",
            (row["tenant"], row["id"]),
        )
        names = ("tenant", "id", "created_s", "updated_s", "expires_s", "attempts", "num_bytes", "error")
        return SceneRecord(
            **{name: row[name] for name in names},
            state=JobState(row["state"]),
            request=json.loads(row["request"]),
            about=json.loads(row["about"]),
            uploads=tuple(link["upload_id"] for link in links),
        )


def _gone(begun: SceneRecord) -> ConflictError:
    return ConflictError(f"The scene {begun.id} was deleted or begun anew while it was computed.")


def _require_row(rows: sqlite3.Connection, item: Item) -> None:
    query = "SELECT 1 FROM scenes WHERE tenant = ? AND id = ? AND state = 'done'"
    if not rows.execute(query, (item.tenant, item.id)).fetchone():
        raise missing(item)


def _insert_files(rows: sqlite3.Connection, item: Item, files: Sequence[StoredFile]) -> None:
    """List files of a scene, and count their bytes."""
    rows.executemany(
        "INSERT OR REPLACE INTO scene_files VALUES (?, ?, ?, ?, ?)",
        [(item.tenant, item.id, file.name, file.num_bytes, file.digest) for file in files],
    )
    rows.execute(
        "UPDATE scenes SET num_bytes = (SELECT COALESCE(SUM(num_bytes), 0) FROM scene_files "
        "WHERE tenant = scenes.tenant AND scene_id = scenes.id) WHERE tenant = ? AND id = ?",
        (item.tenant, item.id),
    )
