"""Who works through a batch: this process, or actors of Ray on one machine or a cluster."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from g2vlm.cluster.tasks import SceneTask
from g2vlm.cluster.worker import SceneWorker, WorkSettings
from g2vlm.errors import InputError, MissingExtraError

Row = dict[str, Any]
Engine = Callable[[WorkSettings, Sequence[SceneTask]], Iterator[Row]]
"""Works through scenes and tells the row of each as it ends."""


def run_batch(engine: Engine, settings: WorkSettings, tasks: Sequence[SceneTask]) -> Iterator[Row]:
    """Work through all scenes that are not done, and again through those that failed and may yet succeed.

    Every scene has a bounded number of attempts, so this ends whatever happens.

    Yields:
        A row whenever a scene ends, also for those that will be tried again.

    Raises:
        OutputError: the output cannot be written.
    """
    results = settings.results
    results.prepare()
    for _ in range(settings.max_attempts):
        remaining = [task for task in tasks if results.is_open(task.id)]
        if not remaining:
            return
        # Stable: what may kill a process comes after all that did not.
        yield from engine(settings, sorted(remaining, key=lambda task: results.is_suspect(task.id)))


def work_here(settings: WorkSettings, tasks: Sequence[SceneTask]) -> Iterator[Row]:
    """In this process."""
    yield from SceneWorker(settings).work(tasks)


@dataclass(frozen=True)
class RayEngine:
    """By Ray: stateful actors, as many as there is work and room for, on one machine or many.

    Ray executes; what is done, what failed and how often is read from the output, which all machines must see
    under one path. An actor that dies is replaced, and its scenes are tried again as often as they may.
    """

    address: str | None = None
    """Of a cluster to join, such as "auto" or "ray://head:10001"; None starts one in this machine."""
    actors: tuple[int, int] = (1, 1)
    """Fewest and most."""
    cpus: float = 1.0
    """Cores of each actor."""
    gpus: float = 0.0
    """GPUs of each actor."""
    scenes_per_call: int = 32
    """Scenes that an actor takes at a time; with more, reading and writing overlap better."""

    def __call__(self, settings: WorkSettings, tasks: Sequence[SceneTask]) -> Iterator[Row]:
        """Work through scenes."""
        ray = _ray()
        with _connected(ray, self.address):
            portions = _portions(tasks, settings, self._share(len(tasks)))
            dataset = ray.data.from_items([{"tasks": portion} for portion in portions])
            # One portion a block: blocks are what actors take.
            dataset = dataset.repartition(len(portions))
            worked = dataset.map_batches(
                _Actor,
                fn_constructor_args=(settings,),
                batch_size=1,
                concurrency=self.actors,
                num_cpus=self.cpus,
                num_gpus=self.gpus,
            )
            for row in worked.iter_rows():
                yield from row["rows"]

    def _share(self, num_tasks: int) -> int:
        """Scenes of a call: enough calls for every actor to have some until the end."""
        return max(1, min(self.scenes_per_call, num_tasks // (4 * self.actors[1]) or 1))


class _Actor:
    """A worker inside an actor of Ray."""

    def __init__(self, settings: WorkSettings) -> None:
        import torch

        torch.set_num_threads(max(1, int(_assigned_cpus())))
        self.worker = SceneWorker(settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"rows": [list(self.worker.work(list(tasks))) for tasks in batch["tasks"]]}


def _assigned_cpus() -> float:
    ray = _ray()
    return float(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))


def _portions(tasks: Sequence[SceneTask], settings: WorkSettings, size: int) -> list[list[SceneTask]]:
    """Scenes that are given to an actor together; suspects alone."""
    results = settings.results
    fine = [task for task in tasks if not results.is_suspect(task.id)]
    portions = [fine[k : k + size] for k in range(0, len(fine), size)]
    return portions + [[task] for task in tasks if results.is_suspect(task.id)]


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Ray for the time of a run, quiet; one that ran before stays."""
    ours = not ray.is_initialized()
    if ours:
        try:
            quiet = {"log_to_driver": False, "logging_level": "ERROR"}
            own = {"include_dashboard": False} if address is None else {}
            ray.init(address=address, **quiet, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"Expected a Ray cluster at {address}, could not join it: {error}. Start one with  ray start "
                "--head , or leave --address away."
            ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("Running a batch with Ray", "cluster") from error
    return ray
