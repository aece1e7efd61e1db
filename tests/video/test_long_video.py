"""Long videos: the walk with a loop, resuming, memory, the network as reconstructor."""

import json
import math
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from g2vlm.bench.simulated_walk import SimulatedWalk, WalkOptions
from g2vlm.bench.stitching_report import stitching_report, trajectory_error, walk_video
from g2vlm.errors import InputError, OutputError
from g2vlm.video.frames import FramePreparer
from g2vlm.video.long_video import (
    LongVideo,
    LongVideoOptions,
    MergeOptions,
    reconstruct_long_video,
    windows,
)
from g2vlm.video.pieces import PieceFolder, photos_of
from g2vlm.video.stitching import StitchingStage

EXACT = WalkOptions(
    num_frames=40,
    laps=0.1,
    heading_bias_rad=0.0,
    heading_noise_rad=0.0,
    scale_drift=0.0,
    depth_noise=0.0,
    outlier_share=0.0,
)


def run(world: SimulatedWalk, folder: Path, **parts) -> LongVideo:
    options = parts.pop("options", LongVideoOptions())
    prepare = FramePreparer(width=world.options.width, patch=1)
    pieces = PieceFolder(folder, {"walk": 1})
    reconstruct = parts.pop("reconstruct", world)
    return reconstruct_long_video(world.frames(), reconstruct, prepare, pieces, options, **parts)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_loop_brings_the_error_of_a_long_walk_below_one_percent(seed):
    report = stitching_report(WalkOptions(seed=seed), trace_memory=False)
    assert report.num_frames == 400
    assert report.error_closed < 0.01
    assert report.error_closed < 0.3 * report.error_open
    assert 1 <= report.loops_closed < report.loops_proposed


def test_exact_pieces_become_the_exact_walk(tmp_path):
    world = SimulatedWalk(EXACT)
    video = run(world, tmp_path)
    trajectory = video.trajectory()
    assert video.num_frames == len(trajectory) == 40
    assert trajectory_error(trajectory, world.T_world_camera) < 1e-4
    names = [view.name for view in video.views()]
    assert names == [f"{number:07d}" for number in range(40)]
    # Depth and distance between cameras keep their ratio all along: one unit for the whole video.
    for number, view in list(enumerate(video.views()))[:39]:
        step = np.linalg.norm(trajectory[number + 1, :3, 3] - trajectory[number, :3, 3])
        true = world.T_world_camera[number : number + 2, :3, 3]
        expected = world.true_points(number)[..., 2].mean() / np.linalg.norm(true[1] - true[0])
        assert view.depth.mean() / step == pytest.approx(expected, rel=2e-3)


def test_pieces_remember_which_frames_of_which_video_they_show(tmp_path):
    world = SimulatedWalk(EXACT)
    run(world, tmp_path)
    folder = PieceFolder(tmp_path, {"walk": 1})
    name = sorted(path.stem for path in tmp_path.glob("*.npz"))[0]
    piece = folder.read(name)
    assert {(view.source_path, view.frame_index) for view in piece.views} == {(None, None)}
    views = tuple(replace(view, source_path="/walk.mp4", frame_index=i) for i, view in enumerate(piece.views))
    folder.write(name, replace(piece, views=views))
    read = folder.read(name).views
    assert [(view.source_path, view.frame_index) for view in read] == [
        ("/walk.mp4", i) for i in range(len(views))
    ]
    photos, _ = photos_of(read)
    assert [(photo.path, photo.frame_index) for photo in photos] == [
        (Path("/walk.mp4"), i) for i in range(len(views))
    ]


def test_merged_points_lie_on_the_walls(tmp_path):
    world = SimulatedWalk(replace(EXACT, depth_noise=0.002))
    video = run(world, tmp_path / "pieces")
    count = video.write_ply(tmp_path / "walk.ply", MergeOptions(max_depth_edge=None))
    raw = (tmp_path / "walk.ply").read_bytes().split(b"end_header\n", 1)[1]
    layout = np.dtype([("p", "<f4", 3), ("c", "u1", 3), ("confidence", "<f4")])
    points = np.frombuffer(raw, layout)["p"].astype(np.float64)
    assert len(points) == count < 0.5 * 40 * world.options.height * world.options.width
    # World of the first piece to the true world, from the first camera.
    first = next(video.views())
    unit = first.depth.mean() / world.true_points(0)[..., 2].mean()
    T = first.T_world_camera.astype(np.float64)
    local = (points - T[:3, 3]) @ T[:3, :3] / unit
    true = world.T_world_camera[0]
    walls = local @ true[:3, :3].T + true[:3, 3]
    hall = np.abs(np.abs(walls[:, :, None]) - np.array([10.0, 1.6, 1.4, 7.0, 6.5, 5.0, 2.5, 3.0])).min(
        axis=(1, 2)
    )
    assert np.quantile(hall, 0.95) < 0.08
    assert video.write_ply(tmp_path / "coarse.ply", MergeOptions(voxel=unit)) < count / 4
    few = video.scene(max_views=5)
    assert [view.name for view in few.views] == ["0000000", "0000010", "0000020", "0000029", "0000039"]


class Interrupting:
    """Stops after some pieces, as Ctrl-C does."""

    def __init__(self, world: SimulatedWalk, after: int) -> None:
        self.world, self.left = world, after

    def __call__(self, photos, images):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.world(photos, images)


