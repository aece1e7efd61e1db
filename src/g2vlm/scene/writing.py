"""How results reach the disk: completely or not at all, in a format chosen by the file's ending."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from g2vlm.errors import OutputError

WRITERS: dict[str, Callable[[Any, Path], None]] = {}
"""Writers of scenes by lower-case file ending (".npz", ".ply", ...): called with a `Scene` and a path."""


def writer_for(path: Path) -> Callable[[Any, Path], None]:
    """The scene writer that a file's ending asks for, in either case.

    Raises:
        OutputError: no writer is registered for the ending; the message lists those that are.
    """
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise OutputError(
            f"Expected a file ending in {', '.join(sorted(WRITERS))}, got {str(path)!r}: the ending chooses "
            "the format."
        )
    return writer


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to, which becomes `path` when the block ends well.

    The temporary file lies in the same folder; missing folders are created. On success it is flushed to the
    disk and renamed over `path` in one step, so that readers see the old file or the new one, never a part.
    If the block raises, it is removed and `path` is left as it was. A symbolic link is written through.

    Args:
        path: the file to create or replace.

    Yields:
        The path of an existing empty file with the same ending.

    Raises:
        OutputError: `path` is a folder, its folder cannot be created or written, or the disk fails.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise OutputError(f"Expected a file to write, but {path} is a folder: add a file name.")
    temporary = target.with_name(f".{target.stem}-{secrets.token_hex(6)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Exclusive creation with the usual permissions; tempfile would make it private to the user.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise OutputError(
            f"Expected to write into {target.parent}, got {error.strerror}: choose another place."
        ) from error
    try:
        yield temporary
        flush_path(temporary)
        os.replace(temporary, target)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"Expected to write {path}, got {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    # The rename itself is durable once the folder is flushed.
    flush_path(target.parent)


def flush_path(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk.

    Raises:
        OSError: the disk failed to store the file; for folders never, since not every system can flush them.
    """
    is_folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        if not is_folder:
            raise
