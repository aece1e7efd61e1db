"""`g2vlm recon --window`: videos of any length, in pieces that survive an interruption."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from g2vlm.cli.shared.scene_options import write_scene
from g2vlm.errors import InputError

if TYPE_CHECKING:
    from g2vlm.inputs.geometric import Fit
    from g2vlm.pipeline import Model
    from g2vlm.scene.formats import Target
    from g2vlm.video.long_video import LongVideo, LongVideoOptions
    from g2vlm.video.stitching import StitchingProgress


@dataclass(frozen=True, kw_only=True)
class LongOptions:
    """How a video that is too long for one pass is cut into pieces."""

    window: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Reconstruct in pieces of this many frames and stitch them: for videos of any length. 12 is a good
    choice. Of a video, --frame_rate frames per second are taken."""
    overlap: int = 4
    """Frames that neighbouring pieces share, at most half of --window."""
    close_loops: bool = True
    """Recognise places seen again and spread the drift between."""
    voxel: Annotated[float | None, tyro.conf.arg(metavar="NUMBER")] = None
    """Keep one point per cube of this side; without it, what one pixel covers at the median depth."""
    pieces: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Where pieces are kept; the same command continues there after an interruption. Without it: beside the
    result, its name followed by _pieces."""

    def video_options(self) -> "LongVideoOptions":
        """As the library takes them.

        Raises:
            InputError: window and overlap do not fit each other.
        """
        from g2vlm.video.long_video import LongVideoOptions
        from g2vlm.video.loops import LoopOptions

        if self.window is None:
            raise InputError("Expected --window for a long reconstruction.")
        loops = LoopOptions() if self.close_loops else None
        return LongVideoOptions(window=self.window, overlap=self.overlap, loops=loops)

    def pieces_folder(self, target: Path) -> Path:
        """Where the pieces of a result go."""
        return self.pieces or target.with_name(f"{target.stem}_pieces")


@dataclass(frozen=True)
class LongFilter:
    """Which points are written, and in which world."""

    anchor_first: bool
    min_confidence: float | None
    max_depth_edge: float | None


def reconstruct_in_pieces(
    model: "Model", source: str, target: Path, long: LongOptions, *, fit: "Fit", rate_hz: float
) -> "LongVideo":
    """Reconstruct, showing progress."""
    from g2vlm.inputs.video import is_video

    with stage_bars() as on_progress:
        return model.reconstruct_long(
            source,
            long.pieces_folder(target),
            long.video_options(),
            fit=fit,
            rate_hz=rate_hz if is_video(Path(source).expanduser()) else None,
            on_progress=on_progress,
        )


def write_long(
    video: "LongVideo", target: "Target", voxel: float | None, wanted: LongFilter
) -> dict[str, Any]:
    """Write a point cloud in constant memory, or any other format through a scene in memory.

    Returns:
        What `--json` prints about it.
    """
    from g2vlm.video.long_video import MergeOptions

    start = time.perf_counter()
    video = video.anchored() if wanted.anchor_first else video
    if target.format.kind == "ply":
        options = MergeOptions(voxel, wanted.min_confidence or 0.0, wanted.max_depth_edge)
        with stage_bars() as on_progress:
            points = video.write_ply(target.path, options, on_progress)
    else:
        scene = video.scene().filtered(
            min_confidence=wanted.min_confidence, max_depth_edge=wanted.max_depth_edge
        )
        points = scene.num_points
        write_scene(scene, target)
    return {
        "frames": video.num_frames,
        "pieces": len(video.names),
        "loops_checked": len(video.stitching.loops),
        "loops_closed": video.stitching.num_closed,
        "weak_joints": [{"frame": frame, "deviation": value} for frame, value in video.weak_joints()],
        "points": points,
        "scale": "relative",
        "timings": {"merge_s": time.perf_counter() - start},
        "files": [str(target)],
        "pieces_folder": str(video.folder.path),
    }


@contextmanager
def stage_bars() -> "Iterator[StitchingProgress]":
    """One line on stderr for each stage; silent where stderr is not a terminal."""
    from g2vlm.video.stitching import StitchingStage, no_progress

    if not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars = {}

        def advance(stage: StitchingStage, done: int, total: int | None) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage.value, total=total)
            progress.update(bars[stage], completed=done, total=total)

        yield advance
