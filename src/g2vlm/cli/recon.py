"""`g2vlm recon`: photos or a video to a 3-D scene on disk."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from g2vlm.cli.long_recon import LongFilter, LongOptions, reconstruct_in_pieces, write_long
from g2vlm.cli.remote import RemoteOptions
from g2vlm.cli.shared.known_options import (
    KNOWN_FIELDS,
    MASK_FIELDS,
    KnownOptions,
    photo_files,
    tell_calibration,
)
from g2vlm.cli.shared.scene_options import SceneOptions, require_writable, write_scene
from g2vlm.cli.shared.streams import ResultStream
from g2vlm.cli.shared.terminal import (
    add_timings,
    bytes_of,
    format_bytes,
    format_timings,
    reserved_stdout,
    say,
    write_json,
)
from g2vlm.errors import InputError
from g2vlm.scene.writing import check_folder

if TYPE_CHECKING:
    from g2vlm.scene.formats import Target
    from g2vlm.scene.metre.calibration import Calibration, KnownThings
    from g2vlm.scene.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Options(SceneOptions, LongOptions, KnownOptions, RemoteOptions):
    """Reconstruct a 3-D scene from photos or a video, with --window also a very long one.

    Writes coloured points (.ply, .glb), everything the model says (.npz: points, depth, poses, intrinsics,
    confidence of every view), or any other format of g2vlm export.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input": (
            "data_path",
            "max_views",
            "frames",
            "frame_count",
            "frame_rate",
        ),
        "model": (
            "ckpt",
            "download",
            "device",
            "dtype",
        ),
        "what is known": KNOWN_FIELDS,
        "what to leave out": MASK_FIELDS,
        "output": (
            "save_path",
            "anchor_first",
            "min_confidence",
            "max_depth_edge",
            "json",
        ),
        "long video": (
            "window",
            "overlap",
            "close_loops",
            "voxel",
            "pieces",
        ),
        "expert": (
            "fit",
            "view_attention",
            "quantization",
            "compiled",
            "tf32",
            "spill",
            "server",
        ),
    }
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "g2vlm recon --data_path photos/room --save_path room.ply",
        "g2vlm recon --data_path walk.mp4 --frame_count 24 --save_path walk.npz",
        "g2vlm recon --data_path walk.mp4 --window 12 --save_path walk.ply",
        "g2vlm recon --data_path photos/room --known_distance 0,90,200,0,220,210,0.9",
    )

    save_path: Path = Path("examples/result.ply")
    """What to write; the ending chooses the format, or KIND:PATH, such as colmap:room (see g2vlm export)."""
    anchor_first: bool = False
    """Make the first camera the origin and axes of the world; otherwise the network's own frame stays."""
    min_confidence: Annotated[float | None, tyro.conf.arg(metavar="0..1")] = None
    """Leave out points of lower confidence."""
    max_depth_edge: Annotated[float | None, tyro.conf.arg(metavar="NUMBER")] = None
    """Leave out pixels whose 3x3 window spans more than this fraction of their depth; 0.03 removes the points
    that float between near and far surfaces."""

    spill: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Keep pixels and points in unnamed files of this folder instead of in memory: for hundreds of views."""

    def finish(self, scene: "Scene") -> "Scene":
        """Filter and re-anchor as asked."""
        if self.anchor_first:
            scene = scene.anchored()
        return scene.filtered(min_confidence=self.min_confidence, max_depth_edge=self.max_depth_edge)


def run(options: Options) -> int:
    """Reconstruct, write the file, report."""
    with reserved_stdout() as out:
        target = require_writable(options.save_path)
        if options.window is not None:
            if options.server is not None:
                raise InputError("Expected --window or --server, got both: long videos are for this machine.")
            return _run_long(options, options.source(), target, out)
        if options.spill is not None:
            check_folder(options.spill)
        if options.server is not None:
            return _run_remote(options, options.server, target, out)
        start = time.perf_counter()
        photos = options.mask_photos(options.photos())
        known = options.known_things(photo_files(photos)) if options.knows_anything else None
        reading = {"read_s": time.perf_counter() - start}
        model = options.load_model()
        loading = add_timings(reading, model.timings)
        scene = model.reconstruct(photos, fit=options.fit, spill=options.spill)
        calibration = None if known is None else _calibrate(scene, known, target, out)
        shown = options.finish(scene if calibration is None else calibration.scene)
        _report(options, shown, target, out, (lambda: add_timings(loading, model.timings), calibration))
    return 0


def _run_remote(options: Options, url: str, target: "Target", out: ResultStream) -> int:
    """Have a service reconstruct, write the file here, report."""
    from g2vlm.cli.remote import reconstruct

    if options.spill is not None:
        raise InputError("Expected --spill or --server, got both: the service decides where it works.")
    if options.knows_anything or any(getattr(options, name) for name in MASK_FIELDS):
        raise InputError(
            "Expected no masks and nothing known beside --server: use g2vlm metric on the scene it gives."
        )
    start = time.perf_counter()
    scene = options.finish(reconstruct(options, url))
    _report(options, scene, target, out, (lambda: {"service_s": time.perf_counter() - start}, None))
    return 0


def _report(
    options: Options,
    scene: "Scene",
    target: "Target",
    out: ResultStream,
    facts: tuple[Callable[[], dict[str, float]], "Calibration | None"],
) -> None:
    """Write a scene, and tell what it holds, how long it took and what it was corrected by."""
    guessed = [view.name for view in scene.views if not view.focal_measured]
    if guessed:
        say(f"warning: too few points to measure the focal length, so it is a guess: {', '.join(guessed)}")
    write_scene(scene, target)
    out.kept(target.path)
    timings, calibration = facts
    summary = summarize(scene, timings(), [target.path])
    if calibration is not None:
        summary["known"] = calibration.summary()
    if options.json:
        write_json(out, summary)
    else:
        say(format_timings(summary["timings"]))
        out.write(_describe(summary, target.path) + "\n")


def _calibrate(scene: "Scene", known: "KnownThings", target: "Target", out: ResultStream) -> "Calibration":
    """Apply what is known; what the work was for is kept even if that fails."""
    try:
        calibration = scene.calibrated(known)
    except InputError as error:
        write_scene(scene, target)
        out.kept(target.path)
        raise InputError(
            f"{error} The scene is written without it to {target}: a .npz can be corrected with g2vlm metric."
        ) from error
    tell_calibration(calibration)
    return calibration


def _run_long(options: Options, source: str, target: "Target", out: ResultStream) -> int:
    """Reconstruct in pieces, write the file, report."""
    if options.max_views is not None:
        raise InputError("Expected --window or --max_views, got both: a long video keeps all its frames.")
    if options.knows_anything or options.masks_anything:
        raise InputError(
            "Expected --window or known things and masks, got both: those are for scenes of one pass."
        )
    if options.spill is not None:
        raise InputError("Expected --window or --spill, got both: pieces of a long video lie on disk anyway.")
    options.video_options()
    folder = check_folder(options.pieces_folder(target.path))
    model = options.load_model()
    say(f"reading {source} in pieces, kept in {folder}")
    start = time.perf_counter()
    video = reconstruct_in_pieces(
        model, source, target.path, options, fit=options.fit, rate_hz=options.frame_rate
    )
    timings = {**model.timings, "pieces_s": time.perf_counter() - start}
    wanted = LongFilter(options.anchor_first, options.min_confidence, options.max_depth_edge)
    summary = write_long(video, target, options.voxel, wanted)
    out.kept(target.path)
    summary["timings"] = {**timings, **summary["timings"]}
    for joint in summary["weak_joints"]:
        say(
            f"warning: the pieces about frame {joint['frame']} hardly fit each other (deviation "
            f"{joint['deviation']:.2f} of their extent): raise --overlap or --frame_rate"
        )
    if options.json:
        write_json(out, summary)
    else:
        say(format_timings(summary["timings"]))
        out.write(
            f"{summary['frames']} frames in {summary['pieces']} pieces, {summary['loops_closed']} loops "
            f"closed, {summary['points']:,} points\n{target} ({format_bytes(bytes_of(target.path))})\n"
        )
    return 0


def summarize(scene: "Scene", timings: dict[str, float], files: list[Path]) -> dict[str, Any]:
    """What `--json` prints: views, points, bounds, scale, timings and files written."""
    low, high = (corner.tolist() for corner in scene.bounds())
    return {
        "views": [
            {
                "name": view.name,
                "original_size": list(view.original_size),
                "time_s": view.time_s,
                "focal_measured": view.focal_measured,
            }
            for view in scene.views
        ],
        "points": sum(int(view.valid.sum()) for view in scene.views),
        "bounds": {"min": low, "max": high},
        "scale": scene.scale.kind.value,
        "scale_source": scene.scale.source,
        "timings": timings,
        "files": [str(file) for file in files],
    }


def _describe(summary: dict[str, Any], target: Path) -> str:
    low, high = summary["bounds"]["min"], summary["bounds"]["max"]
    extent = " x ".join(f"{b - a:.2f}" for a, b in zip(low, high, strict=True) if math.isfinite(b - a))
    return (
        f"{len(summary['views'])} views, {summary['points']:,} points, extent {extent} ({summary['scale']} "
        f"scale)\n{target} ({format_bytes(bytes_of(target))})"
    )
