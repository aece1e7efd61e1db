"""Published benchmarks of geometry, on miniatures of their layouts: the truth itself scores perfectly."""

import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exact_room import ExactView, exact_views
from PIL import Image
from scipy.spatial.transform import Rotation

from g2vlm.data.prepare.layout import ListedFrame
from g2vlm.errors import InputError
from g2vlm.evaluation.benchmarks.geometry import depths, relative_poses, seven_scenes, surfaces, trajectories
from g2vlm.evaluation.benchmarks.geometry.sequences import Selection, SequencesBenchmark
from g2vlm.evaluation.geometry import SceneTruth, compare
from g2vlm.evaluation.prediction import Prediction
from g2vlm.geometry.cameras import unproject

sys.path.insert(0, str(Path(__file__).parents[1] / "data" / "prepare"))
import miniatures
import miniatures_indoor
import miniatures_outdoor


def save_depth(depth: np.ndarray, path: Path, per_metre: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((depth * per_metre).round().astype(np.uint16)).save(path)


def save_picture(view: ExactView, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    view.image.save(path)


def make_nyu(root: Path) -> None:
    for k, view in enumerate(exact_views(2)):
        save_picture(view, root / "val" / "nyu_images" / f"{k}.png")
        (root / "val" / "nyu_depths").mkdir(exist_ok=True)
        np.save(root / "val" / "nyu_depths" / f"{k}.npy", view.depth.astype(np.float32))


def make_bonn(root: Path) -> None:
    place, rows = root / "rgbd_bonn_crowd2", []
    for k, view in enumerate(exact_views()):
        save_picture(view, place / "rgb_110" / f"{k}.png")
        save_depth(view.depth, place / "depth_110" / f"{k}.png", 5000)
        T = view.T_world_camera
        rows.append([k, *T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat()])
    np.savetxt(place / "groundtruth_110.txt", rows)


def make_kitti(root: Path) -> None:
    for k, view in enumerate(exact_views()):
        drive = "2011_09_26_drive_0002_sync_02"
        save_picture(view, root / "image_gathered" / drive / f"{k:010d}.png")
        save_depth(view.depth, root / "groundtruth_depth_gathered" / drive / f"{k:010d}.png", 256)


def make_sintel(root: Path) -> None:
    tag = struct.pack("<f", 202021.25)
    for k, view in enumerate(exact_views(), start=1):
        name, training = f"frame_{k:04d}", root / "training"
        save_picture(view, training / "final" / "alley_2" / f"{name}.png")
        for kind in ("depth", "camdata_left"):
            (training / kind / "alley_2").mkdir(parents=True, exist_ok=True)
        size = struct.pack("<ii", *view.size)
        depth = tag + size + view.depth.astype("<f4").tobytes()
        (training / "depth" / "alley_2" / f"{name}.dpt").write_bytes(depth)
        numbers = [*view.K.ravel(), *np.linalg.inv(view.T_world_camera)[:3].ravel()]
        camera = tag + np.array(numbers, "<f8").tobytes()
        (training / "camdata_left" / "alley_2" / f"{name}.cam").write_bytes(camera)


def make_seven_scenes(root: Path) -> None:
    place = root / "chess" / "seq-02"
    (root / "chess").mkdir(parents=True)
    (root / "chess" / "TestSplit.txt").write_text("sequence2\n")
    for k, view in enumerate(exact_views(3)):
        stem = f"frame-{seven_scenes.FRAME_STEP * k:06d}"
        save_picture(view, place / f"{stem}.color.png")
        save_depth(view.depth, place / f"{stem}.depth.proj.png", 1000)
        np.savetxt(place / f"{stem}.pose.txt", view.T_world_camera)


def make_scannet_1500(root: Path) -> None:
    first, second = exact_views(2)
    scan = root / "scans_test" / "scene0707_00"
    for number, view in ((15, first), (585, second)):
        save_picture(view, scan / "color" / f"{number}.jpg")
    (scan / "intrinsic").mkdir()
    K = np.eye(4)
    K[:3, :3] = first.K
    np.savetxt(scan / "intrinsic" / "intrinsic_color.txt", K)
    pose = np.linalg.inv(second.T_world_camera) @ first.T_world_camera
    np.savez(
        root / "test.npz",
        name=np.array([[707, 0, 15, 585]], np.uint16),
        rel_pose=pose[None, :3].reshape(1, 12),
    )


Build = Callable[..., SequencesBenchmark]
MADE: dict[str, tuple[Callable[[Path], object], Build]] = {
    "nyu": (make_nyu, depths.nyu),
    "bonn": (make_bonn, depths.bonn),
    "kitti_depth": (make_kitti, depths.kitti),
    "sintel_videos": (make_sintel, depths.sintel_videos),
    "seven_scenes": (make_seven_scenes, seven_scenes.seven_scenes),
    "scannet_1500": (make_scannet_1500, relative_poses.scannet_1500),
    "nrgbd": (miniatures_indoor.nrgbd, surfaces.nrgbd),
    "eth3d": (miniatures_outdoor.eth3d, surfaces.eth3d),
    "dtu": (miniatures_outdoor.dtu, surfaces.dtu),
    "co3d": (miniatures_outdoor.co3d, relative_poses.co3d),
    "realestate10k": (miniatures_outdoor.realestate10k, relative_poses.realestate10k),
    "tum": (miniatures.tum, trajectories.tum),
    "scannet": (miniatures.scannet, trajectories.scannet),
}


@pytest.fixture(autouse=True)
def short_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Miniatures have few frames."""
    monkeypatch.setattr(relative_poses, "LEAST_FRAMES", 2)
    monkeypatch.setattr(relative_poses, "CATEGORIES", ("apple", "bottle", "hydrant", "teddybear"))
    monkeypatch.setattr(trajectories, "FRAME_STEP", 1)


def perfect(truth: SceneTruth, sizes: tuple[tuple[int, int], ...], scale: float) -> Prediction:
    """What a perfect method says, in another unit; its focal length is known only where the truth's is."""
    poses = None if truth.T_world_camera is None else truth.T_world_camera.clone()
    if poses is not None:
        poses[:, :3, 3] *= scale
    points = None
    if truth.depth is not None and truth.K is not None:
        points = (unproject(truth.depth, truth.K) * scale).numpy()
    depth = None if truth.depth is None else (truth.depth * scale).numpy()
    return Prediction(
        original_sizes=sizes,
        T_world_camera=None if poses is None else poses.numpy(),
        K=None if truth.K is None else truth.K.numpy(),
        depth=depth,
        points_camera=points,
    )


@pytest.mark.parametrize("name", MADE)
def test_the_truth_scores_perfectly_on_a_miniature(name: str, tmp_path: Path) -> None:
    make, build = MADE[name]
    make(tmp_path)
    benchmark = build(tmp_path)
    # Only the selection is opened up: miniatures have as many frames as the protocols skip.
    if name not in ("seven_scenes", "scannet_1500"):
        benchmark = replace(benchmark, selection=Selection())
    scene = benchmark.scenes()[0]
    trial = benchmark.load(scene)
    assert trial.truth is not None
    sizes = tuple(photo.size for photo in trial.photos)
    scores = compare(perfect(trial.truth, sizes, 3.0), trial.truth, benchmark.geometry_options)
    assert scores.num_views == len(trial.photos) >= 1
    if trial.truth.depth is not None:
        assert scores.abs_rel == pytest.approx(0, abs=1e-5)
        assert all(found.abs_rel < 1e-3 for found in scores.aligned.values())
    if trial.truth.T_world_camera is not None and len(trial.photos) > 1:
        assert max(scores.rotation_deg) < 0.1
        assert max(scores.translation_deg) < 0.1
    if scores.ate is not None:
        assert scores.ate < 1e-3
    if scores.accuracy is not None:
        assert scores.accuracy < 1e-2
        assert scores.completeness is not None
        assert scores.completeness < 1e-2
    assert benchmark.settings["sequences"] == list(benchmark.scenes())
    assert len(build(tmp_path, 1).scenes()) == 1


WHAT = {
    "nyu": (True, False, 1), "bonn": (True, False, 4), "kitti_depth": (True, False, 4),
    "sintel_videos": (True, True, 4), "seven_scenes": (True, True, 1), "scannet_1500": (False, True, 2),
    "co3d": (False, True, None), "realestate10k": (False, True, None), "tum": (True, True, None),
}  # fmt: skip


@pytest.mark.parametrize("name", WHAT)
def test_each_benchmark_knows_what_it_measures(name: str, tmp_path: Path) -> None:
    make, build = MADE[name]
    make(tmp_path)
    benchmark = build(tmp_path)
    trial = benchmark.load(benchmark.scenes()[0])
    has_depth, has_poses, count = WHAT[name]
    assert trial.truth is not None
    assert (trial.truth.depth is not None) == has_depth
    assert (trial.truth.T_world_camera is not None) == has_poses
    assert count is None or len(trial.photos) == count


def test_poses_of_scannet_1500_take_points_from_the_first_camera_to_the_second(tmp_path: Path) -> None:
    make_scannet_1500(tmp_path)
    benchmark = relative_poses.scannet_1500(tmp_path)
    truth = benchmark.load(benchmark.scenes()[0]).truth
    assert truth is not None
    assert truth.T_world_camera is not None
    first, second = exact_views(2)
    relative = np.linalg.inv(first.T_world_camera) @ second.T_world_camera
    np.testing.assert_allclose(truth.T_world_camera[1], relative, atol=1e-9)


def test_frames_are_drawn_by_scene_and_seed() -> None:
    frames = [ListedFrame(str(k), Path(f"{k}.png"), np.eye(3), np.eye(4)) for k in range(100)]

    def chosen(selection: Selection, scene: str) -> list[str]:
        return [frame.frame for frame in selection(scene, frames)]

    drawn = Selection(most=10, drawn=True)
    assert chosen(drawn, "a") == chosen(drawn, "a")
    assert chosen(drawn, "a") != chosen(drawn, "b")
    assert chosen(drawn, "a") != chosen(replace(drawn, seed=1), "a")
    assert len(set(chosen(drawn, "a"))) == 10
    assert chosen(Selection(every=40), "a") == ["0", "40", "80"]
    assert chosen(Selection(every=3, most=2), "a") == ["0", "3"]


@pytest.mark.parametrize("name", MADE)
def test_other_folders_are_refused_with_the_layout(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Expected"):
        MADE[name][1](tmp_path)


def test_damaged_parts_are_named(tmp_path: Path) -> None:
    make_bonn(tmp_path)
    (tmp_path / "rgbd_bonn_crowd2" / "depth_110" / "0.png").unlink()
    with pytest.raises(InputError, match="as many depths"):
        depths.bonn(tmp_path).load("crowd2")
    np.savez(tmp_path / "test.npz", name=np.zeros((2, 4)), rel_pose=np.zeros((3, 12)))
    with pytest.raises(InputError, match="3 poses"):
        relative_poses.scannet_1500(tmp_path)
    (tmp_path / "chess").mkdir()
    (tmp_path / "chess" / "TestSplit.txt").write_text("none")
    with pytest.raises(InputError, match="sequence1"):
        seven_scenes.seven_scenes(tmp_path)


def test_scale_and_shift_forgive_an_offset_in_videos(tmp_path: Path) -> None:
    make_kitti(tmp_path)
    benchmark = depths.kitti(tmp_path)
    trial = benchmark.load(benchmark.scenes()[0])
    assert trial.truth is not None
    assert trial.truth.depth is not None
    said = Prediction(
        original_sizes=tuple(photo.size for photo in trial.photos),
        depth=(0.5 * trial.truth.depth + 1).numpy().astype(np.float32),
    )
    scores = compare(said, trial.truth, benchmark.geometry_options)
    assert scores.aligned["scale_shift"].abs_rel == pytest.approx(0, abs=1e-4)
    assert scores.aligned["scale"].abs_rel > 0.01
    assert torch.isfinite(torch.tensor(scores.aligned["scale"].abs_rel))
