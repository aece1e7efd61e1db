"""Measurements that need a process of their own, because memory once touched is seldom given back.

`python -m g2vlm.bench.child` reads one job as JSON from its input and prints the result as JSON.
"""

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

LAST_LINES = 15
"""Lines of a failed child's messages that its error repeats."""
LOADED_AGAIN = 3
"""Loads after the first in the same process, into memory that the system holds ready."""


class Kind(Enum):
    """What a child measures."""

    LOAD = "load"
    """Seconds of loading everything that questions need, at first and again, and peak memory."""
    RECONSTRUCT = "reconstruct"
    """Peak memory of a reconstruction beyond the weights and the scene."""
    PERCEIVE = "perceive"
    """Peak memory of a perception beyond the weights and the scene."""


@dataclass(frozen=True)
class Job:
    """One measurement."""

    kind: Kind
    folder: str
    """Checkpoint."""
    device: str
    dtype: str
    threads: int
    views: int = 1
    photo_size: tuple[int, int] = (518, 392)


def run_child(job: Job) -> dict[str, float]:
    """Measure in a new process.

    Raises:
        RuntimeError: the process failed; the end of what it said is in the message.
    """
    stored = {**dataclasses.asdict(job), "kind": job.kind.value}
    command = [sys.executable, "-m", "g2vlm.bench.child"]
    done = subprocess.run(command, input=json.dumps(stored), capture_output=True, text=True)
    if done.returncode:
        said = "\n".join(done.stderr.splitlines()[-LAST_LINES:])
        raise RuntimeError(f"Measuring {job.kind.value} of {job.views} views failed:\n{said}")
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: float(value) for name, value in found.items()}


def main() -> None:
    """Do the job that stands on the input."""
    stored: dict[str, Any] = json.load(sys.stdin)
    size = tuple(stored["photo_size"])
    job = Job(**{**stored, "kind": Kind(stored["kind"]), "photo_size": size})

    import torch

    torch.set_num_threads(job.threads)
    result = _load(job) if job.kind is Kind.LOAD else _peak(job)
    print(json.dumps(result))


def _load(job: Job) -> dict[str, Any]:
    from g2vlm.bench.memory import measure_peak
    from g2vlm.bench.timing import now
    from g2vlm.checkpoints.loading import CHAT_PARTS, load_network
    from g2vlm.model.precision import choose_placement

    placement = choose_placement(job.device, job.dtype)
    seconds: list[float] = []
    networks = []

    def load() -> None:
        start = now(placement.device)
        networks.append(load_network(Path(job.folder), placement, parts=CHAT_PARTS))
        seconds.append(now(placement.device) - start)

    now(placement.device)
    peak = measure_peak(load, placement.device)
    weights = sum(p.numel() * p.element_size() for p in networks[0].parameters())
    stored = sum(p.numel() for p in networks[0].parameters()) * 4
    for _ in range(LOADED_AGAIN):
        networks.clear()
        load()
    result = {"seconds": seconds[0], "peak": peak.growth, "weights": weights, "read": stored}
    return {**result, "again": statistics.median(seconds[1:])}


def _peak(job: Job) -> dict[str, Any]:
    from g2vlm.bench.memory import measure_peak
    from g2vlm.bench.presets import synthetic_photos
    from g2vlm.opening import load

    model = load(job.folder, device=job.device, dtype=job.dtype)
    photos = synthetic_photos(job.views, job.photo_size)
    memory = 0
    scenes = []

    def look(count: int) -> None:
        nonlocal memory
        if job.kind is Kind.RECONSTRUCT:
            scenes.append(model.reconstruct(photos[:count]))
        else:
            perceptions.append(model.perceive(photos[:count]))
            scenes.append(perceptions[-1].scene)
            memory = perceptions[-1].num_bytes

    perceptions: list[Any] = []
    look(1)  # loads what is still missing, and lets libraries allocate what they keep
    scenes.clear()
    perceptions.clear()
    start = time.perf_counter()
    peak = measure_peak(lambda: look(job.views), model.placement.device, files_too=True)
    seconds = time.perf_counter() - start
    on_cpu = model.placement.device.type == "cpu"
    outputs = sum(_array_bytes(view) for view in scenes[0].views) if on_cpu else 0
    return {"seconds": seconds, "growth": peak.growth, "outputs": outputs, "memory": memory}


def _array_bytes(view: Any) -> int:
    """Bytes of the arrays of one view."""
    arrays = (getattr(view, field.name) for field in dataclasses.fields(view))
    return sum(int(getattr(array, "nbytes", 0)) for array in arrays)


if __name__ == "__main__":
    main()
