"""Whole scenes: perfect ones are perfect, known damage shows where it should, resolutions may differ."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from g2vlm.data.samples import SceneSample
from g2vlm.errors import InputError
from g2vlm.evaluation.benchmarks.synthetic import truth_of
from g2vlm.evaluation.geometry import SceneTruth, at_model_pixels, compare
from g2vlm.evaluation.prediction import Prediction
from g2vlm.geometry.cameras import pad_affine, resize_affine
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View


def test_a_perfect_scene_in_another_frame_and_unit_is_perfect(
    sample: SceneSample, as_scene: Callable[..., Scene]
) -> None:
    scene = as_scene(sample, 0.01)
    turn = np.eye(4)
    turn[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    turn[:3, 3] = [5, 6, 7]
    scores = compare(scene.transformed(turn), truth_of(sample))
    assert scores.num_views == 3
    assert scores.abs_rel == pytest.approx(0, abs=1e-5)
    assert scores.delta == 1
    assert max(scores.rotation_deg + scores.translation_deg) < 0.05
    assert len(scores.rotation_deg) == 3
    for length in (scores.ate, scores.pointwise, scores.accuracy, scores.completeness, scores.rmse):
        assert length == pytest.approx(0, abs=1e-4)
    assert scores.normal_consistency == pytest.approx(1, abs=0.01)
    assert scores.focal == pytest.approx(0, abs=1e-6)
    assert scores.diagonal == pytest.approx(np.linalg.norm(sample.room.size_m))


def test_one_bad_view_shows_in_one_scale_per_scene_only(
    sample: SceneSample, as_scene: Callable[..., Scene]
) -> None:
    scene = as_scene(sample)
    bad = replace(scene.views[0], points_camera=scene.views[0].points_camera * 2)
    scores = compare(replace(scene, views=(bad, *scene.views[1:])), truth_of(sample))
    assert scores.abs_rel_per_view == pytest.approx(0, abs=1e-5)
    assert scores.abs_rel > 0.2
    assert max(scores.rotation_deg) < 0.05
    assert scores.pointwise > 0.1


def test_a_turned_camera_shows_in_its_pairs(sample: SceneSample, as_scene: Callable[..., Scene]) -> None:
    scene = as_scene(sample)
    T = scene.views[2].T_world_camera.copy()
    angle = np.radians(10)
    turn = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    T[:3, :3] = T[:3, :3] @ np.array(turn, np.float32)
    turned = replace(scene.views[2], T_world_camera=T)
    scores = compare(replace(scene, views=(*scene.views[:2], turned)), truth_of(sample))
    assert scores.rotation_deg == pytest.approx((0, 10, 10), abs=0.05)
    assert scores.rpe_rotation_deg == pytest.approx(5, abs=0.05)


def test_truth_is_sampled_where_the_model_looks() -> None:
    depth = torch.arange(12.0).reshape(1, 3, 4) + 1
    K = torch.tensor([[[4.0, 0, 1.5], [0, 4, 1], [0, 0, 1]]])
    truth = SceneTruth(depth, depth > 1, torch.eye(4)[None], K)

    def seen(width: int, height: int, T_model_original: torch.Tensor) -> View:
        return View(
            name="view",
            rgb=np.zeros((height, width, 3), np.uint8),
            points_camera=np.ones((height, width, 3), np.float32),
            T_world_camera=np.eye(4, dtype=np.float32),
            K=np.eye(3, dtype=np.float32),
            confidence=np.ones((height, width), np.float32),
            valid=np.ones((height, width), bool),
            original_size=(4, 3),
            T_model_original=T_model_original.numpy(),
        )

    half = at_model_pixels(truth, Prediction.of_views((seen(2, 3, resize_affine((4, 3), (2, 3))),)))
    # Model column 0 looks at original column 0.5, a tie, which goes to 1; column 1 at 2.5, to 3.
    assert half.depth[0].tolist() == [[2, 4], [6, 8], [10, 12]]
    assert half.K[0, 0, 0] == 2
    shifted = at_model_pixels(truth, Prediction.of_views((seen(4, 2, pad_affine(1, 0)),)))
    assert shifted.depth[0, :, 1:].tolist() == [[1, 2, 3], [5, 6, 7]]
    assert shifted.valid[0].tolist() == [[False, False, True, True], [False, True, True, True]]
    assert shifted.K[0, 0, 2] == 2.5


def test_a_scene_of_other_views_is_refused(sample: SceneSample, as_scene: Callable[..., Scene]) -> None:
    scene = as_scene(sample)
    with pytest.raises(InputError, match="truth of 2 views"):
        compare(replace(scene, views=scene.views[:2]), truth_of(sample))
    small = SceneTruth(sample.depth[:, ::2], sample.valid[:, ::2], sample.T_world_camera, sample.K)
    with pytest.raises(InputError, match="56x21"):
        compare(scene, small)
