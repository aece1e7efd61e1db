"""Mistakes are named for what they are, and right data are left in peace."""

import dataclasses
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from exact_room import exact_views
from scipy.spatial.transform import Rotation

from g2vlm.cli.main import main
from g2vlm.data.checking.checking import shared_features
from g2vlm.data.checking.diagnosis import Verdict, diagnose
from g2vlm.data.checking.errors import depth_ratio, pair_errors
from g2vlm.data.checking.hypotheses import Cause
from g2vlm.data.checking.views import CheckedView, Matches, checked_view
from g2vlm.data.prepare.admission import Choice, posed_frames
from g2vlm.data.prepare.layout import Drops
from g2vlm.data.prepare.registry import layout_named

SHARED = Path(__file__).parents[4] / "shared"
GL = np.diag([1.0, -1.0, -1.0, 1.0])
REAL = {
    "office": ("frames", "real/office"),
    "desk": ("frames", "real/desk"),
    "hospital": ("frames", "real/hospital"),
    "lund": ("colmap", "layouts/lund_door_colmap"),
    "kitti": ("kitti", "layouts/kitti_odometry"),
}
Views = list[CheckedView]


@lru_cache
def room(has_depth: bool = True) -> tuple[tuple[CheckedView, ...], tuple[Matches, ...]]:
    made = []
    for k, view in enumerate(exact_views(6, 320, 240)):
        depth = view.depth if has_depth else None
        made.append(CheckedView(f"room/{k}", view.size, view.K, view.T_world_camera, depth))
    greys = [np.asarray(view.image.convert("L")) for view in exact_views(6, 320, 240)]
    return tuple(made), tuple(shared_features(greys))


@lru_cache
def real(name: str) -> tuple[tuple[CheckedView, ...], tuple[Matches, ...]]:
    kind, place = REAL[name]
    layout = layout_named(kind)
    scene = next(iter(layout.scenes(SHARED / place)))
    frames = list(posed_frames(layout, SHARED / place, scene, Choice(), Drops()))[:10]
    made = [checked_view(frame) for frame in frames]
    return tuple(view for view, _ in made), tuple(shared_features([grey for _, grey in made]))


def posed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Views], Views]:
    return lambda views: [
        dataclasses.replace(view, T_world_camera=change(view.T_world_camera)) for view in views
    ]


def deep(factor: float) -> Callable[[Views], Views]:
    return lambda views: [dataclasses.replace(view, depth=view.depth * factor) for view in views]


def seen(fx: float, cx: float) -> Callable[[Views], Views]:
    return lambda views: [
        dataclasses.replace(view, K=view.K * np.array([[fx, 1, cx], [1, fx, cx], [1, 1, 1]]))
        for view in views
    ]


def swapped(T: np.ndarray) -> np.ndarray:
    """w x y z, read as x y z w."""
    T = T.copy()
    x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
    T[:3, :3] = Rotation.from_quat([w, x, y, z]).as_matrix()
    return T


def shifted(views: Views) -> Views:
    poses = [views[-1].T_world_camera, *(view.T_world_camera for view in views[:-1])]
    return [dataclasses.replace(v, T_world_camera=T) for v, T in zip(views, poses, strict=True)]


def broken(views: Views) -> Views:
    views = list(views)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec([0.1, 0.5, 0]).as_matrix()
    wrong = views[3].T_world_camera @ turn
    views[3] = dataclasses.replace(views[3], T_world_camera=wrong)
    return views


WRONG: dict[str, tuple[Callable[[Views], Views], Cause]] = {
    "inverted": (posed(np.linalg.inv), Cause.INVERTED_POSES),
    "opengl": (posed(lambda T: T @ GL), Cause.CAMERA_AXES),
    "inverted opengl": (posed(lambda T: np.linalg.inv(T @ GL)), Cause.INVERTED_POSES),
    "quaternion": (posed(swapped), Cause.QUATERNION_ORDER),
    "small K": (seen(0.5, 0.5), Cause.INTRINSICS),
    "large K": (seen(2.0, 2.0), Cause.INTRINSICS),
    "focal length": (seen(1.4, 1.0), Cause.INTRINSICS),
    "shifted": (shifted, Cause.SHIFTED_POSES),
    "broken": (broken, Cause.BROKEN_FRAMES),
    "depth / 5": (deep(0.2), Cause.DEPTH_UNIT),
    "depth * 5": (deep(5.0), Cause.DEPTH_UNIT),
    "millimetres": (deep(1000.0), Cause.DEPTH_UNIT),
}


