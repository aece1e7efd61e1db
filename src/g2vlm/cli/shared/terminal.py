"""What goes to which stream: results to stdout, everything said along the way to stderr."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from g2vlm.cli.shared.streams import ResultStream


def say(text: str, end: str = "\n") -> None:
    """Tell the user something that is not the result; a stderr that cannot take it stops no work."""
    with contextlib.suppress(OSError, ValueError):
        print(text, end=end, file=sys.stderr, flush=True)


def leave_to_download(allowed: bool) -> bool | Callable[[str, int], bool]:
    """What `choose_checkpoint` takes: the wish of the command line, or somebody at a terminal to ask."""
    return allowed or (_wants_download if sys.stdin.isatty() and sys.stderr.isatty() else False)


def _wants_download(repo_id: str, num_bytes: int) -> bool:
    from g2vlm.checkpoints.places import cache_folder

    question = f"{repo_id} is not on this machine. Download {format_bytes(num_bytes)} to {cache_folder()}?"
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def reserved_stdout() -> Iterator[ResultStream]:
    """Keep stdout for the one result that the caller writes; stray prints below go to stderr."""
    out = ResultStream()
    with redirect_stdout(sys.stderr):
        yield out


@contextmanager
def progress_bar(task: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr that is gone once it is full; None where stderr is not a terminal.

    Yields:
        What to call with (steps done, steps in all).
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(task, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


class Countdown:
    """A line on stderr every few seconds of work that takes long, and at its end."""

    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, what: str) -> None:
        self._what = what
        self._start = self._last = time.monotonic()
        self._count = 0

    def __call__(self, done: int, total: int, *_: object) -> None:
        """Take note that one more is done."""
        self._count += 1
        now = time.monotonic()
        if done < total and now - self._last < self.SECONDS_BETWEEN_LINES:
            return
        self._last = now
        each = (now - self._start) / self._count
        minutes = each * (total - done) / 60
        say(f"{done} of {total} {self._what}, {each:.2f} s each, {minutes:.1f} min to go")


def write_json(out: ResultStream, value: Mapping[str, object]) -> None:
    """Write one JSON object and a newline, valid on any terminal: numbers that JSON lacks become null."""
    plain = _finite(value)
    text = json.dumps(plain, ensure_ascii=False, indent=1, allow_nan=False)
    try:
        text.encode()
        shows_all = out.is_utf8
    except UnicodeEncodeError:  # a file name that is no text
        shows_all = False
    out.write((text if shows_all else json.dumps(plain, indent=1)) + "\n")


def _finite(value: object) -> object:
    """The same value with None for numbers that are infinite or undefined."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def add_timings(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Seconds of both by name; those under the same name add up."""
    names = [*first, *(name for name in second if name not in first)]
    return {name: first.get(name, 0.0) + second.get(name, 0.0) for name in names}


def format_timings(timings: Mapping[str, float]) -> str:
    """`load 3.2 s, read 0.1 s` from `{"load_s": 3.2, "read_s": 0.1}`."""
    return ", ".join(f"{name.removesuffix('_s')} {seconds:.1f} s" for name, seconds in timings.items())


def bytes_of(path: Path) -> int:
    """Size of a file, or of all files below a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def format_bytes(count: int | float) -> str:
    """Decimal units, as disks and downloads are sold: `18.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
