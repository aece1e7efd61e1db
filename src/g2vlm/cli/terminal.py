"""What goes to which stream: results to stdout, everything said along the way to stderr."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class Output(Protocol):
    """A stream that results are written to."""

    def write(self, text: str, /) -> int:
        """Write text."""
        ...

    def flush(self) -> None:
        """Hand over what was written."""
        ...


def say(text: str) -> None:
    """Tell the user something that is not the result."""
    print(text, file=sys.stderr, flush=True)


def leave_to_download(allowed: bool) -> bool | Callable[[str, int], bool]:
    """What `choose_checkpoint` takes: the wish of the command line, or somebody at a terminal to ask."""
    return allowed or (_wants_download if sys.stdin.isatty() and sys.stderr.isatty() else False)


def _wants_download(repo_id: str, num_bytes: int) -> bool:
    from g2vlm.checkpoints.places import cache_folder

    question = f"{repo_id} is not on this machine. Download {format_bytes(num_bytes)} to {cache_folder()}?"
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def reserved_stdout() -> Iterator[Output]:
    """Keep stdout for the one result that the caller writes; stray prints below go to stderr."""
    out = sys.stdout
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


def write_json(out: Output, value: Mapping[str, object]) -> None:
    """Write one JSON object and a newline."""
    out.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
    out.flush()


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
