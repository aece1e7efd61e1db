"""`g2vlm batch`: thousands of scenes, on this machine or a cluster."""

import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from g2vlm.cli.shared.terminal import (
    format_bytes,
    leave_to_download,
    progress_bar,
    reserved_stdout,
    say,
    write_json,
)
from g2vlm.errors import InputError, MissingExtraError, OutputError
from g2vlm.inputs.text_files import read_questions

if TYPE_CHECKING:
    from g2vlm.cluster.engines import Engine
    from g2vlm.cluster.results import ResultFolder
    from g2vlm.cluster.tasks import SceneTask
    from g2vlm.cluster.worker import WorkSettings

EXIT_FAILURES = 1


@dataclass(frozen=True, kw_only=True)
class Options:
    """Reconstruct many scenes, ask about them and export them; the same command goes on where it was stopped.

    INPUT is a folder, in which each folder and each video is a scene, or a manifest of JSON lines or parquet
    with an id and images, video or folder in each row. OUTPUT gets a folder per finished scene and a table of
    all. Exit code 1 where scenes failed.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input and output": ("input", "output", "formats", "questions", "max_views", "limit", "json"),
        "model": ("ckpt", "download", "device", "dtype", "max_new_tokens"),
        "running": ("engine", "address", "actors", "dry_run"),
        "expert": ("view_budget", "max_attempts", "cpus", "gpus", "scenes_per_call"),
    }
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "g2vlm batch photos outputs/scenes",
        "g2vlm batch scenes.jsonl outputs/scenes --questions questions.txt",
        "g2vlm batch scenes.jsonl /shared/scenes --engine ray --actors 16",
    )

    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """Folder of scenes, or manifest (.jsonl, .parquet)."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Folder of results."""
    formats: tuple[str, ...] = ("npz",)
    """Files of each scene, kinds of g2vlm export."""
    questions: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Questions asked about every scene, before those of the manifest."""
    max_views: int | None = None
    """At most so many views of a scene, spread evenly."""
    limit: int | None = None
    """Only the first so many scenes."""
    json: bool = False
    """Print one JSON object to stdout and nothing else there."""
    ckpt: Annotated[str | None, tyro.conf.arg(metavar="CKPT")] = None
    """Checkpoint: a folder, a bundled name or a hub id."""
    download: bool = False
    """Fetch the checkpoint if it is not on this machine."""
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = "auto"
    """auto, cpu or cuda."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision; auto takes what is fastest here."""
    max_new_tokens: int = 100
    """Longest answer, in tokens."""
    engine: Literal["local", "ray"] = "local"
    """local works in this process, ray with actors (needs the extra cluster)."""
    address: str | None = None
    """Of a Ray cluster to join, such as auto or ray://head:10001; without it one is started here."""
    actors: int = 1
    """Most actors of Ray; there are as many as have work and room."""
    dry_run: bool = False
    """Say what would be done."""
    view_budget: int = 16
    """Most views of small scenes that share a pass; 1 computes each scene by itself."""
    max_attempts: int = 5
    """Attempts at a scene that fails or kills its process, before it is given up."""
    cpus: float = 1.0
    """Cores of each actor."""
    gpus: float = 0.0
    """GPUs of each actor."""
    scenes_per_call: int = 32
    """Scenes that an actor takes at a time."""

    def check(self) -> None:
        """Refuse what does not fit together and formats that are unknown, before anything is read.

        Raises:
            InputError, OutputError, MissingExtraError: what was expected and what came.
        """
        if self.engine == "local" and self.address is not None:
            raise InputError("--address is of a Ray cluster: add --engine ray.")
        _check_formats(self.formats)


def run(options: Options) -> int:
    """Read what is to do, do it, and say what became of it."""
    from g2vlm.cluster.tasks import read_tasks

    with reserved_stdout() as out:
        options.check()
        tasks = read_tasks(options.input)[: options.limit]
        settings = _settings(options)
        if not options.dry_run:
            settings.results.prepare()
        treat = _plan if options.dry_run else _work
        told = treat(options, settings, tasks)
        if options.json:
            write_json(out, told)
        else:
            for name, value in told.items():
                out.write(f"{name}: {value}\n")
        return EXIT_FAILURES if told["failed"] or told["quarantined"] else 0


