"""The files of the store: where they lie, and how they arrive and leave as a whole.

    DATA/store.sqlite         the rows
    DATA/lock                 held by the service that uses the folder
    DATA/incoming/            what is being written or removed; emptied at every start
    DATA/tenants/TENANT/uploads/ID
    DATA/tenants/TENANT/scenes/ID/NAME

No part of a path comes from a client: ids are made here and looked up in the rows first, and names of files
are checked against one pattern.
"""

import fcntl
import hashlib
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from g2vlm.errors import InputError, OutputError
from g2vlm.scene.writing import flush_path

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}(\.[A-Za-z0-9]{1,16}){0,2}")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class StoredFile:
    """A file of a scene."""

    name: str
    """Within its scene."""

    num_bytes: int
    """Size."""

    digest: str
    """SHA-256 of the content, hexadecimal."""


def check_file_name(name: str) -> str:
    """The name of a file within a scene.

    Raises:
        InputError: Other characters than letters, digits, `_`, `-` and a short ending.
    """
    if not _FILE_NAME.fullmatch(name):
        raise InputError(f"Expected a plain file name such as scene.npz, got {name[:40]!r}.")
    return name


class DataFolder:
    """The folders below the data folder, and the lock on it."""

    def __init__(self, root: Path) -> None:
        """Create what is missing and take the lock.

        Raises:
            InputError: Another service uses the folder.
            OutputError: It cannot be written.
        """
        self.root = root
        self.incoming = root / "incoming"
        try:
            # The content is the tenants': nobody else on the machine needs to see it.
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.incoming.mkdir(exist_ok=True, mode=0o700)
            (root / "tenants").mkdir(exist_ok=True, mode=0o700)
            self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OutputError(
                f"Expected a data folder that can be written, got {error.strerror} for {root}: choose "
                "another."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise InputError(
                f"Expected a data folder of this service alone, but another one uses {root}: stop it, or "
                "choose another folder."
            ) from error

    def upload(self, tenant: str, upload_id: str) -> Path:
        """Where an upload lies."""
        return self.root / "tenants" / tenant / "uploads" / upload_id

    def scene(self, tenant: str, scene_id: str) -> Path:
        """The folder of a scene's files."""
        return self.root / "tenants" / tenant / "scenes" / scene_id

    def fresh(self) -> Path:
        """A name in the folder of what is being written."""
        return self.incoming / secrets.token_hex(12)

    def move_in(self, temporary: Path, target: Path) -> None:
        """Give a finished file or folder its place, durably.

        Raises:
            OSError: The disk fails.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(temporary, target)
        # The name is durable once its folder is flushed; new folders above are names themselves.
        for folder in (target.parent, *target.parent.parents[:2]):
            flush_path(folder)

    def remove(self, path: Path) -> None:
        """Take a file or folder away: at once out of sight, then piece by piece."""
        doomed = self.fresh()
        try:
            os.rename(path, doomed)
        except FileNotFoundError:
            return
        discard(doomed)

    def empty_incoming(self) -> int:
        """Remove what a service left half-written or half-removed; how many things that were."""
        leftovers = list(self.incoming.iterdir())
        for leftover in leftovers:
            discard(leftover)
        return len(leftovers)

    def release(self) -> None:
        """Let another service use the folder."""
        os.close(self._lock)


def discard(path: Path) -> None:
    """Remove a file or a folder with all it holds, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def flushed_files(folder: Path) -> tuple[StoredFile, ...]:
    """Wait until all files of a folder are on the disk, and describe them.

    Raises:
        InputError: Something else than plain files of plain names is in it.
        OSError: The disk fails.
    """
    found = []
    for path in sorted(folder.iterdir()):
        check_file_name(path.name)
        if path.is_symlink() or not path.is_file():
            raise InputError(f"Expected plain files in a scene, got {path.name}.")
        flush_path(path)
        found.append(describe(path))
    flush_path(folder)
    return tuple(found)


def describe(path: Path) -> StoredFile:
    """Size and digest of a file.

    Raises:
        OSError: It cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return StoredFile(path.name, size, digest.hexdigest())
