"""One queue for the work that fills the machine: jobs run one by one, and those who wait are told."""

import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Job:
    """Work of one browser."""

    run: Callable[["Job"], None]
    """Does it; looks at `is_cancelled` now and then, and handles its own errors."""
    on_place: Callable[[int], None]
    """Told how many jobs are before this one whenever that changes; 0 when it starts."""
    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody wants it any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End it before its next step, or drop it from the queue; from any thread."""
        self._cancelled.set()


def report(error: Exception) -> None:
    """Tell a defect to whoever runs the server."""
    print("".join(traceback.format_exception(error)), file=sys.stderr)


class WorkQueue:
    """Runs jobs in the order in which they came, one at a time, in a thread of its own."""

    def __init__(self) -> None:
        self._waiting: list[Job] = []
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="g2vlm-work", daemon=True)
        self._thread.start()

    def add(self, job: Job) -> None:
        """Put a job at the end of the queue."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
        self._tell_places()

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue; one that runs ends at its next step."""
        job.cancel()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
        self._tell_places()

    @property
    def num_jobs(self) -> int:
        """Jobs that wait or run."""
        with self._changed:
            return len(self._waiting) + (self._running is not None)

    def close(self) -> None:
        """Drop what waits, and let what runs end at its next step."""
        with self._changed:
            self._closed = True
            for job in (*self._waiting, *([self._running] if self._running else [])):
                job.cancel()
            self._waiting.clear()
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                job = self._running = self._waiting.pop(0)
            self._tell_places()
            try:
                job.on_place(0)
                job.run(job)
            except Exception as error:  # noqa: BLE001  the others must not wait for ever
                report(error)
            finally:
                with self._changed:
                    self._running = None

    def _tell_places(self) -> None:
        with self._changed:
            before = int(self._running is not None)
            places = [(job, index + before) for index, job in enumerate(self._waiting)]
        for job, place in places:
            if place:
                job.on_place(place)
