"""One decoding process as the service sees it: start, ask, kill."""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from g2vlm.server.guard.decoding_child import ChildLimits, Job
from g2vlm.server.guard.refusals import CancelledError, UndecodableError

_MOST_ANSWER = 8 << 20  # bytes of JSON
_START_S = 60.0  # a loaded machine may take long to start Python
_POLL_S = 0.05
_PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "TMPDIR")
_ONE_THREAD = {
    # Threads take address space each, more with more cores: the limit must mean the same everywhere.
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "MALLOC_ARENA_MAX": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class WorkerDiedError(UndecodableError):
    """The process ended while it decoded; the content is to blame."""


class DecodingWorker:
    """A decoding process. One job at a time; not thread-safe."""

    def __init__(self, limits: ChildLimits) -> None:
        """Start the process; it is ready when `ask` first returns.

        Raises:
            OSError: No process can be started.
        """
        self._limits = limits
        self._shared = shared_file()
        self._buffer = b""
        self.num_jobs = 0
        """Jobs asked so far."""
        try:
            self._process = subprocess.Popen(
                [
                    # -P: a file such as numpy.py in the folder where the service was started is not imported.
                    *(sys.executable, "-P", "-m", "g2vlm.server.guard.decoding_child"),
                    *(str(self._shared), json.dumps(asdict(limits))),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(self._shared,),
                # Keys and tokens in the environment are none of its business.
                env={**{key: os.environ[key] for key in _PASSED_ON if key in os.environ}, **_ONE_THREAD},
                # Ctrl-C ends the service in order; it must not end decoding first.
                start_new_session=True,
            )
        except BaseException:
            os.close(self._shared)
            raise
        self._is_ready = False

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, job: Job, is_cancelled: Callable[[], bool]) -> tuple[dict[str, Any], bytearray]:
        """Run one job.

        Args:
            job: What to decode.
            is_cancelled: Asked all the time; the process must be killed after it said yes.

        Returns:
            The answer and the pixels that it describes, both as little trusted as the content.

        Raises:
            WorkerDiedError: The process ended, or answered nonsense.
            UndecodableError: It took too long.
            CancelledError: `is_cancelled` said yes.
        """
        self.num_jobs += 1
        if not self._is_ready:
            if self._line(time.monotonic() + _START_S, is_cancelled) != b"ready":
                raise WorkerDiedError("The process for decoding did not start.")
            self._is_ready = True
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(job.to_json().encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._died() from error
        line = self._line(time.monotonic() + self._limits.job_seconds, is_cancelled)
        try:
            answer = json.loads(line)
            num_bytes = int(answer.get("num_bytes", 0))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise self._died() from error
        return answer, self._pixels(num_bytes)

    def _pixels(self, num_bytes: int) -> bytearray:
        """Copy the pixels out of the shared file.

        Reading, where a mapping would be faster: a process that was taken over could shorten the file, and
        touching what is gone from a mapping would end the service.
        """
        if not 0 <= num_bytes <= self._limits.output_bytes:
            raise self._died()
        pixels = bytearray(num_bytes)
        view, done = memoryview(pixels), 0
        while done < num_bytes:
            count = os.preadv(self._shared, [view[done:]], done)
            if count == 0:
                raise self._died()
            done += count
        # Large answers must not stay in memory until the next one.
        os.ftruncate(self._shared, 0)
        return pixels

    def _line(self, deadline_s: float, is_cancelled: Callable[[], bool]) -> bytes:
        """The next line of the process."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            if is_cancelled():
                raise CancelledError("Decoding was cancelled.")
            if time.monotonic() > deadline_s:
                raise UndecodableError(
                    f"Expected photos that decode within {self._limits.job_seconds:g} seconds, got ones that "
                    "take longer: use fewer or smaller ones, or a shorter video."
                )
            readable, _, _ = select.select([descriptor], [], [], _POLL_S)
            if readable:
                block = os.read(descriptor, 1 << 16)
                if not block or len(self._buffer) > _MOST_ANSWER:
                    raise self._died()
                self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _died(self) -> WorkerDiedError:
        return WorkerDiedError(
            "Expected photos or a video that decode within the limits of memory, got damaged or hostile "
            "content: the process that decoded it has ended. Save it anew with an ordinary program."
        )

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._shared >= 0:
            os.close(self._shared)
            self._shared = -1


def shared_file() -> int:
    """Descriptor of an empty file without a name, in memory where the system can."""
    if hasattr(os, "memfd_create"):
        # /dev/shm would do as well, but containers make it 64 MB small.
        return os.memfd_create("g2vlm-decoded", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
