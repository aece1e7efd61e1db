"""Photos and videos that tenants send once and name in requests."""

import hashlib
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from g2vlm.errors import OutputError
from g2vlm.scene.writing import flush_path
from g2vlm.server.guard.keys import check_tenant
from g2vlm.server.guard.refusals import ConflictError, QuotaError, TooLargeError
from g2vlm.server.store.folders import discard
from g2vlm.server.store.records import UploadRecord
from g2vlm.server.store.shelf import PINNED, UPLOADS, Item, Shelf, missing

_ROOM_STEP = 1 << 20  # so much may arrive before room is set aside, which costs a look at the rows
_TOUCH_AFTER_S = 60.0
PREFIX = "upload_"


class Arriving:
    """An upload on its way: write blocks, look at `path`, then `finish`."""

    def __init__(self, path: Path, max_bytes: int, take_room: Callable[[int], None]) -> None:
        self.path = path
        """Where the content lies until it is finished."""
        self.num_bytes = 0
        """How much has arrived."""
        self.record: UploadRecord | None = None
        """What became of it; none before `finish`."""
        self._max_bytes = max_bytes
        self._take_room = take_room
        self._room = 0
        self._digest = hashlib.sha256()
        self._file = path.open("xb")

    def write(self, block: bytes) -> None:
        """Add a block.

        Raises:
            TooLargeError: More bytes than allowed.
            QuotaError: The tenant's share of the disk is used up.
            OutputError: The disk fails.
        """
        if self.num_bytes + len(block) > self._max_bytes:
            raise TooLargeError(
                f"Expected an upload of at most {self._max_bytes} bytes, got more: make it smaller."
            )
        if self.num_bytes + len(block) - self._room > _ROOM_STEP:
            self._set_aside(self.num_bytes + len(block))
        try:
            self._file.write(block)
        except OSError as error:
            raise OutputError(f"Cannot store the upload: {error.strerror}.") from error
        self._digest.update(block)
        self.num_bytes += len(block)

    def flushed(self) -> str:
        """Wait until the content is on the disk; its SHA-256.

        Raises:
            OutputError: The disk fails.
        """
        try:
            self._file.close()
            flush_path(self.path)
        except OSError as error:
            raise OutputError(f"Cannot store the upload: {error.strerror}.") from error
        self._set_aside(self.num_bytes)
        return self._digest.hexdigest()

    def _set_aside(self, num_bytes: int) -> None:
        self._take_room(num_bytes - self._room)
        self._room = num_bytes

    def close(self) -> None:
        """Give up what was not finished."""
        self._file.close()
        discard(self.path)


class Uploads:
    """All uploads of all tenants; every method sees those of one."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    @contextmanager
    def receiving(self, tenant: str, *, max_bytes: int | None = None) -> Iterator[Arriving]:
        """Take an upload in, block by block; what is not finished when the block ends leaves no trace.

        Args:
            tenant: Whose it is.
            max_bytes: Largest size; the limit for videos if None.

        Yields:
            What is arriving; hand it to `finish` inside the block.
        """
        check_tenant(tenant)
        with self._shelf.room(tenant) as take_room:
            arriving = Arriving(
                self._shelf.folder.fresh(), max_bytes or self._shelf.limits.video_bytes, take_room
            )
            try:
                yield arriving
            finally:
                arriving.close()

    def finish(self, tenant: str, arriving: Arriving, media_type: str) -> UploadRecord:
        """Store what has arrived.

        Args:
            tenant: Whose it is.
            arriving: All of it.
            media_type: As its content tells.

        Raises:
            QuotaError: The tenant's share is used up.
            OutputError: The disk fails.
        """
        digest, now = arriving.flushed(), self._shelf.now()
        limits = self._shelf.limits
        record = UploadRecord(
            tenant=tenant,
            id=PREFIX + secrets.token_hex(16),
            media_type=media_type,
            num_bytes=arriving.num_bytes,
            digest=digest,
            created_s=now,
            expires_s=now + limits.keep_upload_seconds,
        )
        if self.count(tenant) >= limits.uploads_per_tenant and not self._shelf.evict_one(tenant, UPLOADS):
            raise QuotaError(
                f"Expected at most {limits.uploads_per_tenant} uploads, got one more, and all are in use: "
                "delete some."
            )
        item = Item(UPLOADS, tenant, record.id)
        # The row first, as arriving: a crash before the end is then found and cleaned at the next start.
        with self._shelf.database.changing() as rows:
            rows.execute(
                "INSERT INTO uploads VALUES (?, ?, 'arriving', ?, ?, ?, ?, ?, ?)",
                (tenant, record.id, media_type, record.num_bytes, digest, now, now, record.expires_s),
            )
        try:
            self._shelf.folder.move_in(arriving.path, self._shelf.path(item))
        except OSError as error:
            self._shelf.remove(item)
            raise OutputError(f"Cannot store the upload: {error.strerror}.") from error
        with self._shelf.database.changing() as rows:
            rows.execute(
                "UPDATE uploads SET state = 'ready' WHERE tenant = ? AND id = ?", (tenant, record.id)
            )
        arriving.record = record
        return record

    def get(self, tenant: str, upload_id: str) -> UploadRecord:
        """An upload of a tenant.

        Raises:
            NotFoundError: There is none of this id, or it is another tenant's.
        """
        found = self._shelf.database.rows(
            "SELECT * FROM uploads WHERE tenant = ? AND id = ? AND state = 'ready'", (tenant, upload_id)
        )
        if not found:
            raise missing(Item(UPLOADS, tenant, upload_id))
        return _record(found[0])

    @contextmanager
    def reading(self, tenant: str, upload_id: str) -> Iterator[Path]:
        """The file of an upload, which is kept while the block runs.

        Raises:
            NotFoundError: There is none of this id, or it is another tenant's.
        """
        item = Item(UPLOADS, tenant, upload_id)
        with self._shelf.in_use(item):
            self.get(tenant, upload_id)
            self._touch(tenant, upload_id)
            yield self._shelf.path(item)

    def delete(self, tenant: str, upload_id: str) -> None:
        """Remove an upload.

        Raises:
            NotFoundError: There is none of this id, or it is another tenant's.
            ConflictError: An unfinished scene needs it.
        """
        self.get(tenant, upload_id)
        if self._shelf.database.rows(
            f"SELECT 1 FROM uploads WHERE tenant = ? AND id = ? AND {PINNED}", (tenant, upload_id)
        ):
            raise ConflictError(
                f"The upload {upload_id} is needed by a scene that is not finished: delete the scene first, "
                "or wait."
            )
        self._shelf.remove(Item(UPLOADS, tenant, upload_id))

    def count(self, tenant: str) -> int:
        """How many a tenant keeps."""
        query = "SELECT COUNT(*) FROM uploads WHERE tenant = ? AND state = 'ready'"
        return int(self._shelf.database.rows(query, (tenant,))[0][0])

    def _touch(self, tenant: str, upload_id: str) -> None:
        """Note the use, at most once a minute: every note is flushed to the disk."""
        now = self._shelf.now()
        with self._shelf.database.changing() as rows:
            rows.execute(
                "UPDATE uploads SET used_s = ?, expires_s = ? WHERE tenant = ? AND id = ? AND used_s < ?",
                (now, now + self._shelf.limits.keep_upload_seconds, tenant, upload_id, now - _TOUCH_AFTER_S),
            )


def _record(row: sqlite3.Row) -> UploadRecord:
    return UploadRecord(
        **{
            name: row[name]
            for name in ("tenant", "id", "media_type", "num_bytes", "digest", "created_s", "expires_s")
        }
    )
