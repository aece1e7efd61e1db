"""Filtering: thresholds mean what they say, and nothing else changes."""

import numpy as np
import pytest

from g2vlm.errors import InputError
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene


def kept(scene: Scene) -> np.ndarray:
    return np.stack([view.valid for view in scene.views])


def confidence(scene: Scene) -> np.ndarray:
    return np.stack([view.confidence for view in scene.views])


def test_filtering_by_nothing_keeps_everything(scene):
    np.testing.assert_array_equal(kept(scene.filtered()), kept(scene))


def test_minimum_confidence_keeps_what_reaches_it(scene):
    exact = float(scene.views[0].confidence[2, 3])
    result = scene.filtered(min_confidence=exact)
    np.testing.assert_array_equal(kept(result), kept(scene) & (confidence(scene) >= np.float32(exact)))
    assert result.views[0].valid[2, 3]
    np.testing.assert_array_equal(kept(scene)[0], True)  # the original scene is untouched


def test_percentile_drops_that_share_of_valid_points_over_the_whole_scene(scene):
    result = scene.filtered(percentile=25)
    dropped = kept(scene) & ~kept(result)
    assert dropped.sum() == pytest.approx(0.25 * scene.num_points, abs=1)
    assert confidence(scene)[dropped].max() < confidence(scene)[kept(result)].min()
    assert scene.filtered(percentile=0).num_points == scene.num_points
    assert scene.filtered(percentile=100).num_points == 1


def test_percentile_of_equal_confidence_keeps_everything(make_view):
    flat = np.full((6, 8), 0.7, np.float32)
    scene = Scene((make_view(confidence=flat),), Scale(ScaleKind.RELATIVE, "test"))
    assert scene.filtered(percentile=50).num_points == 48
    assert scene.filtered(percentile=50, min_confidence=0.7).num_points == 48


def test_the_stricter_of_both_thresholds_wins(scene):
    both = kept(scene.filtered(min_confidence=0.2, percentile=60))
    np.testing.assert_array_equal(
        both, kept(scene.filtered(min_confidence=0.2)) & kept(scene.filtered(percentile=60))
    )


def test_depth_edges_are_dropped_on_both_sides(make_view):
    points = make_view().points_camera.copy()
    points[...] = points / points[..., 2:]
    points[:, 4:] *= 1.5
    scene = Scene((make_view(points_camera=points),), Scale(ScaleKind.RELATIVE, "test"))
    expected = np.tile(np.array([True, True, True, False, False, True, True, True]), (6, 1))
    np.testing.assert_array_equal(kept(scene.filtered(max_depth_edge=0.1))[0], expected)
    assert scene.filtered(max_depth_edge=0.6).num_points == 48


def test_normal_edges_are_dropped_around_a_crease(make_view):
    view = make_view()
    points = view.points_camera / view.depth[..., None]  # the plane z = 1
    u = np.arange(8, dtype=np.float32)
    bend = np.where(u > 3, u - 3, 0) * np.float32(0.1)
    points[..., 2] += bend
    scene = Scene((make_view(points_camera=points),), Scale(ScaleKind.RELATIVE, "test"))
    result = kept(scene.filtered(max_normal_edge_rad=0.2))[0]
    assert result[:, [0, 1, 6, 7]].all()
    assert not result[:, 3].any()
    assert scene.filtered(max_normal_edge_rad=1.5).num_points == 48


def test_already_invalid_pixels_stay_invalid_and_make_no_edges(scene):
    result = kept(scene.filtered(max_depth_edge=0.2, max_normal_edge_rad=0.5))
    np.testing.assert_array_equal(result, kept(scene))


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        ({"min_confidence": 1.5}, "min_confidence between 0 and 1"),
        ({"percentile": -1.0}, "percentile between 0 and 100"),
        ({"max_depth_edge": 0.0}, "max_depth_edge above 0"),
        ({"max_normal_edge_rad": float("nan")}, "max_normal_edge_rad above 0"),
    ],
)
def test_thresholds_out_of_range_are_refused(scene, threshold, message):
    with pytest.raises(InputError, match=message):
        scene.filtered(**threshold)