def verdict(views: Views, matches: tuple[Matches, ...]) -> Verdict:
    return diagnose("room", views, matches)


def test_right_data_are_fine() -> None:
    for has_depth in (True, False):
        views, matches = room(has_depth)
        found = verdict(list(views), matches)
        assert found.cause is Cause.NOTHING, found.line()
        assert found.error < 0.003
        assert "fine" in found.line()


@pytest.mark.parametrize("name", [name for name in WRONG if "shift" not in name])
def test_mistakes_are_named(name: str) -> None:
    change, cause = WRONG[name]
    views, matches = room()
    found = verdict(change(list(views)), matches)
    assert found.cause is cause, found.line()
    assert found.error_right < 0.4 * found.error
    assert found.fix in found.line()


@pytest.mark.parametrize("name", ["inverted", "opengl", "small K", "broken"])
def test_mistakes_are_named_without_depth(name: str) -> None:
    change, cause = WRONG[name]
    views, matches = room(has_depth=False)
    found = verdict(change(list(views)), matches)
    assert found.cause is cause, found.line()


@pytest.mark.skipif(not (SHARED / "real").is_dir(), reason="no real frames beside the repository")
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REAL))
def test_real_data_right_and_wrong(name: str) -> None:
    views, matches = real(name)
    assert verdict(list(views), matches).cause is Cause.NOTHING
    has_depth = views[0].depth is not None
    for what, (change, cause) in WRONG.items():
        if "depth" in what or what == "millimetres":
            if not has_depth:
                continue
        elif name == "kitti" and what in ("shifted", "focal length", "quaternion", "broken"):
            continue  # a short drive straight ahead looks much the same
        found = verdict(change(list(views)), matches)
        assert found.is_wrong, (what, found.line())
        if name != "kitti":
            assert found.cause is cause, (what, found.line())


def test_units_are_told_where_the_camera_hardly_moves() -> None:
    views, matches = room()
    ratio, known = depth_ratio(deep(3.0)(list(views)), matches)
    assert abs(ratio - 3) < 0.1
    assert known > 0.01
    still = [dataclasses.replace(view, T_world_camera=views[0].T_world_camera) for view in views]
    assert depth_ratio(still, matches)[1] < 1e-9


def test_errors_are_those_of_a_hand_computed_case() -> None:
    K = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    T = np.eye(4)
    T[0, 3] = 0.1
    depth = np.full((80, 100), 2.0)
    views = [CheckedView("a", (100, 80), K, np.eye(4), depth), CheckedView("b", (100, 80), K, T, depth)]
    points = np.stack([np.linspace(20, 80, 30), np.linspace(10, 70, 30)], axis=1)
    # A step of 10 cm to the right moves points at 2 m by 5 pixels to the left; here they moved by 8.
    matches = Matches(0, 1, points, points - [8.0, 0.0])
    np.testing.assert_allclose(pair_errors(views, [matches]), [0.03])


def test_pictures_that_share_nothing_are_told() -> None:
    views, _ = room()
    found = verdict(list(views), ())
    assert found.cause is None
    assert not found.is_wrong
    assert "cannot tell" in found.line()


def test_the_command_tells_right_from_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow", reason="prepared data need the extra data")
    for name, right in (("right", True), ("wrong", False)):
        source = tmp_path / name
        source.mkdir()
        frames = {}
        for k, view in enumerate(exact_views(4, 320, 240)):
            view.image.save(source / f"{k}.png")
            np.save(source / f"{k}.npy", view.depth.astype(np.float32))
            pose = view.T_world_camera if right else np.linalg.inv(view.T_world_camera)
            frames[str(k)] = {
                "image": f"{k}.png",
                "depth": f"{k}.npy",
                "K": view.K.tolist(),
                "T_world_camera": pose.tolist(),
            }
        (source / "frames.json").write_text(json.dumps({"frames": frames}))
        assert main(["data", "prepare", str(source), str(tmp_path / f"{name}-out")]) == 0
    capsys.readouterr()
    assert main(["data", "check", str(tmp_path / "right-out")]) == 0
    assert "right: fine" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "wrong-out"), "--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)["scenes"]
    assert (told["cause"], told["wrong"]) == ("inverted poses", True)
    assert told["depth_error_right"] < 0.01 < told["depth_error"]
