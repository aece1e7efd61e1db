"""One file from a hub to the disk: resumed, verified, moved into place whole.

The hub library restarts an interrupted plain download from its first byte in the next process, which hurts
with a file of 18 GB. Here the bytes wait in a partial file named after their content, a later run asks for
the rest, and nothing gets its final name before size and content hash agree with what the hub announced.
"""

import hashlib
import importlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g2vlm.errors import DownloadError

ATTEMPTS = 5
"""Connections that may break in a row, none of them bringing a byte, before a transfer gives up."""

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
    etag: str
    """SHA-256 for large files, git blob SHA-1 for small ones; on odd mirrors anything else."""


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
    on_bytes(_size(partial))
    failures = 0
    while not _is_complete(partial, remote):
        before = _size(partial)
        try:
            _receive(remote, partial, on_bytes)
            break
        except transport_error() as error:
            if not _may_pass(error):
                raise
            failures = 1 if _size(partial) > before else failures + 1
            if failures >= ATTEMPTS:
                raise DownloadError(
                    f"Expected all of {remote.name}, but the connection broke {failures} times after "
                    f"{_size(partial):,} bytes ({error}): run the same command again to continue from there."
                ) from error
            time.sleep(pause_s * 2 ** (failures - 1))
            remote = renew()
    if not matches(partial, remote):
        got = _size(partial)
        partial.unlink()
        raise DownloadError(
            f"Expected {remote.name} with content {remote.etag[:12]} ({remote.size} bytes), got {got} bytes "
            "of something else: it was damaged on the way and has been thrown away; run the command again."
        )
    os.replace(partial, target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_complete(partial: Path, remote: RemoteFile) -> bool:
    return partial.exists() and _size(partial) == remote.size


def _may_pass(error: Exception) -> bool:
    """Whether a new attempt can help: lost connections, a busy server, an address that has expired."""
    response = getattr(error, "response", None)
    return response is None or response.status_code in (403, 408, 429) or response.status_code >= 500


def _receive(remote: RemoteFile, partial: Path, on_bytes: Callable[[int], None]) -> None:
    """One connection: append what follows the bytes already there."""
    from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]

    offset = _size(partial)
    headers = {**remote.headers, "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with get_session().stream("GET", remote.location, headers=headers, timeout=_timeout_s()) as response:
        if response.status_code == 416:  # nothing follows: the partial file is longer than the remote one
            partial.unlink()
            on_bytes(-offset)
            raise transport_error()(f"the server has nothing beyond byte {offset:,}")
        hf_raise_for_status(response)
        if offset and response.status_code != 206:  # a server without ranges starts over
            on_bytes(-offset)
            offset = 0
        with partial.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            for chunk in response.iter_bytes(CHUNK_BYTES):
                file.write(chunk)
                on_bytes(len(chunk))
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    _require_all(remote, partial)


def _require_all(remote: RemoteFile, partial: Path) -> None:
    """A body that ends early without an error of the connection still counts as a broken connection."""
    if remote.size is not None and _size(partial) < remote.size:
        raise transport_error()(f"the server closed after {_size(partial):,} of {remote.size:,} bytes")


def _timeout_s() -> float:
    return float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT") or 10)


def transport_error() -> type[Exception]:
    """Base class of connection errors in the HTTP client that the installed hub library uses.

    The hub library changed its client between major versions (httpx, then httpx2); the session's own class
    leads to the right one.
    """
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    client = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    return client.HTTPError