def test_an_interrupted_run_continues_where_it_stopped(tmp_path):
    world = SimulatedWalk(EXACT)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "a", reconstruct=Interrupting(world, 3))
    assert len(list((tmp_path / "a").glob("piece_*.npz"))) == 3
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "a").glob("piece_*.npz")}
    resumed = run(world, tmp_path / "a", reconstruct=Interrupting(world, 2))
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())
    straight = run(world, tmp_path / "b")
    np.testing.assert_array_equal(resumed.trajectory(), straight.trajectory())
    # A finished run costs no reconstruction at all.
    np.testing.assert_array_equal(
        run(world, tmp_path / "a", reconstruct=Interrupting(world, 0)).trajectory(), straight.trajectory()
    )


def test_a_folder_of_another_run_is_refused_and_damage_named(tmp_path):
    folder = PieceFolder(tmp_path, {"window": 12})
    PieceFolder(tmp_path, {"window": 12})
    with pytest.raises(OutputError, match="window was 12, now 8"):
        PieceFolder(tmp_path, {"window": 8})
    folder.file("piece_0000000_0000003").write_bytes(b"not a zip")
    with pytest.raises(InputError, match="remove that file"):
        folder.read("piece_0000000_0000003")
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(OutputError, match="damaged"):
        PieceFolder(tmp_path, {"window": 12})


def test_pieces_of_other_frames_are_not_taken_for_finished(tmp_path):
    run(SimulatedWalk(EXACT), tmp_path)
    other = SimulatedWalk(replace(EXACT, laps=0.2))
    with pytest.raises(OutputError, match="shows other frames"):
        run(other, tmp_path)


def test_pieces_survive_the_disk(tmp_path):
    world = SimulatedWalk(EXACT)
    video = run(world, tmp_path)
    piece = video.folder.read(video.names[1])
    assert piece.frames == tuple(range(8, 20))
    assert piece.views[0].time_s == pytest.approx(0.8)
    photos, images = photos_of(piece.views)
    again = FramePreparer(width=world.options.width, patch=1)(list(world.frames())[8:20])
    np.testing.assert_array_equal(images.pixels.numpy(), again.pixels.numpy())
    assert [photo.name for photo in photos] == [view.name for view in piece.views]
    assert json.loads((tmp_path / "settings.json").read_text()) == {"version": 1, "walk": 1}


def test_windows_cover_all_frames_with_their_overlap():
    frames = list(SimulatedWalk(EXACT).frames())
    for count in (1, 11, 12, 13, 20, 21, 40):
        found = list(windows(iter(frames[:count]), 12, 4))
        covered = [start + k for start, photos in found for k in range(len(photos))]
        assert sorted(set(covered)) == list(range(count))
        for (start, photos), (following, _) in pairwise(found):
            assert start + len(photos) - following == 4
        assert [photo.name for start, photos in found for photo in photos] == [
            frames[number].name for number in covered
        ]


def test_memory_does_not_grow_with_the_length(tmp_path):
    def peak(num_frames: int) -> int:
        lap = 0.06 * num_frames / 24
        world = SimulatedWalk(replace(EXACT, num_frames=num_frames, laps=lap, height=48, width=64))
        tracemalloc.start()
        video = walk_video(world, tmp_path / str(num_frames), LongVideoOptions(loops=None))
        video.write_ply(tmp_path / "walk.ply")
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    # The lower of two runs: the first may meet allocations that happen once in a process.
    longer, shorter = min(peak(52), peak(52)), min(peak(20), peak(20))
    assert longer < 1.1 * shorter


def test_progress_is_told_and_mistakes_are_named(tmp_path):
    world = SimulatedWalk(EXACT)
    steps = []
    run(world, tmp_path, on_progress=lambda stage, done, total: steps.append((stage, done, total)))
    assert (StitchingStage.RECONSTRUCT, 5, None) in steps
    assert (StitchingStage.ALIGN, 5, 5) in steps
    with pytest.raises(InputError, match="half of the window"):
        LongVideoOptions(window=8, overlap=5)
    with pytest.raises(InputError, match="at least one frame"):
        reconstruct_long_video(
            iter([]),
            world,
            FramePreparer(width=32, patch=1),
            PieceFolder(tmp_path / "x", {}),
            LongVideoOptions(),
        )


def test_one_window_is_enough_for_a_short_video(tmp_path):
    world = SimulatedWalk(replace(EXACT, num_frames=5, laps=0.02))
    video = run(world, tmp_path)
    assert len(video.names) == 1
    assert trajectory_error(video.trajectory(), world.T_world_camera) < 1e-4
    assert math.isclose(float(video.stitching.world_from_piece.scale[0]), 1.0)


def test_joints_that_hardly_fit_are_told(tmp_path):
    class Torn(SimulatedWalk):
        """Noise beyond use in every piece from frame 20 on."""

        def __call__(self, photos, images):
            spoiled = replace(self.options, depth_noise=1.0 if int(photos[-1].name) >= 20 else 0.0)
            return SimulatedWalk(spoiled)(photos, images)

    good = run(SimulatedWalk(EXACT), tmp_path / "good")
    assert good.weak_joints() == ()
    assert len(good.stitching.deviations) == len(good.names) - 1
    torn = run(Torn(EXACT), tmp_path / "torn", options=LongVideoOptions(loops=None))
    assert [frame for frame, _ in torn.weak_joints()] == [16, 24, 32]
