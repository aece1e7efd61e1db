"""`g2vlm eval frames`: groups that overlap, classical methods that work, figures as other code finds them."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from textured_room import film, write_frames

from g2vlm.cli.main import main
from g2vlm.data.prepare.layout import ListedFrame
from g2vlm.errors import InputError, MissingExtraError
from g2vlm.evaluation.benchmarks.frames import FramesBenchmark
from g2vlm.evaluation.geometry import GeometryOptions, compare
from g2vlm.evaluation.grouping import GroupOptions, choose_groups
from g2vlm.evaluation.metrics.poses import auc_at
from g2vlm.evaluation.posed_frames import DepthLimits, find_frame_sets, trial_of
from g2vlm.evaluation.predictors import colmap
from g2vlm.evaluation.predictors.classical import Classical
from g2vlm.evaluation.predictors.colmap import Colmap
from g2vlm.evaluation.predictors.interface import Views
from g2vlm.evaluation.predictors.nothing import Nothing
from g2vlm.evaluation.runner import RunOptions, measure

REAL = Path(__file__).parents[3] / "shared" / "real"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("frames") / "room", film(), groups=[[0, 1, 2], [2, 3, 5]])


@pytest.fixture
def views(room: Path) -> Views:
    trial = FramesBenchmark(room, GroupOptions(3)).load("room/0000")
    assert trial.truth is not None
    assert trial.truth.K is not None
    return Views("room/0000", trial.photos, trial.truth.K.double().numpy())


def test_groups_are_the_sets_own_or_chosen_by_overlap(room: Path) -> None:
    listed = FramesBenchmark(room, GroupOptions(3))
    assert listed.scenes() == ["room/0000", "room/0001"]
    chosen = FramesBenchmark(room, GroupOptions(2, num_groups=2), own_groups=False)
    assert len(chosen.scenes()) == 2
    assert chosen.settings["groups"] != listed.settings["groups"]
    trial = chosen.load(chosen.scenes()[0])
    assert len(trial.photos) == 2
    assert trial.part == "room"


def test_chosen_groups_see_each_other_and_depend_on_the_seed_only(room: Path) -> None:
    frames = find_frame_sets(room)[0].frames
    first = choose_groups(frames, GroupOptions(2, 6, seed=1), DepthLimits())
    assert first == choose_groups(frames, GroupOptions(2, 6, seed=1), DepthLimits())
    assert first != choose_groups(frames, GroupOptions(2, 6, seed=2), DepthLimits())
    turned = [
        ListedFrame(f.frame, f.image, f.K, f.T_world_camera @ np.diag([-1.0, 1, -1, 1]), depth=f.depth)
        for f in frames
    ]
    mixed = [*frames[:3], *turned[3:]]
    for group in choose_groups(mixed, GroupOptions(2, 20, most_overlap=1.0), DepthLimits()):
        assert len({k < 3 for k in group}) == 1, "frames back to back"
    assert choose_groups(frames, GroupOptions(2, least_overlap=0.999), DepthLimits()) == ()


def test_without_depth_cameras_alone_tell_who_sees_whom(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "poses", film(), depth=False)
    benchmark = FramesBenchmark(folder, GroupOptions(3, num_groups=2))
    trial = benchmark.load(benchmark.scenes()[0])
    assert trial.truth is not None
    assert trial.truth.depth is None
    scores = compare(Nothing().reconstruct(Views("x", trial.photos)), trial.truth)
    assert scores.abs_rel is None
    assert len(scores.rotation_deg) == 3


def test_sift_finds_the_poses_of_a_speckled_room(views: Views, room: Path) -> None:
    truth = FramesBenchmark(room, GroupOptions(3)).load("room/0000").truth
    scores = compare(Classical().reconstruct(views), truth)
    assert max(scores.rotation_deg) < 2
    assert max(scores.translation_deg) < 8
    assert scores.ate is None
    blank = Views("x", tuple(photo.point(lambda _: 128) for photo in views.photos), views.K)
    lost = compare(Classical().reconstruct(blank), truth)
    assert lost.rotation_deg == lost.translation_deg == (180.0,) * 3
    with pytest.raises(InputError, match="known intrinsics"):
        Classical().reconstruct(Views("x", views.photos))


def test_colmap_is_told_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colmap.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="colmap"):
        Colmap()


@pytest.mark.skipif(importlib.util.find_spec("pycolmap") is None, reason="needs pycolmap")
def test_colmap_says_nan_for_what_it_does_not_find(views: Views) -> None:
    poses = Colmap().reconstruct(views).T_world_camera
    assert poses is not None
    assert poses.shape == (3, 4, 4)
    np.testing.assert_array_equal(Colmap().reconstruct(views).T_world_camera, poses)
    blank = tuple(photo.point(lambda _: 128) for photo in views.photos)
    assert np.isnan(Colmap().reconstruct(Views("x", blank, views.K)).T_world_camera).all()


def test_knowing_nothing_is_the_floor(views: Views, room: Path) -> None:
    truth = FramesBenchmark(room, GroupOptions(3)).load("room/0000").truth
    scores = compare(Nothing().reconstruct(views), truth)
    assert scores.abs_rel is not None
    assert 0.05 < scores.abs_rel < 0.6
    true = np.degrees(
        [np.arccos((np.trace(R) - 1) / 2) for R in _relative(truth.T_world_camera.numpy())[:, :3, :3]]
    )
    assert scores.rotation_deg == pytest.approx(true, abs=1e-3)
    assert scores.focal == pytest.approx(1.2 / 0.9 - 1)


def _relative(poses: np.ndarray) -> np.ndarray:
    return np.stack([np.linalg.inv(poses[i]) @ poses[j] for i, j in ((0, 1), (0, 2), (1, 2))])


def test_cameras_in_one_place_have_no_direction(room: Path) -> None:
    shots = find_frame_sets(room)[0].frames[:3]
    same = ListedFrame("x", shots[0].image, shots[0].K, shots[0].T_world_camera, depth=shots[0].depth)
    trial = trial_of([shots[0], same, shots[2]], DepthLimits())
    views = Views("x", trial.photos)
    kept = compare(Nothing().reconstruct(views), trial.truth, GeometryOptions(min_baseline=0.02))
    assert len(kept.rotation_deg) == 2


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ({"frames": {"a": {"image": "0.png"}}}, "KeyError"),
        ({"frames": {"a": {"image": "0.png", "K": [[1]], "T_world_camera": [[1]]}}}, "reshape"),
        ([], "frames"),
    ],
)
def test_files_that_do_not_say_enough_are_refused(broken: object, expected: str, tmp_path: Path) -> None:
    (tmp_path / "frames.json").write_text(json.dumps(broken))
    with pytest.raises(InputError, match=expected):
        FramesBenchmark(tmp_path)


def test_frames_that_do_not_overlap_are_refused(room: Path) -> None:
    with pytest.raises(InputError, match="no group of 7"):
        FramesBenchmark(room, GroupOptions(7), own_groups=False)
    with pytest.raises(InputError, match="two frames"):
        FramesBenchmark(room, GroupOptions(1))


def test_the_command_prints_a_table_with_every_method(
    room: Path, random_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--ckpt", str(random_folder), "--dtype", "float32", "--what", "geometry", "--num_views", "3"]
    target = tmp_path / "r.json"
    call = ["eval", "frames", "--data_path", str(room), *words, "--save_path", str(target)]
    assert main([*call, "--baselines", "nothing,sift"]) == 0
    table = capsys.readouterr().out
    assert "| nothing" in table.replace("  ", "").replace("| ", "|").replace("|nothing", "| nothing")
    assert "pose AUC@30" in table
    stored = json.loads(target.read_text())
    methods = {one["method"]: {f["key"]: f for f in one["figures"]} for one in stored["comparisons"]}
    assert set(methods) == {random_folder.name, "nothing", "sift"}
    assert methods["sift"]["pose/auc30_signed"]["value"] > 0.7
    assert "depth/abs_rel" not in methods["sift"]
    assert methods["nothing"]["depth/abs_rel"]["num_scenes"] == 2
    assert main(["eval", "--report", str(target)]) == 0
    assert capsys.readouterr().out == table
    assert main([*call, "--baselines", "magic"]) == 2
    assert "nothing, sift, colmap" in capsys.readouterr().err


@pytest.mark.skipif(not (REAL / "score.py").is_file(), reason="needs the real frames beside the checkout")
def test_agrees_with_the_independent_script_on_real_frames(tmp_path: Path) -> None:
    """The same reconstruction, through code that shares nothing with ours."""
    spec = importlib.util.spec_from_file_location("score", REAL / "score.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    _, groups = script.load(REAL / "office")
    (tmp_path / "office").mkdir()
    listed = json.loads((REAL / "office" / "frames.json").read_text())
    for name in ("images", "depth"):
        (tmp_path / "office" / name).symlink_to(REAL / "office" / name)
    listed["groups"] = groups[:2]
    (tmp_path / "office" / "frames.json").write_text(json.dumps(listed))

    import g2vlm

    model = g2vlm.load("g2vlm-tiny", device="cpu", dtype="float32")
    benchmark = FramesBenchmark(tmp_path)
    scores = [
        measure(benchmark, model, scene, RunOptions(sights=())).geometry for scene in benchmark.scenes()
    ]

    def reconstruct(paths: list[Path]) -> tuple[list, list, list]:
        found = model.reconstruct([str(path) for path in paths]).views
        depth = [np.asarray(view.depth, dtype=np.float64) for view in found]
        return (
            depth,
            [view.T_world_camera for view in found],
            [float(view.K_original[0, 0]) for view in found],
        )

    theirs = script.score(tmp_path / "office", reconstruct)
    largest = [
        max(pair) for one in scores for pair in zip(one.rotation_deg, one.translation_deg, strict=True)
    ]
    assert np.mean([one.aligned["median_of_ratios"].abs_rel for one in scores]) == pytest.approx(
        theirs["absrel"], rel=1e-3
    )
    assert auc_at(torch.tensor(largest)) == pytest.approx(theirs["auc30"], abs=1e-9)
    focal = np.median([error for one in scores for error in one.focal_per_view])
    assert focal == pytest.approx(theirs["focal_err"], rel=1e-4)
    rotation = np.median([error for one in scores for error in one.rotation_deg])
    assert rotation == pytest.approx(theirs["rotation_deg"], rel=1e-3)


def test_prepared_shards_and_other_layouts_give_the_same_groups(room: Path, tmp_path: Path) -> None:
    assert main(["data", "prepare", "frames", str(room), str(tmp_path / "shards")]) == 0
    shards = FramesBenchmark(tmp_path / "shards", GroupOptions(3, num_groups=2), own_groups=False)
    files = FramesBenchmark(room, GroupOptions(3, num_groups=2), own_groups=False)
    assert len(shards.scenes()) == len(files.scenes())
    theirs, ours = shards.load(shards.scenes()[0]), files.load(files.scenes()[0])
    assert theirs.truth is not None
    assert ours.truth is not None
    np.testing.assert_allclose(theirs.truth.depth, ours.truth.depth, atol=1e-3)
    np.testing.assert_allclose(theirs.truth.T_world_camera, ours.truth.T_world_camera)
    np.testing.assert_array_equal(theirs.photos[0], ours.photos[0])


def test_a_group_of_frames_that_cannot_be_read_is_refused(room: Path, tmp_path: Path) -> None:
    listed = json.loads((room / "frames.json").read_text())
    listed["groups"].append(["f0", "nowhere"])
    copy = Path(shutil.copytree(room, tmp_path / "copy"))
    (copy / "frames.json").write_text(json.dumps(listed))
    with pytest.raises(InputError, match="nowhere"):
        FramesBenchmark(copy)


def test_frames_without_picture_or_pose_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_frames(tmp_path / "part", film(4, 120, 90))
    listed = json.loads((folder / "frames.json").read_text())
    listed["frames"]["f3"]["T_world_camera"][0][3] = float("nan")
    (folder / "frames.json").write_text(json.dumps(listed))
    (folder / "0.png").unlink()
    benchmark = FramesBenchmark(folder, GroupOptions(2))
    assert benchmark.settings["num_dropped"] == 2
    assert benchmark.settings["sets"] == {"part": 2}
    words = ["--predictor", "nothing", "--baselines", "none", "--num_views", "2"]
    target = str(tmp_path / "r.json")
    assert main(["eval", "frames", "--data_path", str(folder), "--save_path", target, *words]) == 0
    assert "2 listed frames are left out" in capsys.readouterr().err
