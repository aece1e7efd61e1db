import numpy as np
import pytest
from noisy_room import box_room, with_errors

from g2vlm.errors import InputError
from g2vlm.scene.metre import KnownBaseline, KnownDistance, KnownThings, Role
from g2vlm.scene.metre.report import percent
from g2vlm.scene.scale import ScaleKind

ENDS = [
    ((0, (40, 100)), (2, (260, 130))),
    ((1, (20, 30)), (1, (300, 200))),
    ((3, (100, 200)), (0, (250, 60))),
]


def distances(truth, ends=ENDS, **wrong):
    known = []
    for number, ((a, pixel_a), (b, pixel_b)) in enumerate(ends):
        metres = truth.measure_distance(a, pixel_a, b, pixel_b).value * wrong.get(f"n{number}", 1.0)
        known.append(KnownDistance(a, pixel_a, b, pixel_b, metres))
    return tuple(known)


@pytest.mark.parametrize("unit", [0.013, 1.0, 250.0])
def test_a_known_distance_comes_back(unit):
    scene = box_room(unit=unit)
    before = [view.points_camera.copy() for view in scene.views]
    metric = scene.with_known_distance(0, (40, 100), 2, (260, 130), 3.25)
    again = metric.measure_distance(0, (40, 100), 2, (260, 130))
    assert again.value == pytest.approx(3.25, rel=1e-6)
    assert metric.scale.kind is ScaleKind.METRIC
    assert "known distance" in metric.scale.source
    assert metric.scale.residual_m is None  # nothing is left to compare
    for view, points in zip(scene.views, before, strict=True):
        np.testing.assert_array_equal(view.points_camera, points)
    assert scene.scale.kind is ScaleKind.RELATIVE


def test_everything_with_a_length_follows():
    truth, scene = box_room(), box_room(unit=0.2)
    metric = scene.calibrated(KnownThings(distances=distances(truth))).scene
    for true, found in zip(truth.views, metric.views, strict=True):
        np.testing.assert_allclose(found.points_camera, true.points_camera, rtol=2e-6, atol=1e-5)
        np.testing.assert_allclose(found.depth, true.depth, rtol=2e-6)
        np.testing.assert_allclose(found.T_world_camera, true.T_world_camera, atol=1e-5)
        np.testing.assert_array_equal(found.K, true.K)


def test_residuals_are_those_of_the_given_lengths():
    result = box_room().calibrated(KnownThings(distances=distances(box_room(), ENDS[:2], n0=1.21, n1=1.0)))
    (finding,) = result.findings
    assert finding.role is Role.METRE
    assert finding.factor == pytest.approx(1.1, rel=1e-6)
    lengths = [box_room().measure_distance(a, p, b, q).value for (a, p), (b, q) in ENDS[:2]]
    expected = [1.21 * lengths[0] - 1.1 * lengths[0], lengths[1] - 1.1 * lengths[1]]
    assert finding.residuals == pytest.approx(expected, rel=1e-5)
    assert finding.residual == pytest.approx(np.median(np.abs(expected)), rel=1e-5)
    assert result.scene.scale.residual_m == finding.residual


def test_a_wrong_length_among_many_is_told_and_left_out():
    rng = np.random.default_rng(0)
    truth = box_room()
    ends = [
        (
            (int(rng.integers(4)), tuple(rng.integers(20, 200, 2).tolist())),
            (int(rng.integers(4)), tuple(rng.integers(20, 200, 2).tolist())),
        )
        for _ in range(10)
    ]
    known = distances(truth, ends, n2=2.0, n5=0.4, n7=1.5)
    scene = with_errors(box_room(unit=0.5), rng, local=0.002)
    result = scene.calibrated(KnownThings(distances=known))
    assert result.findings[0].factor == pytest.approx(2.0, rel=0.01)
    assert result.findings[0].num_inliers == 7
    assert "number 3 " in str(result)
    assert "left out" in str(result)


def test_a_known_baseline_comes_back():
    metric = box_room(unit=7).calibrated(KnownThings(baselines=(KnownBaseline(0, 3, 1.5),))).scene
    a, b = (metric.views[i].T_world_camera[:3, 3].astype(np.float64) for i in (0, 3))
    assert np.linalg.norm(a - b) == pytest.approx(1.5, rel=1e-6)
    assert "cameras" in metric.scale.source


def test_sources_that_disagree_are_told_with_both_figures():
    known = KnownThings(distances=distances(box_room()), baselines=(KnownBaseline(0, 3, 50.0),))
    result = box_room().calibrated(known)
    assert result.findings[0].role is Role.METRE
    assert result.findings[1].role is Role.COMPARED
    (conflict,) = result.conflicts
    assert "3 known distances says 1 m per unit" in conflict
    assert f"{result.findings[1].factor:.4g} m" in conflict
    assert result.scene.scale.source == "3 known distances"


def test_sources_that_agree_are_no_conflict():
    truth = box_room()
    a, b = (truth.views[i].T_world_camera[:3, 3] for i in (0, 3))
    baseline = KnownBaseline(0, 3, float(np.linalg.norm(a - b)))
    assert not truth.calibrated(KnownThings(distances=distances(truth), baselines=(baseline,))).conflicts


def test_the_error_of_one_distance_is_that_of_its_ends():
    scene = with_errors(box_room(), np.random.default_rng(1), local=0.02)
    ends = (0, (40, 100), 2, (260, 130))
    measured = scene.measure_distance(*ends)
    metric = scene.with_known_distance(*ends, 2.0)
    assert metric.scale.relative_error == pytest.approx(measured.uncertainty / measured.value, rel=1e-6)


def test_what_fixes_no_scale_is_refused():
    scene = box_room()
    with pytest.raises(InputError, match="above 0"):
        KnownDistance(0, (1, 1), 0, (2, 2), 0.0)
    with pytest.raises(InputError, match="twice"):
        KnownBaseline(1, 1, 1.0)
    with pytest.raises(InputError, match="further apart"):
        scene.with_known_distance(0, (40, 100), 0, (40.2, 100), 1.0)
    with pytest.raises(InputError, match="inside the original image"):
        scene.with_known_distance(0, (40, 100), 0, (4000, 100), 1.0)
    with pytest.raises(InputError, match="view from 0 to 3"):
        scene.with_known_distance(0, (40, 100), 9, (40, 100), 1.0)
    with pytest.raises(InputError, match="something known"):
        scene.calibrated(KnownThings())


def test_a_pixel_without_a_point_is_refused():
    scene = box_room()
    scene.views[0].valid[:] = False
    with pytest.raises(InputError, match="valid point"):
        scene.with_known_distance(0, (40, 100), 1, (40, 100), 1.0)


@pytest.mark.parametrize(("share", "text"), [(0.0053, "0.53 %"), (0.041, "4.1 %"), (3.1, "310 %")])
def test_percents_are_plain_numbers(share, text):
    assert percent(share) == text
