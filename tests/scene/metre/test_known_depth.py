from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from noisy_room import HEIGHT, WIDTH, box_room, with_errors

from g2vlm.errors import InputError
from g2vlm.geometry.known import DepthMaps, KnownDepth
from g2vlm.scene.metre import DepthUse, KnownThings, Role
from g2vlm.scene.scene import Scene


def maps(truth: Scene, change=lambda depth, index: depth) -> DepthMaps:
    """Depth at the size of the model's image, which covers the photo as the photo's own would."""
    named = [
        KnownDepth(partial(change, view.depth.astype(np.float64), i), view.name.replace(".png", ".exr"))
        for i, view in enumerate(truth.views)
    ]
    return DepthMaps(tuple(named), "lidar")


def test_dense_depth_gives_the_factor():
    result = box_room(unit=0.4).calibrated(KnownThings(depth=maps(box_room())))
    (finding,) = result.findings
    assert finding.factor == pytest.approx(2.5, rel=1e-6)
    assert finding.residual < 1e-5
    assert finding.role is Role.METRE
    np.testing.assert_allclose(result.scene.views[0].depth, box_room().views[0].depth, rtol=1e-5)


def test_sparse_depth_at_the_size_of_the_photo_is_enough():
    truth = box_room()
    rng = np.random.default_rng(0)

    def sparse(depth, index):
        large = np.full((4 * HEIGHT, 4 * WIDTH), np.nan)
        rows, columns = rng.integers(0, HEIGHT, 40), rng.integers(0, WIDTH, 40)
        large[4 * rows + 2, 4 * columns + 1] = depth[rows, columns]
        return large

    finding = box_room(unit=3).calibrated(KnownThings(depth=maps(truth, sparse))).findings[0]
    assert finding.factor == pytest.approx(1 / 3, rel=1e-3)
    assert finding.num_given <= 160


def test_noise_holes_and_thirty_percent_of_outliers_survive():
    rng = np.random.default_rng(1)

    def spoilt(depth, index):
        depth = depth * (1 + 0.02 * rng.standard_normal(depth.shape))
        draw = rng.random(depth.shape)
        depth[draw < 0.3] *= rng.uniform(1.5, 4, (draw < 0.3).sum())
        depth[draw > 0.8] = 0
        depth[0, :10] = np.inf
        return depth

    scene = with_errors(box_room(unit=0.5), rng, local=0.02)
    finding = scene.calibrated(KnownThings(depth=maps(box_room(), spoilt))).findings[0]
    assert finding.factor == pytest.approx(2, rel=0.01)
    assert 0.6 < finding.num_inliers / finding.num_given < 0.75


def test_depth_with_time_stamps_of_its_own_is_matched_by_time():
    stamps = ["1305031229.528748", "1305031229.896929", "1305031230.265580", "1305031230.633310"]
    truth = box_room()
    views = tuple(replace(v, name=f"{s}.png") for v, s in zip(truth.views, stamps, strict=True))
    scene = Scene(views, truth.scale)
    depth = DepthMaps(
        tuple(
            KnownDepth(partial(np.array, v.depth), f"{float(v.name[:-4]) + 0.004:.6f}.png")
            for v in reversed(views)
        ),
        "depth",
    )
    (finding,) = scene.calibrated(KnownThings(depth=depth)).findings
    assert finding.factor == pytest.approx(1)
    assert "matched by time" in str(finding)


def test_each_view_may_take_its_own_factor():
    truth = box_room()
    wrong = [
        replace(view, points_camera=(view.points_camera * np.float32(f)).astype(np.float32))
        for view, f in zip(truth.views, (0.5, 0.55, 0.5, 0.45), strict=True)
    ]
    scene = Scene(tuple(wrong), truth.scale)
    common = scene.calibrated(KnownThings(depth=maps(truth)))
    own = scene.calibrated(KnownThings(depth=maps(truth), depth_use=DepthUse.VIEW))
    assert own.findings[0].residual < 1e-5 < 0.1 < common.findings[0].residual
    assert "differ by" in str(common)
    for found, true in zip(own.scene.views, truth.views, strict=True):
        np.testing.assert_allclose(found.depth, true.depth, rtol=1e-5)


def test_depth_that_tells_nothing_is_refused():
    with pytest.raises(InputError, match="check the depth scale"):
        box_room().calibrated(KnownThings(depth=maps(box_room(), lambda depth, i: 0 * depth)))
    with pytest.raises(InputError, match="whole photo"):
        box_room().calibrated(KnownThings(depth=maps(box_room(), lambda depth, i: depth[:20])))
    strangers = DepthMaps((KnownDepth(lambda: np.ones((60, 80)), "other.png"),) * 2, "lidar")
    with pytest.raises(InputError, match="depth maps that match"):
        box_room().calibrated(KnownThings(depth=strangers))


def test_what_all_views_get_wrong_widens_deviations_once_depth_tells_it():
    rng = np.random.default_rng(0)
    truth = box_room()
    bent = []
    for view in truth.views:  # the same bulge in every view, which no view can tell from another
        bulge = 1 + 0.3 * np.sin(view.points_world[..., :1] * 2) * np.cos(view.points_world[..., 2:])
        centre = view.T_world_camera[:3, 3]
        world = centre + (view.points_world - centre) * bulge
        camera = (world - centre) @ view.T_world_camera[:3, :3]
        bent.append(replace(view, points_camera=camera.astype(np.float32)))
    scene = Scene(tuple(bent), truth.scale)
    known = scene.calibrated(KnownThings(depth=maps(truth))).scene
    assert 0.05 < known.scale.point_error < 0.4
    inside = []
    for _ in range(60):
        ends = (
            0,
            tuple(rng.integers(8, 300, 2).clip(0, 230).tolist()),
            2,
            tuple(rng.integers(8, 230, 2).tolist()),
        )
        measured, true = known.measure_distance(*ends), truth.measure_distance(*ends)
        inside.append(abs(measured.value - true.value) <= 2 * measured.uncertainty)
    assert np.mean(inside) > 0.85, np.mean(inside)
    alone = Scene(known.views[:1], known.scale)
    assert alone.measure_distance(0, (40, 100), 0, (260, 130)).uncertainty > 0
