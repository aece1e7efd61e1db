"""How results reach the disk: completely or not at all, files and whole folders."""

import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from g2vlm.errors import OutputError

MANIFEST = "g2vlm.json"
"""File in every exported folder: what it is, its axes and unit, and the files that belong to it."""


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
        OutputError: as `check_file`, or the disk fails.
    """
    target, temporary = _begin(path)
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


@contextmanager
def atomic_folder(path: str | os.PathLike[str], about: Mapping[str, object]) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path` when the block ends well.

    It lies beside `path`; missing folders above are created. A `g2vlm.json` is added that holds `about` and
    the list of files. A folder that this function made before is replaced as a whole, provided that nothing
    was added to it since; any other folder that is not empty is refused. If the block raises, the temporary
    folder is removed and `path` is left as it was.

    Args:
        path: the folder to create or replace.
        about: what the folder holds, as JSON can say it.

    Yields:
        The path of an existing empty folder.

    Raises:
        OutputError: `path` is a file or holds other things, cannot be written, or the disk fails.
    """
    target = Path(os.path.realpath(path))
    require_replaceable(target)
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(6)}")
    _make_folder(temporary)
    try:
        yield temporary
        files = sorted(_files(temporary))
        text = json.dumps({**about, "files": files}, indent=1, ensure_ascii=False) + "\n"
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        for name in [*files, MANIFEST]:
            if not (temporary / name).is_symlink():
                flush_path(temporary / name)
        _swap(temporary, target)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"Expected to write {path}, got {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    flush_path(target.parent)


def check_file(path: str | os.PathLike[str]) -> Path:
    """Make sure, before long work, that a file can be written; creates the folders above it, and no file.

    Returns:
        The path.

    Raises:
        OutputError: it is a folder or a device, its name is too long, its folder cannot be created or
            written, or the disk is full.
    """
    target, temporary = _begin(path)
    temporary.unlink(missing_ok=True)
    _check_space(target.parent)
    return Path(path)


def check_folder(path: str | os.PathLike[str]) -> Path:
    """Make sure, before long work, that files can be written into a folder, which is created.

    Returns:
        The path.

    Raises:
        OutputError: it is a file, cannot be created or written, or the disk is full.
    """
    folder = Path(path)
    _make_folder(folder)
    probe = folder / f".{secrets.token_hex(6)}"
    _create(probe)
    probe.unlink(missing_ok=True)
    _check_space(folder)
    return folder


def _begin(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Where a file goes in the end, and an empty file with the same ending in the same folder."""
    try:
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise OutputError(f"Expected a file to write, but {path} is a folder: add a file name.")
        if target.exists() and not target.is_file():
            raise OutputError(
                f"Expected a file to write, but {path} is a device or a pipe: choose another name."
            )
    except OutputError:
        raise
    except (OSError, ValueError) as error:  # a name that is too long, or that no system could hold
        raise OutputError(f"Expected to write {path}, got {_reason(error)}: choose another name.") from error
    _make_folder(target.parent)
    # The start of a long name is enough: the whole would make the temporary one too long.
    temporary = target.with_name(f".{target.stem[:40]}-{secrets.token_hex(6)}{target.suffix}")
    _create(temporary)
    return target, temporary


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"Expected to create the folder {folder}, got {_reason(error)}: choose another place."
        ) from error


def _create(path: Path) -> None:
    try:
        # Exclusive creation with the usual permissions; tempfile would make it private to the user.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise OutputError(
            f"Expected to write into {path.parent}, got {_reason(error)}: choose another place."
        ) from error


def _check_space(folder: Path) -> None:
    if shutil.disk_usage(folder).free == 0:
        raise OutputError(f"Expected room on the disk of {folder}, got none: remove something first.")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return "a file where a folder should be"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


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


def _files(folder: Path) -> Iterator[str]:
    """Names of all files below a folder, relative to it, with forward slashes."""
    for place, _, names in os.walk(folder):
        for name in names:
            yield (Path(place) / name).relative_to(folder).as_posix()


def require_replaceable(target: Path) -> None:
    """Refuse to replace anything that this package did not write.

    Raises:
        OutputError: `target` is a file, or a folder with other files than those that its `g2vlm.json` lists.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise OutputError(f"Expected a folder to write, but {target} is a file: choose another name.")
    found = set(_files(target))
    try:
        ours = {MANIFEST, *json.loads((target / MANIFEST).read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    if foreign := sorted(found - ours):
        raise OutputError(
            f"Expected a new or empty folder, or one written before, but {target} holds {foreign[0]}"
            f"{' and more' if len(foreign) > 1 else ''}: choose another folder, or move that away."
        )


def pack_folder(folder: Path, path: Path) -> None:
    """Pack a folder into a .zip file; equal folders give equal bytes.

    Args:
        folder: its name becomes the top of all names inside.
        path: the file to write.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(_files(folder)):
            # A fixed date, zipfile's earliest. Pictures are compressed already.
            entry = zipfile.ZipInfo(f"{folder.name}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
            is_picture = Path(name).suffix.lower() in (".jpg", ".jpeg", ".png")
            entry.compress_type = zipfile.ZIP_STORED if is_picture else zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with (folder / name).open("rb") as source, archive.open(entry, "w", force_zip64=True) as member:
                shutil.copyfileobj(source, member)


def _swap(temporary: Path, target: Path) -> None:
    """Put a finished folder in its place; the one there before comes back if that fails."""
    if not target.exists():
        os.rename(temporary, target)
        return
    before = temporary.with_name(f"{temporary.name}.old")
    os.rename(target, before)
    try:
        os.rename(temporary, target)
    except OSError:
        os.rename(before, target)
        raise
    shutil.rmtree(before, ignore_errors=True)