def _settings(options: Options) -> "WorkSettings":
    from g2vlm.checkpoints.hub import choose_checkpoint
    from g2vlm.cluster.worker import WorkSettings

    choice = choose_checkpoint(options.ckpt, may_download=leave_to_download(options.download))
    say(f"checkpoint: {choice}")
    return WorkSettings(
        # Other processes have another working folder.
        output=str(options.output.resolve()),
        run=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        checkpoint=str(choice.folder.resolve()),
        device=options.device,
        dtype=options.dtype,
        formats=options.formats,
        questions=() if options.questions is None else read_questions(options.questions),
        max_new_tokens=options.max_new_tokens,
        max_views=options.max_views,
        view_budget=options.view_budget,
        max_attempts=options.max_attempts,
    )


def _work(options: Options, settings: "WorkSettings", tasks: "Sequence[SceneTask]") -> dict[str, Any]:
    """Work through what is left; the table is written however it ends."""
    from g2vlm.cluster.engines import run_batch

    results = settings.results
    names = [task.id for task in tasks]
    before = sum(map(results.is_done, names))
    if before:
        say(f"{before} of {len(names)} scenes are done already")
    start = time.perf_counter()
    ended: set[str] = set()
    try:
        with progress_bar("scenes") as on_progress:
            for row in run_batch(_engine(options), settings, tasks):
                ended.add(row["id"])
                if row["state"] == "failed":
                    say(f"{row['id']}: {row['error'].splitlines()[-1]}")
                if on_progress is not None:
                    on_progress(before + len(ended), len(names))
    finally:
        table = results.write_table(names)
        say(f"table: {table}")
    seconds = time.perf_counter() - start
    counts = _counted(results, names)
    done_now = counts["done"] - before
    rate = done_now / seconds if done_now else 0.0
    return {**counts, "seconds": round(seconds, 2), "scenes_per_s": round(rate, 3), "table": str(table)}


def _plan(options: Options, settings: "WorkSettings", tasks: "Sequence[SceneTask]") -> dict[str, Any]:
    """What would be done, without doing any of it."""
    results = settings.results
    names = [task.id for task in tasks]
    weights = sum(file.stat().st_size for file in Path(settings.checkpoint).glob("*.safetensors"))
    suspects = [name for name in names if not results.is_done(name) and results.is_suspect(name)]
    return {
        "scenes": len(names),
        **_counted(results, names),
        "suspects": len(suspects),
        "engine": options.engine if options.address is None else f"{options.engine} at {options.address}",
        "actors": 1 if options.engine == "local" else options.actors,
        "weights_per_actor": format_bytes(weights),
        "formats": list(options.formats),
    }


def _counted(results: "ResultFolder", names: Sequence[str]) -> dict[str, int]:
    from g2vlm.cluster.results import State

    counted = Counter(results.state(name) for name in names)
    return {state.value: counted[state] for state in State}


def _engine(options: Options) -> "Engine":
    from g2vlm.cluster.engines import RayEngine, work_here

    if options.engine == "local":
        return work_here
    return RayEngine(
        options.address, (1, options.actors), options.cpus, options.gpus, options.scenes_per_call
    )


def _check_formats(kinds: Sequence[str]) -> None:
    import importlib.util

    import g2vlm.export  # noqa: F401  (makes its formats known)
    from g2vlm.scene.formats import FORMATS

    for kind in kinds:
        if kind not in FORMATS:
            raise OutputError(f"Expected --formats among {', '.join(sorted(FORMATS))}, got {kind!r}.")
        module = FORMATS[kind].module
        if module is not None and importlib.util.find_spec(module) is None:
            raise MissingExtraError(f"Writing {kind}", FORMATS[kind].extra)
    if len(set(kinds)) != len(kinds) or not kinds:
        raise OutputError(f"Expected every format once, and at least one, got {list(kinds)}.")
