"""`g2vlm data`: prepare data sets for training, check them, look at them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from g2vlm.cli.shared.terminal import progress_bar, reserved_stdout, say, write_json
from g2vlm.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from g2vlm.data.prepare.conversion import Preparation, Report

ACTIONS = ("list", "prepare", "check", "show", "questions")
EXIT_WRONG = 1


@dataclass(frozen=True, kw_only=True)
class Options:
    """Prepare data sets for training, check them, look at them.

    g2vlm data list names the data sets. g2vlm data prepare NAME SOURCE TARGET writes shards with an index;
    the same command continues an interrupted one and adds scenes that SOURCE has gained. Without NAME, SOURCE
    is a frames.json, transforms.json or frames.csv, or a folder with one, a COLMAP model or a TUM trajectory.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input": ("action", "words", "every", "max_frames", "limit", "images", "scene", "scenes", "frames"),
        "output": ("dry_run", "json"),
        "running": ("workers",),
        "expert": ("scenes_per_shard",),
    }
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "g2vlm data list",
        "g2vlm data prepare scannet scans prepared/scannet --every 10 --workers 8",
        "g2vlm data check prepared/scannet",
        "g2vlm data show prepared/scannet room.png room.ply",
    )

    action: Annotated[
        tyro.conf.Positional[str], tyro.conf.arg(metavar="ACTION", help=f"One of {', '.join(ACTIONS)}.")
    ]
    """What to do."""
    words: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(
            metavar="WORDS",
            help="Of prepare: [NAME] SOURCE TARGET; of check: FOLDER; of show: FOLDER FILES; "
            "of questions: SOURCE TARGET.jsonl.",
        ),
    ] = ()
    """What to do it with."""
    scene: str | None = None
    """Of show: which scene; the first one without it."""
    scenes: int = 8
    """Of check: how many scenes are looked at, evenly spread."""
    frames: int = 24
    """Of check and show: how many frames of each scene."""
    every: int = 1
    """Of prepare: keep one of so many frames of each scene."""
    max_frames: int | None = None
    """Of prepare: keep at most so many frames of each scene."""
    limit: int | None = None
    """Of prepare: at most so many scenes in all; of questions: so many conversations."""
    images: Path | None = None
    """Of questions: what paths of pictures are relative to; the source's folder without it."""
    dry_run: bool = False
    """Of prepare: only say what would be kept and left out, by listings alone."""
    workers: int = 1
    """Of prepare: processes side by side."""
    scenes_per_shard: int | None = None
    """Of prepare: scenes that share a file; without it, as suits the data set."""
    json: bool = False
    """Print one JSON object."""


def run(options: Options) -> int:
    """Do what was asked for."""
    doing = {"list": _list, "prepare": _prepare, "check": _check, "show": _show, "questions": _questions}
    if options.action not in doing:
        raise InputError(f"Expected one of {', '.join(ACTIONS)}, got {options.action!r}.")
    return doing[options.action](options)


def _list(options: Options) -> int:
    from g2vlm.data.prepare.registry import LAYOUTS

    with reserved_stdout() as out:
        if options.json:
            rows = {
                name: {"title": layout.title, "licence": layout.licence, "expects": layout.expects}
                for name, layout in LAYOUTS.items()
            }
            write_json(out, rows)
            return 0
        for name, layout in LAYOUTS.items():
            out.write(f"{name}: {layout.title} ({layout.licence}); {layout.source}\n    {layout.expects}\n")
    return 0


def _prepare(options: Options) -> int:
    from g2vlm.data.prepare.conversion import prepare, rehearse

    job = _job(options)
    with reserved_stdout() as out:
        if options.dry_run:
            report = rehearse(job)
        else:
            with progress_bar(f"preparing {job.layout.title}") as progress:
                report = prepare(job, progress)
            out.kept(job.target)
        if options.json:
            write_json(out, _as_json(report))
        else:
            out.write("\n".join(report.lines()) + "\n")
    if not options.dry_run:
        say(f"{job.target}: check it with  g2vlm data check {job.target}")
    return 0


