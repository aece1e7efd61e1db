"""How well the stitching of long videos works, measured on a walk whose truth is known."""

import tempfile
import time
import tracemalloc
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from g2vlm.bench.simulated_walk import SimulatedWalk, WalkOptions
from g2vlm.geometry.alignment import umeyama
from g2vlm.video.frames import FramePreparer
from g2vlm.video.long_video import LongVideo, LongVideoOptions, reconstruct_long_video
from g2vlm.video.pieces import PieceFolder


@dataclass(frozen=True)
class StitchingReport:
    """Figures of one walk."""

    num_frames: int
    path_m: float
    """Length of the true path."""
    error_closed: float
    """Root mean square error of the camera positions after Sim(3) alignment with the truth, as a share of
    the path, with loops closed."""
    error_open: float
    """The same without loop closure."""
    loops_proposed: int
    """Pairs of frames that looked alike and were checked."""
    loops_closed: int
    """Pairs that hold in the end."""
    peak_bytes: int
    """Most memory in numpy arrays and Python objects at once, the merged point cloud included."""
    points: int
    """Points of the merged cloud."""
    seconds: float
    """Of everything: stand-in, stitching with and without loops, merging."""


def stitching_report(
    walk: WalkOptions | None = None, options: LongVideoOptions | None = None, *, trace_memory: bool = True
) -> StitchingReport:
    """Walk, spoil, stitch with and without loop closure, merge, and compare with the truth.

    Args:
        walk: the true walk and its errors.
        options: windows and loops.
        trace_memory: measure `peak_bytes` (0 otherwise); it makes everything slower.
    """
    world = SimulatedWalk(walk or WalkOptions())
    options = options or LongVideoOptions()
    start = time.perf_counter()
    if trace_memory:
        tracemalloc.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            closed = walk_video(world, Path(folder), options)
            points = closed.write_ply(Path(folder) / "walk.ply")
            # The same pieces; only the joint reconstructions of loops are left out.
            chained = replace(closed.stitching, world_from_piece=closed.stitching.chained)
            errors = [
                trajectory_error(video.trajectory(), world.T_world_camera) / world.length_m
                for video in (closed, replace(closed, stitching=chained))
            ]
        peak = tracemalloc.get_traced_memory()[1] if trace_memory else 0
    finally:
        if trace_memory:
            tracemalloc.stop()
    return StitchingReport(
        num_frames=world.options.num_frames,
        path_m=world.length_m,
        error_closed=errors[0],
        error_open=errors[1],
        loops_proposed=len(closed.stitching.loops),
        loops_closed=closed.stitching.num_closed,
        peak_bytes=peak,
        points=points,
        seconds=time.perf_counter() - start,
    )


def walk_video(world: SimulatedWalk, folder: Path, options: LongVideoOptions) -> LongVideo:
    """Reconstruct a simulated walk in a folder."""
    # One-pixel patches: the frames keep their size.
    prepare = FramePreparer(width=world.options.width, patch=1)
    settings = {"walk": asdict(world.options), "window": options.window, "overlap": options.overlap}
    pieces = PieceFolder(folder, settings)
    return reconstruct_long_video(world.frames(), world, prepare, pieces, options)


def trajectory_error(
    estimated: Float[np.ndarray, "frames 4 4"], true: Float[np.ndarray, "frames 4 4"]
) -> float:
    """Root mean square distance of camera centres after the best Sim(3) alignment, in the unit of `true`."""
    found, expected = (torch.from_numpy(poses[:, :3, 3].astype(np.float64)) for poses in (estimated, true))
    moved = umeyama(found, expected).apply(found)
    return float((moved - expected).square().sum(dim=-1).mean().sqrt())
