"""The rows of the store: one SQLite file, one connection, short transactions."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from g2vlm.errors import InputError, OutputError

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE uploads (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    state TEXT NOT NULL,
    media_type TEXT NOT NULL,
    num_bytes INTEGER NOT NULL,
    digest TEXT NOT NULL,
    created_s REAL NOT NULL,
    used_s REAL NOT NULL,
    expires_s REAL NOT NULL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX uploads_by_use ON uploads (tenant, used_s);
CREATE INDEX uploads_by_expiry ON uploads (expires_s);
CREATE INDEX uploads_in_motion ON uploads (state) WHERE state != 'ready';

CREATE TABLE scenes (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    state TEXT NOT NULL,
    request TEXT NOT NULL,
    about TEXT NOT NULL DEFAULT '{}',
    error TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    num_bytes INTEGER NOT NULL DEFAULT 0,
    created_s REAL NOT NULL,
    updated_s REAL NOT NULL,
    used_s REAL NOT NULL,
    expires_s REAL NOT NULL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX scenes_by_use ON scenes (tenant, used_s);
CREATE INDEX scenes_by_age ON scenes (tenant, created_s, id);
CREATE INDEX scenes_by_expiry ON scenes (expires_s);
CREATE INDEX scenes_in_motion ON scenes (state, created_s) WHERE state NOT IN ('done', 'failed');

CREATE TABLE scene_uploads (
    tenant TEXT NOT NULL,
    scene_id TEXT NOT NULL,
    place INTEGER NOT NULL,
    upload_id TEXT NOT NULL,
    PRIMARY KEY (tenant, scene_id, place),
    FOREIGN KEY (tenant, scene_id) REFERENCES scenes (tenant, id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX scene_uploads_by_upload ON scene_uploads (tenant, upload_id);

CREATE TABLE scene_files (
    tenant TEXT NOT NULL,
    scene_id TEXT NOT NULL,
    name TEXT NOT NULL,
    num_bytes INTEGER NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (tenant, scene_id, name),
    FOREIGN KEY (tenant, scene_id) REFERENCES scenes (tenant, id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX scene_files_in_motion ON scene_files (digest) WHERE digest = '';
"""


class Database:
    """Rows that survive the end of the process, whatever ends it. Thread-safe: one transaction at a time."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        """Open the file, or create it.

        Args:
            path: The SQLite file.
            durable: Wait at every change until it is on the disk.

        Raises:
            InputError: Not a file of this store, or one of a later release.
        """
        self._lock = threading.RLock()
        # Explicit transactions only: Python's own begin some statements in a transaction, others not.
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._connection.row_factory = sqlite3.Row
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            # NORMAL would be whole after a crash too, but could forget the last answers after a power cut:
            # a client that was told "done" must find its scene. Changes are rare; one flush each is cheap.
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
            self._connection.execute("PRAGMA foreign_keys=ON")
            # Nothing in the file may name functions or tables of its own, should somebody exchange it.
            self._connection.execute("PRAGMA trusted_schema=OFF")
            self._prepare(path)
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise InputError(
                f"Expected a store in {path}, but it cannot be used ({error}): name another data folder, or "
                "move this file away."
            ) from error

    def _prepare(self, path: Path) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            self._connection.close()
            raise InputError(
                f"Expected a store of version {SCHEMA_VERSION} in {path}, got {version}: install the release "
                "of g2vlm that wrote it, or name another data folder."
            )
        if version == 0:
            with self.changing():
                for statement in _SCHEMA.split(";\n"):
                    if statement.strip():
                        self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of its changes, or none if the block raises.

        Raises:
            OutputError: The disk is full or fails.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    raise OutputError(f"Cannot write to the store: {error}.") from error
                raise

    def rows(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """All rows that a query finds."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def close(self) -> None:
        """Fold the journal into the file and close it."""
        with self._lock:
            self._connection.close()