def _check(options: Options) -> int:
    from g2vlm.data.checking.checking import CheckOptions, check_data
    from g2vlm.data.shards.reading import PreparedData

    if options.scenes < 1 or options.frames < 3:
        raise InputError(
            f"Expected at least 1 scene of 3 frames, got --scenes {options.scenes} --frames {options.frames}."
        )
    data = PreparedData(_only_folder(options))
    with reserved_stdout() as out, progress_bar("comparing views") as progress:
        verdicts = []
        for verdict in check_data(data, CheckOptions(options.scenes, options.frames), progress):
            verdicts.append(verdict)
            if not options.json:
                out.write(verdict.line() + "\n")
        if options.json:
            rows = [{**asdict(verdict), "wrong": verdict.is_wrong} for verdict in verdicts]
            for row, verdict in zip(rows, verdicts, strict=True):
                row["cause"] = None if verdict.cause is None else verdict.cause.value
            write_json(out, {"scenes": rows})
    return EXIT_WRONG if any(verdict.is_wrong for verdict in verdicts) else 0


def _show(options: Options) -> int:
    from g2vlm.data.shards.reading import PreparedData
    from g2vlm.data.showing import fused_points, scene_sheet, shown_scene
    from g2vlm.scene.writing import atomic_path, check_file

    folder, *targets = options.words or ("",)
    wrong = [target for target in targets if Path(target).suffix not in (".png", ".ply")]
    if not folder or not targets or wrong:
        raise InputError(
            "Expected a folder of prepared data and files to write, .png or .ply, as in  g2vlm data show "
            f"prepared/scannet room.png room.ply,  got {' '.join(options.words) or 'nothing'}."
        )
    for target in targets:
        check_file(target)
    scene = shown_scene(PreparedData(folder), options.scene, options.frames)
    with reserved_stdout() as out:
        for target in targets:
            if target.endswith(".ply"):
                _write_points(*fused_points(scene), Path(target))
            else:
                with atomic_path(target) as temporary:
                    scene_sheet(scene).save(temporary)
            out.kept(Path(target))
        if options.json:
            write_json(out, {"scene": scene.name, "frames": len(scene.frames), "files": targets})
        else:
            out.write(f"{scene.name}, {len(scene.frames)} frames: {', '.join(targets)}\n")
    return 0


def _write_points(points: "np.ndarray", colours: "np.ndarray", target: Path) -> None:
    import numpy as np

    from g2vlm.export.ply import write_ply
    from g2vlm.scene.cloud import PointCloud

    count = len(points)
    sure, first = np.ones(count, dtype=np.float32), np.zeros(count, dtype=np.int32)
    write_ply(PointCloud(points, colours, sure, first), target)


def _questions(options: Options) -> int:
    from g2vlm.data.language.converting import convert_questions

    if len(options.words) != 2 or Path(options.words[1]).suffix != ".jsonl":
        raise InputError(
            f"Expected a question set and a .jsonl file to write, got {' '.join(options.words) or 'nothing'}."
        )
    source, target = map(Path, options.words)
    report = convert_questions(source, target, options.images, options.limit)
    with reserved_stdout() as out:
        out.kept(target)
        if options.json:
            write_json(out, {"written": report.written, "dropped": dict(report.dropped)})
            return 0
        out.write(f"{report.written} conversations: {target}\n")
        for reason, count in report.dropped.most_common():
            out.write(f"left out {count}: {reason}\n")
    return 0


def _only_folder(options: Options) -> str:
    if len(options.words) != 1:
        raise InputError(f"Expected one folder of prepared data, got {len(options.words)} words.")
    return options.words[0]


def _job(options: Options) -> "Preparation":
    from g2vlm.data.prepare.admission import Choice
    from g2vlm.data.prepare.conversion import Preparation
    from g2vlm.data.prepare.registry import layout_named, layout_of_own

    if len(options.words) not in (2, 3):
        raise InputError(
            "Expected a data set, its folder and a target, as in  g2vlm data prepare scannet scans out,  or "
            "files of your own and a target, as in  g2vlm data prepare room/frames.json out,  got "
            f"{len(options.words)} words; g2vlm data list  names the data sets."
        )
    numbers = {"every": options.every, "workers": options.workers}
    numbers |= {name: getattr(options, name) for name in ("max_frames", "limit", "scenes_per_shard")}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise InputError(f"Expected --{name} of at least 1, got {value}.")
    *named, source, target = options.words
    layout, root = (layout_named(named[0]), Path(source)) if named else layout_of_own(Path(source))
    return Preparation(
        layout,
        root,
        Path(target),
        Choice(options.every, options.max_frames),
        options.limit,
        options.workers,
        options.scenes_per_shard,
    )


def _as_json(report: "Report") -> dict[str, object]:
    return {
        "scenes": report.scenes,
        "earlier_scenes": report.earlier_scenes,
        "frames": report.frames,
        "bytes": report.num_bytes,
        "seconds": round(report.seconds, 2),
        "dropped": dict(report.drops.counts),
        "examples": report.drops.examples,
    }
