"""Peaks of memory: the kernel's own high-water mark where it can be reset, sampling elsewhere."""

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
INTERVAL_S = 0.001


@dataclass(frozen=True)
class Peak:
    """Memory of this process around one action, in bytes."""

    before: int
    peak: int

    @property
    def growth(self) -> int:
        """What the action took at most."""
        return self.peak - self.before


def measure_peak(action: Callable[[], object], device: torch.device, *, files_too: bool = False) -> Peak:
    """Run an action and return the memory before it and at its highest point.

    On a GPU: what torch's allocator handed out. On Linux: anonymous memory, sampled every millisecond, or,
    with `files_too`, all resident memory by the kernel's high-water mark, which misses nothing but also
    counts pages of mapped files. Elsewhere: resident memory, sampled.

    Args:
        action: what to measure; run once.
        device: where its tensors live.
        files_too: right for an action that maps no file.
    """
    _release_unused()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        torch.cuda.synchronize(device)
        return Peak(before, torch.cuda.max_memory_allocated(device))
    if files_too and _reset_high_water():
        before = _status("VmRSS")
        action()
        return Peak(before, _status("VmHWM"))
    return _sampled(action)


def anonymous_bytes() -> int:
    """Memory of this process that is no mapped file (on systems other than Linux: all resident memory)."""
    if STATUS.is_file():
        return _status("RssAnon")
    import psutil  # type: ignore[import-untyped]

    return int(psutil.Process().memory_info().rss)


def _sampled(action: Callable[[], object]) -> Peak:
    before = highest = anonymous_bytes()
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.is_set():
            highest = max(highest, anonymous_bytes())
            time.sleep(INTERVAL_S)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        action()
    finally:
        done.set()
        watcher.join()
    return Peak(before, max(highest, anonymous_bytes()))


def _reset_high_water() -> bool:
    """Whether the kernel let us set the peak back to the present."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"Expected {name} in {STATUS}.")


def _release_unused() -> None:
    """Give freed memory back to the system, so that an action cannot live on what an earlier one left."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
