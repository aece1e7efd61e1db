import math

import pytest
import torch

from g2vlm.geometry.rotations import rotation_from_axis_angle
from g2vlm.training.validation import area_under_curve, depth_error, pose_errors


def test_depth_error_ignores_one_scale_for_each_sample():
    true = torch.rand(2, 3, 4, 5) + 1.0
    scaled = true * torch.tensor([2.0, 0.3])[:, None, None, None]
    torch.testing.assert_close(depth_error(scaled, true), torch.zeros(2), atol=1e-6, rtol=0.0)
    wrong = true.clone()
    wrong[:, 0] *= 1.5
    assert float(depth_error(wrong, true).min()) > 0.05


def test_pose_errors_measure_what_was_turned_and_moved():
    true = torch.eye(4).repeat(1, 2, 1, 1)
    true[0, 1, :3, 3] = torch.tensor([1.0, 0.0, 0.0])
    found = true.clone()
    found[0, 1, :3, :3] = rotation_from_axis_angle(torch.tensor([0.0, math.radians(10), 0.0]))
    found[0, 1, :3, 3] = 5 * torch.tensor([math.cos(0.5), math.sin(0.5), 0.0])
    errors = pose_errors(found, true)
    assert float(errors.rotation) == pytest.approx(10, abs=1e-3)
    assert float(errors.translation) == pytest.approx(math.degrees(0.5), abs=1e-3)


def test_area_under_curve():
    assert area_under_curve(torch.zeros(4)) == 1.0
    assert area_under_curve(torch.full((4,), 40.0)) == 0.0
    assert area_under_curve(torch.tensor([0.0, 100.0])) == 0.5
    assert area_under_curve(torch.tensor([15.5])) == pytest.approx(15 / 30)
