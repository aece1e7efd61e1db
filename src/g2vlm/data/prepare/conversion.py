"""`g2vlm data prepare`: a data set into shards, in one process or several, continued where it stopped."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from g2vlm.data.prepare.admission import (
    Choice,
    chosen,
    count_listed,
    posed_frames,
    require_scenes,
    scene_label,
)
from g2vlm.data.prepare.layout import Drops, Layout
from g2vlm.data.shards.writing import INDEX_FOLDER, PartWriter, finished_parts, write_dataset
from g2vlm.errors import InputError
from g2vlm.scene.writing import atomic_path, check_folder

SETTINGS_NAME = "settings.json"
_STALE_SECONDS = 3600.0


@dataclass
class Report:
    """What a preparation did."""

    scenes: int = 0
    """Prepared in this run, or listed by a dry one."""
    frames: int = 0
    earlier_scenes: int = 0
    """Found prepared already."""
    num_bytes: int = 0
    drops: Drops = field(default_factory=Drops)
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """For people."""
        earlier = f", {self.earlier_scenes:,} were there" if self.earlier_scenes else ""
        size = f", {self.num_bytes / 1e6:,.1f} MB" if self.num_bytes else ""
        lines = [f"{self.scenes:,} scenes{earlier}; {self.frames:,} frames{size}, {self.seconds:.1f} s"]
        for reason, count in self.drops.counts.most_common():
            shown = ", ".join(self.drops.examples[reason])
            lines.append(f"left out {count:,}: {reason} ({shown}{', ...' if count > 3 else ''})")
        return lines


@dataclass(frozen=True)
class Preparation:
    """What is prepared, from where to where."""

    layout: Layout
    root: Path
    target: Path
    choice: Choice = field(default_factory=Choice)
    limit: int | None = None
    """Scenes at most, those prepared before included."""
    workers: int = 1
    scenes_per_shard: int | None = None
    """Without it, as the layout says."""


Progress = Callable[[int, int], None]


def prepare(job: Preparation, progress: Progress | None = None) -> Report:
    """Write all scenes that are not there yet.

    A shard appears with its part of the index or not at all; the same call continues after an interruption,
    and adds scenes that the source folder has gained.

    Args:
        job: what to do.
        progress: called with scenes done and scenes in all.

    Raises:
        InputError: the source holds no scene or nothing usable, or the target holds another data set.
        OutputError: the target cannot be written.
    """
    began = time.monotonic()
    scenes = require_scenes(job.layout, job.root)
    check_folder(job.target)
    _settle(job)
    done = {scene for part in finished_parts(job.target) for scene in part["scenes"] + part["empty"]}
    waiting = [scene for scene in scenes if scene not in done]
    if job.limit is not None:
        waiting = waiting[: max(0, job.limit - len(done.intersection(scenes)))]
    report = Report(earlier_scenes=len(done.intersection(scenes)))
    for result in _results(job, _groups(job, waiting)):
        report.scenes += len(result["scenes"])
        report.frames += result["frames"]
        report.num_bytes += result["bytes"]
        report.drops.add(result["dropped"], result["examples"])
        if progress is not None:
            progress(report.scenes + len(result["empty"]), len(waiting))
    layout = job.layout
    about = {
        "dataset": layout.name,
        "title": layout.title,
        "licence": layout.licence,
        "source": layout.source,
    }
    write_dataset(job.target, {**about, "settings": _settings(job)})
    report.seconds = time.monotonic() - began
    if waiting and not report.frames:
        raise InputError(
            f"Expected frames of {layout.title} in {job.root}, but none could be used:\n  "
            + "\n  ".join(report.lines()[1:])
        )
    return report


def rehearse(job: Preparation) -> Report:
    """What `prepare` would do, by listings alone: no picture is read, nothing written."""
    began = time.monotonic()
    report = Report()
    for scene in require_scenes(job.layout, job.root)[: job.limit]:
        report.scenes += 1
        try:
            listed = chosen(job.layout, job.root, scene, job.choice, report.drops)
            count = count_listed(listed, scene_label(job.root, scene), report.drops)
            report.frames += count if job.choice.max_frames is None else min(count, job.choice.max_frames)
        except InputError as error:
            report.drops(f"the scene cannot be read: {error}", scene_label(job.root, scene))
    report.seconds = time.monotonic() - began
    return report


def _settings(job: Preparation) -> dict[str, Any]:
    return {"dataset": job.layout.name, **asdict(job.choice)}


def _settle(job: Preparation) -> None:
    """Refuse to mix data sets or choices in one folder; remove what killed runs have left."""
    path = job.target / INDEX_FOLDER / SETTINGS_NAME
    now = _settings(job)
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != now:
            raise InputError(
                f"Expected to continue {job.target} as it began ({before}), got {now}: give the same "
                "options, or another target."
            )
    else:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(now), encoding="utf-8")
    for folder in (job.target, job.target / INDEX_FOLDER):
        for stale in folder.glob(".*-*"):
            if stale.is_file() and time.time() - stale.stat().st_mtime > _STALE_SECONDS:
                stale.unlink(missing_ok=True)


def _groups(job: Preparation, scenes: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Numbers of new shards, and the scenes of each."""
    size = job.scenes_per_shard or job.layout.scenes_per_shard
    first = max((part["number"] for part in finished_parts(job.target)), default=-1) + 1
    for k, start in enumerate(range(0, len(scenes), size)):
        yield first + k, scenes[start : start + size]


def _results(job: Preparation, groups: Iterator[tuple[int, list[str]]]) -> Iterator[dict[str, Any]]:
    """Records of written shards as they come; only a few groups wait in memory at a time."""
    if job.workers <= 1:
        yield from (write_part(job, *group) for group in groups)
        return
    # Forked processes would share locks of threads that are not there.
    with ProcessPoolExecutor(job.workers, mp_context=get_context("spawn")) as pool:
        running: set[Future[dict[str, Any]]] = set()
        try:
            for group in groups:
                running.add(pool.submit(write_part, job, *group))
                if len(running) >= 2 * job.workers:
                    ready, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in ready)
            while running:
                ready, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ready)
        finally:
            pool.shutdown(cancel_futures=True)


def write_part(job: Preparation, number: int, scenes: list[str]) -> dict[str, Any]:
    """Write one shard; returns its record."""
    drops = Drops()
    empty: list[str] = []
    with PartWriter(job.target, number) as part:
        for scene in scenes:
            try:
                if not part.add_scene(scene, posed_frames(job.layout, job.root, scene, job.choice, drops)):
                    empty.append(part.scenes.pop())
            except InputError as error:
                drops(f"the scene cannot be read: {error}", scene_label(job.root, scene))
                empty.append(scene)
        part.record = {"empty": empty, "dropped": dict(drops.counts), "examples": drops.examples}
    return {
        **part.record,
        "scenes": part.scenes,
        "frames": part.num_frames,
        "bytes": part.num_bytes,
    }
