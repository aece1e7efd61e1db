"""Videos of any length: pieces of a few frames with overlaps, reconstructed one by one and stitched."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from g2vlm.errors import InputError
from g2vlm.export.ply_stream import write_ply_pieces
from g2vlm.geometry.alignment import Similarity
from g2vlm.geometry.pose_graph import stack_similarities, take_similarity
from g2vlm.inference.assembly import NETWORK_SCALE
from g2vlm.inputs.decode import Photo
from g2vlm.inputs.video import evenly_spread
from g2vlm.scene.cloud import PointCloud
from g2vlm.scene.merging import VoxelMerger, blend_views
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View
from g2vlm.video.frames import FramePreparer
from g2vlm.video.loops import LoopOptions
from g2vlm.video.pieces import Piece, PieceFolder
from g2vlm.video.reconstructor import Reconstructor
from g2vlm.video.stitching import Stitcher, Stitching, StitchingProgress, StitchingStage, no_progress


@dataclass(frozen=True)
class LongVideoOptions:
    """How a long video is cut and put together."""

    window: int = 12
    """Frames reconstructed together. The released weights degrade from 16 views on."""
    overlap: int = 4
    """Frames that neighbouring pieces share, at most half of the window."""
    loops: LoopOptions | None = field(default_factory=LoopOptions)
    """How places seen again are found and checked; None leaves loops open."""

    def __post_init__(self) -> None:
        if not 1 <= self.overlap <= self.window // 2:
            raise InputError(
                f"Expected an overlap from 1 to half of the window, got {self.overlap} frames of "
                f"{self.window}."
            )


@dataclass(frozen=True)
class MergeOptions:
    """Which points a merged cloud keeps."""

    voxel: float | None = None
    """Side of the cubes that keep one point each, in the unit of the scene; None: what one pixel covers at
    the median depth of the first piece."""
    min_confidence: float = 0.0
    """Least confidence of a point, 0 to 1."""
    max_depth_edge: float | None = 0.05
    """Points whose neighbours span more than this share of their depth are left out; None keeps them."""


def reconstruct_long_video(
    frames: Iterator[Photo],
    reconstruct: Reconstructor,
    prepare: FramePreparer,
    folder: PieceFolder,
    options: LongVideoOptions,
    on_progress: StitchingProgress = no_progress,
) -> "LongVideo":
    """Reconstruct a video of any length piece by piece, and stitch the pieces.

    Each piece is on disk before the next is begun: after an interruption the same call continues where it
    stopped. Memory does not depend on the number of frames, apart from a few kilobytes for each.

    Args:
        frames: in order, from the beginning, also when continuing.
        reconstruct: the network, or a stand-in.
        prepare: brings frames to the network's size.
        folder: for the pieces, one for each video and choice of options.
        options: windows and loops.
        on_progress: told about every step.

    Raises:
        InputError: no frames, or neighbours without common points that both trust.
        OutputError: the folder cannot be written.
    """
    names = [
        _finish_piece(start, photos, reconstruct, prepare, folder)
        for start, photos in _counted(windows(frames, options.window, options.overlap), on_progress)
    ]
    if not names:
        raise InputError("Expected a video of at least one frame, got none.")
    stitch = Stitcher(folder, reconstruct, options.window, options.loops, on_progress)
    return LongVideo(folder, tuple(names), stitch(names))


def settings_of(source: object, options: LongVideoOptions, **model: object) -> dict[str, object]:
    """What the pieces of a video depend on, as `PieceFolder` records it.

    Args:
        source: a file or folder is recorded with its size and time of change; anything else by its kind.
        options: windows.
        model: the checkpoint and everything that changes its results.
    """
    settings: dict[str, object] = {"window": options.window, "overlap": options.overlap, **model}
    if isinstance(source, str | Path):
        path = Path(source).expanduser().resolve()
        settings["source"] = str(path)
        if path.is_file():
            settings["source_bytes"] = path.stat().st_size
            settings["source_changed_ns"] = path.stat().st_mtime_ns
    else:
        settings["source"] = type(source).__name__
    return settings


def windows(frames: Iterator[Photo], window: int, overlap: int) -> Iterator[tuple[int, list[Photo]]]:
    """Cut frames into windows that share `overlap` frames; the last may be shorter.

    Yields:
        The number of a window's first frame, and its frames.
    """
    held: list[Photo] = []
    start = num_new = 0
    for photo in frames:
        held.append(photo)
        num_new += 1
        if len(held) == window:
            yield start, held
            held = held[window - overlap :]
            start, num_new = start + window - overlap, 0
    if num_new:
        yield start, held


def _counted(
    pieces: Iterator[tuple[int, list[Photo]]], on_progress: StitchingProgress
) -> Iterator[tuple[int, list[Photo]]]:
    for done, piece in enumerate(pieces):
        on_progress(StitchingStage.RECONSTRUCT, done, None)
        yield piece
        on_progress(StitchingStage.RECONSTRUCT, done + 1, None)


def _finish_piece(
    start: int, photos: list[Photo], reconstruct: Reconstructor, prepare: FramePreparer, folder: PieceFolder
) -> str:
    """Reconstruct a window unless it is on disk already; its name."""
    prepare.begin(photos[0])
    name = f"piece_{start:07d}_{start + len(photos) - 1:07d}"
    if folder.holds(name):
        pixels = prepare(photos[:1]).pixels[0]
        folder.require_picture(name, (pixels.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())
    else:
        views, descriptors = reconstruct(tuple(photos), prepare(photos))
        folder.write(name, Piece(tuple(range(start, start + len(photos))), views, descriptors))
    return name


@dataclass(frozen=True, eq=False)
class LongVideo:
    """A long reconstruction: pieces on disk and where they lie in one world."""

    folder: PieceFolder
    names: tuple[str, ...]
    """Pieces in order; neighbours share frames."""
    stitching: Stitching

    def views(self) -> Iterator[View]:
        """All frames in order, each once, in the frame and unit of the first piece.

        In an overlap the view passes from one piece into the other along its frames. One piece is in memory
        at a time.
        """
        held: dict[int, View] = {}
        for index in range(len(self.names)):
            piece = self._placed(index)
            following = self._frames_of(index + 1)
            num_shared = len(held)
            for place, (frame, view) in enumerate(zip(piece.frames, piece.views, strict=True), start=1):
                if frame in held:
                    view = blend_views(held.pop(frame), view, place / (num_shared + 1))
                if frame in following:
                    held[frame] = view
                else:
                    yield view

    def weak_joints(self, limit: float = 0.15) -> tuple[tuple[int, float], ...]:
        """Where neighbouring pieces hardly fit: first frame of the later piece, and the deviation."""
        return tuple(
            (self._frames_of(index).start, deviation)
            for index, deviation in enumerate(self.stitching.deviations, start=1)
            if deviation > limit
        )

    def _frames_of(self, index: int) -> range:
        if index >= len(self.names):
            return range(0)
        first, last = self.names[index].split("_")[1:]
        return range(int(first), int(last) + 1)

    def _placed(self, index: int) -> Piece:
        piece = self.folder.read(self.names[index])
        world_from_piece = take_similarity(self.stitching.world_from_piece, index)
        scene = Scene(piece.views, NETWORK_SCALE).transformed(world_from_piece)
        return Piece(piece.frames, scene.views, piece.descriptors)

    def trajectory(self) -> Float64[np.ndarray, "frames 4 4"]:
        """T_world_camera of every frame."""
        return np.stack([view.T_world_camera.astype(np.float64) for view in self.views()])

    @property
    def num_frames(self) -> int:
        """Frames of the video."""
        return self._frames_of(len(self.names) - 1).stop

    def anchored(self) -> "LongVideo":
        """The same video with the camera of the first frame as its world, in the same unit."""
        T_world_first = torch.from_numpy(next(self.views()).T_world_camera.astype(np.float64))
        first_from_world = Similarity(
            scale=torch.ones((), dtype=torch.float64), R=T_world_first[:3, :3], t=T_world_first[:3, 3]
        ).inverse()
        stitching = self.stitching
        placed = [
            first_from_world.compose(take_similarity(stitching.world_from_piece, index))
            for index in range(len(self.names))
        ]
        return replace(self, stitching=replace(stitching, world_from_piece=stack_similarities(placed)))

    def scene(self, max_views: int | None = None) -> Scene:
        """Some or all frames as a scene in memory, evenly spread."""
        chosen = set(evenly_spread(self.num_frames, max_views or self.num_frames))
        views = tuple(view for number, view in enumerate(self.views()) if number in chosen)
        return Scene(views, NETWORK_SCALE)

    def write_ply(
        self,
        path: str | os.PathLike[str],
        options: MergeOptions | None = None,
        on_progress: StitchingProgress = no_progress,
    ) -> int:
        """Merge the points of all frames into one cloud and write it, in constant memory.

        Args:
            path: where to.
            options: which points are kept.
            on_progress: told about every frame.

        Returns:
            The number of points.

        Raises:
            OutputError: no points left, or a place that cannot be written.
        """
        options = options or MergeOptions()
        voxel = options.voxel or self.pixel_size()
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with VoxelMerger(voxel, self.folder.path) as merger:
            for number, view in enumerate(self.views(), start=1):
                merger.add(_points(view, number - 1, options))
                on_progress(StitchingStage.MERGE, number, self.num_frames)
            comments = (
                "axes OpenCV: x right, y down, z forward",
                f"scale {NETWORK_SCALE.kind.value}: {NETWORK_SCALE.source}",
            )
            return write_ply_pieces(merger.clouds(), target, comments)

    def pixel_size(self) -> float:
        """What one pixel covers at the median depth of the first piece, in the unit of the scene."""
        sizes = [
            np.median(view.depth[view.valid]) / float(np.sqrt(view.K[0, 0] * view.K[1, 1]))
            for view in self._placed(0).views
            if view.valid.any()
        ]
        if not sizes:
            raise InputError("Expected valid points in the first piece, found none.")
        return float(np.median(sizes))


def _points(view: View, number: int, options: MergeOptions) -> PointCloud:
    scene = Scene((view,), NETWORK_SCALE).filtered(
        min_confidence=options.min_confidence, max_depth_edge=options.max_depth_edge
    )
    cloud = scene.point_cloud()
    return PointCloud(
        cloud.points, cloud.colors, cloud.confidence, np.full(len(cloud), number, dtype=np.int32)
    )
