"""A service that is killed again and again while it computes scenes, and what it has lost after that."""

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from g2vlm.bench.serving.process import ServiceProcess
from g2vlm.client.connection import ServiceError
from g2vlm.client.service import Client
from g2vlm.pipeline import Model

SCENES_A_ROUND = 3
_LONGEST_S = 3.0
"""Latest instant of a kill after the first scene was asked for."""


@dataclass(frozen=True)
class KillResult:
    """What was left."""

    num_kills: int
    num_scenes: int
    """That the service had accepted."""
    num_lost: int
    """Accepted, and gone or failed at the end."""
    num_damaged: int
    """Whose file is not what the model computes."""
    starting_s: float
    """Median time of a start after a kill."""
    empty_start_s: float
    """Median time of a start without anything to put right."""


def measure_kills(
    served: tuple[str, ...],
    model: Model,
    photos: Sequence[Path],
    num_kills: int,
    say: Callable[[str], None],
) -> KillResult:
    """Kill a service at random instants of its work.

    Args:
        served: checkpoint, and options of the service.
        model: the same in this process.
        photos: of each scene.
        num_kills: how often.
        say: told about every tenth kill.
    """
    draw, accepted, starts = random.Random(0), list[str](), list[float]()
    with tempfile.TemporaryDirectory(prefix="g2vlm-kills-") as folder:
        # No scene counts as hopeless here, however often the service dies of something else.
        options = (*served, "--data", folder, "--scene_attempts", "1000000", "--jobs_per_tenant", "1000000")
        empty = _empty_starts(served)
        for number in range(num_kills):
            service = ServiceProcess(*options)
            starts.append(service.starting_s)
            until = time.monotonic() + draw.uniform(0, _LONGEST_S)
            accepted += _ask_for_scenes(service, photos, until)
            time.sleep(max(0.0, until - time.monotonic()))
            service.kill()
            if number % 10 == 9:
                say(f"{number + 1} kills, {len(accepted)} scenes")
        lost, damaged = _look(ServiceProcess(*options), model, photos, accepted)
    later = starts[1:] or starts
    return KillResult(
        num_kills, len(accepted), lost, damaged, statistics.median(later), statistics.median(empty)
    )


def _empty_starts(served: tuple[str, ...]) -> list[float]:
    found = []
    for _ in range(3):
        service = ServiceProcess(*served)
        found.append(service.starting_s)
        service.kill()
    return found


def _ask_for_scenes(service: ServiceProcess, photos: Sequence[Path], until: float) -> list[str]:
    """Ids of the scenes that the service accepted before its time."""
    ids: list[str] = []
    with Client(service.address, timeout_s=30) as client:
        uploads = client.upload(list(photos))
        while len(ids) < SCENES_A_ROUND and time.monotonic() < until:
            ids.append(client.begin_scene(uploads, questions=False).id)
    return ids


def _look(
    service: ServiceProcess, model: Model, photos: Sequence[Path], accepted: Sequence[str]
) -> tuple[int, int]:
    """Numbers of scenes that are lost and damaged once all are done."""
    expected = model.reconstruct([str(path) for path in photos])
    lost = damaged = 0
    try:
        with Client(service.address) as client:
            for scene_id in accepted:
                scene = client.scene(scene_id)
                try:
                    scene.wait()
                    found = scene.load()
                except ServiceError:
                    lost += 1
                    continue
                same = len(found) == len(expected) and all(
                    np.array_equal(one.points_camera, other.points_camera)
                    for one, other in zip(found.views, expected.views, strict=True)
                )
                damaged += not same
    finally:
        service.stop()
    return lost, damaged
