"""One run in one folder at a time."""

import os
import sys
from pathlib import Path

from g2vlm.errors import InputError

LOCK_NAME = ".lock"


class FolderLock:
    """Holds a run's folder for this process until `release`, or until the process ends in whatever way.

    The system forgets the lock with the process: nothing is left behind after a crash, and processes that
    make batches do not hold it.

    Args:
        folder: of the run; created if needed.

    Raises:
        InputError: another process trains there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(self._file)
        except OSError as error:
            holder = os.read(self._file, 100).decode(errors="replace").strip()
            os.close(self._file)
            raise InputError(
                f"Expected nobody else to train in {folder}, but process {holder or 'unknown'} does: stop "
                "it, or choose another --folder."
            ) from error
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let others train here."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _lock(file: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        # Far behind the text, which others may then read.
        os.lseek(file, 1 << 20, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
