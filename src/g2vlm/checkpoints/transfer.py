"""One file from a hub to the disk: resumed, verified, moved into place whole.

The bytes come by the hub library's own transfers: Xet where the hub stores a file that way, else plain HTTP.
What that library does not do is done here. An unfinished file survives the process, is named after its
content, and the next run continues it. Nothing gets its final name before size and content hash are those
that the hub announced. An address that expired is asked for anew.
"""

import hashlib
import importlib
import os
import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from g2vlm.checkpoints import xet
from g2vlm.errors import DownloadError

if TYPE_CHECKING:
    from huggingface_hub.utils._xet import XetFileData

ATTEMPTS = 5
"""Refusals in a row (a busy server, an expired address) before a transfer gives up."""

CHUNK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RemoteFile:
    """Where a file can be fetched right now and what its content must be."""

    name: str
    """Name within the repository, for messages."""
    location: str
    """Address to fetch; signed addresses expire, so it is asked for anew at each attempt."""
    headers: Mapping[str, str]
    """Request headers; the token is in them only where the address belongs to the hub itself."""
    size: int | None
    """Bytes, where the hub says so."""
    hub_headers: Mapping[str, str]
    """Headers for the hub itself."""
    etag: str
    """SHA-256 for large files, git blob SHA-1 for small ones; on odd mirrors anything else."""
    xet: "XetFileData | None" = None
    """Where the hub stores the file in chunks by content, and offers them."""


def matches(path: Path, remote: RemoteFile, on_bytes: Callable[[int], None] | None = None) -> bool:
    """Whether the file at `path` has the announced size and content hash.

    An etag that is neither SHA-256 nor git SHA-1 says nothing about the content; then only the size counts.
    `on_bytes` is told about every piece read, so that a long check can show its progress.
    """
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return False
    if _SHA256.fullmatch(remote.etag):
        digest: Any = hashlib.sha256()
    elif _GIT_SHA1.fullmatch(remote.etag):
        digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    else:
        return True
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
    return bool(digest.hexdigest() == remote.etag)


def fetch(
    remote: RemoteFile,
    target: Path,
    partial: Path,
    *,
    renew: Callable[[], RemoteFile],
    on_bytes: Callable[[int], None] = lambda count: None,
    pause_s: float = 1.0,
) -> None:
    """Bring a file to `target`, continuing `partial` if an earlier run left one.

    Args:
        remote: Where the file is and what it holds.
        target: Final place; created in one rename after verification.
        partial: Place of the unfinished bytes, on the same file system; its name must identify the content.
        renew: Asks the hub again before each further attempt, since signed addresses expire.
        on_bytes: Told how many bytes arrived; negative where bytes had to be thrown away.
        pause_s: Seconds before the first new attempt, doubled at each further one.

    Raises:
        DownloadError: The connection kept breaking (the partial file stays for the next run), or what
            arrived is not what the hub announced (the partial file is removed).
    """
    partial.parent.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if remote.size is not None and _size(partial) > remote.size:
        partial.unlink()
    on_bytes(_size(partial))
    refusals = 0
    while not _is_complete(partial, remote):
        before = _size(partial)
        try:
            _receive(remote, partial, on_bytes)
            break
        except transport_error() as error:
            refusals = 1 if _size(partial) > before else refusals + 1
            if (response := getattr(error, "response", None)) is None or refusals >= ATTEMPTS:
                raise _given_up(remote, _size(partial), error) from error
            if response.status_code == 416:  # nothing follows: these are not the first bytes of the file
                on_bytes(-_size(partial))
                partial.unlink()
            elif not _may_pass(response.status_code):
                raise
            time.sleep(pause_s * 2 ** (refusals - 1))
            remote = replace(renew(), xet=None)
    if not matches(partial, remote):
        got = _size(partial)
        partial.unlink()
        raise DownloadError(
            f"Expected {remote.name} with content {remote.etag[:12]} ({remote.size} bytes), got {got} bytes "
            "of something else: it was damaged on the way and has been thrown away; run the command again."
        )
    os.replace(partial, target)


def _given_up(remote: RemoteFile, got: int, error: Exception) -> DownloadError:
    return DownloadError(
        f"Expected all of {remote.name}, but the connection broke again and again after {got:,} bytes "
        f"({error}): run the same command again to continue from there."
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_complete(partial: Path, remote: RemoteFile) -> bool:
    return partial.exists() and _size(partial) == remote.size


def _may_pass(status: int) -> bool:
    """Whether a new attempt can help: a busy server, an address that has expired."""
    return status in (403, 408, 429) or status >= 500


def _receive(remote: RemoteFile, partial: Path, on_bytes: Callable[[int], None]) -> None:
    """Append what follows the bytes already there."""
    if remote.xet is not None and remote.size is not None:
        try:
            with partial.open("ab") as file:
                for piece in xet.stream(remote.xet, remote.hub_headers, remote.size, file.tell()):
                    file.write(piece)
                    on_bytes(len(piece))
            return
        except (RuntimeError, OSError, ValueError, ImportError, transport_error()) as error:
            if getattr(error, "errno", None) is not None:  # the disk, not the network
                raise
            warnings.warn(
                f"The Xet transfer of {remote.name} failed ({error}): it goes on by plain HTTP.", stacklevel=2
            )
    _receive_by_http(remote, partial, on_bytes)


def _receive_by_http(remote: RemoteFile, partial: Path, on_bytes: Callable[[int], None]) -> None:
    """The hub library's own transfer, which tries again by itself while bytes keep coming."""
    from huggingface_hub.file_download import http_get

    with partial.open("ab") as begun:
        offset = begun.tell()
    with partial.open("r+b") as file:
        file.seek(offset)
        try:
            http_get(
                remote.location,
                _Counted(file, on_bytes),  # type: ignore[arg-type]
                resume_size=offset,
                headers={**remote.headers, "Accept-Encoding": "identity"},
                expected_size=remote.size,
                displayed_filename=remote.name,
                _tqdm_bar=_NoBar(),
            )
        except OSError as error:
            if error.errno is not None:
                raise
            # A body that ended early without an error of the connection.
            raise transport_error()(str(error).splitlines()[0]) from error
        finally:
            file.flush()
            os.fsync(file.fileno())


class _Counted:
    """A file that tells how many bytes it gained or lost, as far as the hub library uses one."""

    def __init__(self, file: BinaryIO, on_bytes: Callable[[int], None]) -> None:
        self._file, self._on_bytes = file, on_bytes
        self.tell, self.seek = file.tell, file.seek

    def write(self, data: bytes) -> int:
        """Append."""
        self._on_bytes(len(data))
        return self._file.write(data)

    def truncate(self) -> int:
        """Throw away what follows: a server without ranges begins with the first byte."""
        self._file.flush()
        before, after = os.fstat(self._file.fileno()).st_size, self._file.truncate()
        self._on_bytes(after - before)
        return after


class _NoBar:
    """Stands where the hub library would draw a bar of its own."""

    def update(self, count: int) -> None:
        """Bytes are counted as they are written."""


def transport_error() -> type[Exception]:
    """Base class of connection errors in the HTTP client that the installed hub library uses.

    The hub library changed its client between major versions (httpx, then httpx2); the session's own class
    leads to the right one.
    """
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    client = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    return client.HTTPError
