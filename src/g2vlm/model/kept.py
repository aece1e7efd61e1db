"""What is found out or built once for this very machine, and kept in a private folder.

A kept file ends with a digest of what stands before it. It is read back only if it belongs to this user,
nobody else may write it, and the digest is right: a library is loaded into the process, and one that was cut
off by a full disk or exchanged by somebody else must not be.
"""

import contextlib
import hashlib
import os
import platform
import secrets
import stat
import tempfile
from functools import lru_cache
from pathlib import Path

FOLDER_VARIABLE = "G2VLM_CACHE"
"""Names another folder."""
PRIVATE = 0o700
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MARK = b"\nsha256 "
"""Between what is kept and its digest."""
_TAIL_BYTES = len(_MARK) + 2 * hashlib.sha256().digest_size


def kept_folder() -> Path | None:
    """A folder that only this user can write, created if need be; None where there is no place for one.

    `$G2VLM_CACHE`, else `$XDG_CACHE_HOME/g2vlm`, else `~/.cache/g2vlm`; where that cannot be written, as for
    users without a home, one in the system's folder for temporary files.
    """
    for folder in _candidates():
        if _is_private(folder):
            return folder
    return None


def _candidates() -> list[Path]:
    named = os.environ.get(FOLDER_VARIABLE)
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    found = []
    with contextlib.suppress(RuntimeError):  # neither HOME nor an entry in the list of users
        found.append(Path(named or f"{home}/g2vlm").expanduser())
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return [*found, Path(tempfile.gettempdir()) / f"g2vlm-{user}"]


def _is_private(folder: Path) -> bool:
    """Whether a folder is there, or can be made, in which this user and nobody else writes."""
    try:
        folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        status = folder.stat()
        if not _is_own(status):
            return False
        if status.st_mode & OTHERS_MAY_WRITE:
            folder.chmod(stat.S_IMODE(status.st_mode) & ~OTHERS_MAY_WRITE)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _is_own(status: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or status.st_uid == os.getuid()


def keep(path: Path, content: bytes) -> None:
    """Write a file that `kept` reads back: completely or not at all, whoever else is writing it too.

    Args:
        path: in `kept_folder()` or below it; folders between are created.
        content: what to keep.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    path.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(6)}")
    tail = _MARK + hashlib.sha256(content).hexdigest().encode()
    try:
        with open(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE), "wb") as file:
            file.write(content + tail)
            file.flush()
            # Without this a crash of the machine can leave a file of the right length full of zeros.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def kept(path: Path) -> bytes | None:
    """What was kept under a name; None where nothing was, or nothing that can be trusted."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            whole = file.read()
    except OSError:
        return None
    content, tail = whole[:-_TAIL_BYTES], whole[-_TAIL_BYTES:]
    trusted = _is_own(status) and not status.st_mode & OTHERS_MAY_WRITE
    return content if trusted and tail == _MARK + hashlib.sha256(content).hexdigest().encode() else None


@lru_cache(maxsize=1)
def processor() -> bytes:
    """The model of this processor and the instructions that it has, as Linux lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".encode()
    wanted = (b"flags", b"Features", b"model", b"CPU implementer", b"CPU part")
    return b"\n".join(sorted({line for line in lines if line.startswith(wanted)}))
