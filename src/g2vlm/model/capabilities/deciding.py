"""The one place that decides which fast paths are taken."""

import dataclasses
import hashlib
import json
import logging
import os
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from g2vlm.model.capabilities.measuring import compare
from g2vlm.model.capabilities.paths import FastPath, Verdict, wish_for
from g2vlm.model.kept import keep, kept, kept_folder, processor

if TYPE_CHECKING:
    from g2vlm.model.capabilities.trials import Trial

_log = logging.getLogger(__name__)
BUSY_S = 600.0
"""How long a verdict of a busy machine counts; a settled one counts until something changes."""
SETTINGS = ("ONEDNN_", "DNNL_", "ATEN_", "MKL_", "OMP_", "GOMP_", "KMP_", "CC")
"""Beginnings of the variables that verdicts depend on."""
_lock = threading.RLock()
_known: dict[tuple[object, ...], Verdict] = {}


def verdict(path: FastPath) -> Verdict:
    """What was found out about a path on this machine, now if it never was; some tenths of a second then.

    It depends on the processor, the versions, the number of threads and the environment, and is kept for
    them between runs.

    Raises:
        DeviceError: the wishes in the environment cannot be read.
    """
    wish = wish_for(path)
    with _lock:
        key = (path, torch.get_num_threads(), *_environment())
        if key not in _known:
            _known[key] = _found_out(path)
        return dataclasses.replace(_known[key], wish=wish)


def taken(path: FastPath) -> bool:
    """Whether a path is right and faster here, or wanted."""
    return verdict(path).taken


def forget() -> None:
    """Measure every path again when it is next asked for, also in later runs."""
    with _lock:
        _known.clear()
        for path in FastPath:
            if (file := _file(path)) is not None:
                file.unlink(missing_ok=True)


def _found_out(path: FastPath) -> Verdict:
    # Imported late: what is tried may itself ask here.
    from g2vlm.model.capabilities.trials import TRIALS, UnavailableError

    try:
        trial = TRIALS[path]()
    except UnavailableError as missing:
        # Not kept: a compiler may be installed before the next run.
        return Verdict(path, None, 0.0, None, None, settled=True, reason=str(missing))
    # Only now: what a kept verdict relied on, such as a compiler, may be gone.
    return _kept(path) or _measured(path, trial)


def _measured(path: FastPath, trial: "Trial") -> Verdict:
    with torch.inference_mode():
        error = trial.error()
        timing = None
        if error <= trial.tolerance:
            for small in (True, False):
                pair = trial.pair(small)
                timing = compare(pair.plain, pair.fast, cold=trial.cold and not small)
                if timing.hopeless:
                    break
    found = Verdict(
        path,
        error,
        trial.tolerance,
        None if timing is None else timing.plain_s,
        None if timing is None else timing.fast_s,
        settled=timing is None or timing.settled or timing.hopeless,
    )
    _keep(found)
    _log.info("%s: %s", path.value, found)
    return found


def _kept(path: FastPath) -> Verdict | None:
    """A verdict of an earlier run that still counts."""
    file = _file(path)
    content = None if file is None else kept(file)
    try:
        stored = {} if content is None else json.loads(content)
        age = time.time() - stored.pop("time")
        found = Verdict(path, **stored)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if found.settled or 0 <= age < BUSY_S else None


def _keep(found: Verdict) -> None:
    file = _file(found.path)
    if file is None:
        return
    stored = {
        name: value for name, value in dataclasses.asdict(found).items() if name not in ("path", "wish")
    }
    try:
        keep(file, json.dumps({**stored, "time": time.time()}).encode())
    except OSError as error:
        _log.info("what was measured cannot be kept: %s", error)


def _file(path: FastPath) -> Path | None:
    folder = kept_folder()
    if folder is None:
        return None
    return folder / f"paths-{_fingerprint(_environment())}" / f"{path.value}-{torch.get_num_threads()}.json"


def _environment() -> tuple[str, ...]:
    names = sorted(name for name in os.environ if name.startswith(SETTINGS) and "NUM_THREADS" not in name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (*(f"{name}={os.environ[name]}" for name in names), f"{cores} cores")


@lru_cache(maxsize=8)
def _fingerprint(environment: tuple[str, ...]) -> str:
    """What a verdict depends on, the sources of what was measured among them."""
    parts = [processor(), torch.__version__.encode(), torch.__config__.show().encode()]
    parts += [word.encode() for word in environment]
    room = Path(__file__).parents[1]
    sources = [*room.glob("*.py"), *room.glob("native/*"), *room.glob("capabilities/*.py")]
    parts += [source.read_bytes() for source in sorted(sources) if source.is_file()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
