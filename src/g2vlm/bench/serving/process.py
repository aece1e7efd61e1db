"""A service in a process of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from g2vlm.errors import InputError


class ServiceProcess:
    """`g2vlm serve` as a process.

    Args:
        checkpoint: that it serves.
        options: further ones of the command.

    Raises:
        InputError: it did not start; the message has its last words.
    """

    def __init__(self, checkpoint: str, *options: str) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (open as long as the process)
        words = [sys.executable, "-m", "g2vlm", "serve", "--port", "0", "--ckpt", checkpoint]
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [*words, "--log_level", "error", *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        """Where it answers."""
        self.starting_s = time.perf_counter() - start
        """From its start to where it answers."""
        if not self.address:
            self._log.seek(0)
            raise InputError(f"Expected the service to start, but it ended: {self._log.read()[-500:]}")

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()
        self._end()

    def stop(self) -> int:
        """End it in order; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._end()

    def _end(self) -> int:
        code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
        return code


@contextmanager
def running(checkpoint: str, *options: str) -> Iterator[ServiceProcess]:
    """A service while the block runs."""
    service = ServiceProcess(checkpoint, *options)
    try:
        yield service
    finally:
        service.stop()


def example_photos() -> list[Path]:
    """The example images of the package.

    Raises:
        InputError: this installation has none.
    """
    folder = Path(__file__).parents[2] / "examples" / "recon_images"
    found = sorted(folder.glob("*.jpg")) if folder.is_dir() else []
    if not found:
        raise InputError(f"Expected example images in {folder}, found none: reinstall g2vlm.")
    return found
