"""The training objectives: invariances, agreement with plain versions, and gradients that stay finite."""

import dataclasses

import pytest
import torch
from torch import Tensor

from g2vlm.geometry.poses import make_pose, transform_points
from g2vlm.geometry.rotations import rotation_from_axis_angle
from g2vlm.training.losses import (
    GeometryLossWeights,
    GeometryTarget,
    PredictedGeometry,
    _nearest_valid,
    answer_loss,
    camera_loss,
    geometry_loss,
    normal_loss,
)

TERMS = ("total", "local", "global_", "normal", "translation", "rotation")


def make_truth(
    batch: int = 2, views: int = 3, height: int = 10, width: int = 14
) -> tuple[GeometryTarget, Tensor]:
    """Bumpy surfaces seen from a few poses: the target, and its local points."""
    generator = torch.Generator().manual_seed(3)
    depth = 2 + torch.rand(batch, views, height, width, generator=generator) * 0.05
    v, u = torch.meshgrid(
        torch.arange(height) / height - 0.5, torch.arange(width) / width - 0.5, indexing="ij"
    )
    local = torch.stack([u * depth, v * depth, depth], dim=-1)
    turn = rotation_from_axis_angle(torch.randn(batch, views, 3, generator=generator) * 0.3)
    poses = make_pose(turn, torch.randn(batch, views, 3, generator=generator))
    valid = torch.rand(batch, views, height, width, generator=generator) > 0.2
    return GeometryTarget(transform_points(poses, local), valid, poses), local


def perfect(target: GeometryTarget, local: Tensor, scale: float = 1.0) -> PredictedGeometry:
    """The truth as a prediction, at another scale and in another world."""
    poses = target.T_world_camera.clone()
    first = torch.linalg.inv(poses[:, 0])
    points_global = transform_points(first, target.points_world) * scale
    moved = make_pose(
        rotation_from_axis_angle(torch.tensor([0.3, -0.2, 0.9])), torch.tensor([1.0, 2.0, -1.0])
    )
    poses = moved @ poses
    poses = torch.cat(
        [poses[..., :3], torch.cat([poses[..., :3, 3:] * scale, poses[..., 3:, 3:]], dim=-2)], dim=-1
    )
    return PredictedGeometry(local * scale, points_global, poses)


def noisy(prediction: PredictedGeometry, amount: float = 0.1) -> PredictedGeometry:
    generator = torch.Generator().manual_seed(5)

    def shake(values: Tensor) -> Tensor:
        return values * (1 + amount * torch.randn(values.shape, generator=generator))

    assert prediction.points_global is not None
    poses = prediction.T_world_camera.clone()
    poses[..., :3, 3] = shake(poses[..., :3, 3])
    return PredictedGeometry(shake(prediction.points_camera), shake(prediction.points_global), poses)


def test_a_perfect_prediction_of_any_scale_and_world_costs_nothing_but_the_angle_floor() -> None:
    target, local = make_truth()
    loss = geometry_loss(perfect(target, local, scale=3.7), target)
    for name in ("local", "global_", "translation", "rotation"):
        assert getattr(loss, name) < 2e-3, name
    # Angles are clamped to one degree from below.
    floor = geometry_loss(perfect(target, local), target).normal
    torch.testing.assert_close(loss.normal, floor, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("scale", [0.01, 50.0])
def test_the_loss_does_not_depend_on_the_scale_of_the_prediction(scale: float) -> None:
    target, local = make_truth()
    reference = noisy(perfect(target, local))
    assert reference.points_global is not None
    poses = reference.T_world_camera.clone()
    poses[..., :3, 3] *= scale
    other = PredictedGeometry(reference.points_camera * scale, reference.points_global * scale, poses)
    a, b = geometry_loss(reference, target), geometry_loss(other, target)
    assert a.local > 0.01
    for name in TERMS:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-3, atol=1e-6)


def test_the_loss_does_not_depend_on_the_unit_and_frame_of_the_truth() -> None:
    target, local = make_truth()
    prediction = noisy(perfect(target, local))
    moved = make_pose(rotation_from_axis_angle(torch.tensor([0.1, 1.0, 0.2])), torch.tensor([-3.0, 0.5, 1.0]))
    poses = moved @ target.T_world_camera
    poses = torch.cat(
        [poses[..., :3], torch.cat([poses[..., :3, 3:] * 4, poses[..., 3:, 3:]], dim=-2)], dim=-1
    )
    other = GeometryTarget(transform_points(moved, target.points_world) * 4, target.valid, poses)
    a, b = geometry_loss(prediction, target), geometry_loss(prediction, other)
    for name in TERMS:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-3, atol=1e-5)


def test_total_is_the_weighted_sum_and_the_paper_weighs_translations_twice() -> None:
    target, local = make_truth()
    prediction = noisy(perfect(target, local))
    a = geometry_loss(prediction, target, GeometryLossWeights.released())
    b = geometry_loss(prediction, target, GeometryLossWeights.paper())
    expected = a.local + a.global_ + a.normal + 0.2 * (100 * a.translation + a.rotation)
    torch.testing.assert_close(a.total, expected)
    torch.testing.assert_close(b.total - a.total, 0.2 * 100 * a.translation)


def test_the_scale_points_are_those_of_nearest_interpolation() -> None:
    generator = torch.Generator().manual_seed(0)
    valid = torch.rand(3, 500, generator=generator) > torch.tensor([[0.1], [0.5], [0.99]])
    index = _nearest_valid(valid, 64)
    for row in range(3):
        positions = valid[row].nonzero()[:, 0].float()
        expected = torch.nn.functional.interpolate(positions[None, None], size=64, mode="nearest")[0, 0]
        torch.testing.assert_close(index[row].float(), expected)


def test_normal_loss_against_a_plain_loop() -> None:
    target, local = make_truth(batch=1, views=1, height=4, width=5)
    pred = local + 0.05 * torch.randn(local.shape, generator=torch.Generator().manual_seed(1))
    usable = target.valid
    expected = torch.zeros(3, 4)
    for row in range(3):
        for column in range(4):
            ring = [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column)]
            for k in range(4):
                here, after, before = ring[k], ring[(k + 1) % 4], ring[k - 1]
                if not all(usable[0, 0][at] for at in (here, after, before)):
                    continue
                normals = [
                    torch.linalg.cross(x[0, 0][after] - x[0, 0][here], x[0, 0][before] - x[0, 0][here])
                    for x in (pred, local)
                ]
                angle = torch.nn.functional.cosine_similarity(*normals, dim=0).clamp(-1, 1).arccos()
                degrees = torch.rad2deg(angle).clamp(1, 90).item()
                smooth = degrees**2 / 6 if degrees < 3 else degrees - 1.5
                expected[row, column] += torch.deg2rad(torch.tensor(smooth))
    torch.testing.assert_close(normal_loss(pred, local, usable)[0, 0], expected, rtol=1e-3, atol=1e-4)
    assert expected.max() > 0.1


def test_camera_loss_measures_a_known_turn_and_shift() -> None:
    true = torch.eye(4).repeat(1, 2, 1, 1)
    pred = true.clone()
    pred[0, 1, :3, :3] = rotation_from_axis_angle(torch.tensor([0.0, 0.4, 0.0]))
    translation, rotation = camera_loss(pred, true, 0.1)
    assert translation == 0
    torch.testing.assert_close(rotation, torch.tensor(0.4))
    pred = true.clone()
    pred[0, 1, 0, 3] = 1.0
    translation, rotation = camera_loss(pred, true, 0.1)
    # Linear part of the Huber loss on one of three components.
    torch.testing.assert_close(translation, torch.tensor(0.1 * (1.0 - 0.05) / 3))
    assert rotation == 0


def test_untrusted_depth_takes_no_part_in_the_normal_term() -> None:
    target, local = make_truth()
    prediction = noisy(perfect(target, local))
    first = PredictedGeometry(
        prediction.points_camera[:1],
        None if prediction.points_global is None else prediction.points_global[:1],
        prediction.T_world_camera[:1],
    )
    alone = geometry_loss(
        first, GeometryTarget(target.points_world[:1], target.valid[:1], target.T_world_camera[:1])
    )
    both = geometry_loss(prediction, target, has_exact_depth=torch.tensor([True, False]))
    torch.testing.assert_close(both.normal, alone.normal)
    none = geometry_loss(prediction, target, has_exact_depth=torch.tensor([False, False]))
    assert none.normal == 0


def degenerate_cases() -> dict[str, tuple[PredictedGeometry, GeometryTarget]]:
    target, local = make_truth()
    prediction = noisy(perfect(target, local))
    assert prediction.points_global is not None
    empty_view = target.valid.clone()
    empty_view[0, 1] = False
    holes = torch.where(target.valid[..., None], target.points_world, torch.nan)
    one = PredictedGeometry(
        prediction.points_camera[:, :1], prediction.points_global[:, :1], prediction.T_world_camera[:, :1]
    )
    same = torch.eye(4).repeat(2, 3, 1, 1)
    flat = torch.zeros_like(local)
    return {
        "usual": (prediction, target),
        "one view": (
            one,
            GeometryTarget(target.points_world[:, :1], target.valid[:, :1], target.T_world_camera[:, :1]),
        ),
        "a view without valid pixels": (prediction, dataclasses.replace(target, valid=empty_view)),
        "nothing valid": (prediction, dataclasses.replace(target, valid=torch.zeros_like(target.valid))),
        "holes of NaN": (prediction, dataclasses.replace(target, points_world=holes)),
        "identical poses": (
            dataclasses.replace(prediction, T_world_camera=same),
            dataclasses.replace(target, T_world_camera=same),
        ),
        "the truth itself": (perfect(target, local), target),
        "all points at the camera": (PredictedGeometry(flat, flat, same), target),
        "no global points": (dataclasses.replace(prediction, points_global=None), target),
    }


@pytest.mark.parametrize("case", list(degenerate_cases()))
def test_values_and_gradients_stay_finite(case: str) -> None:
    prediction, target = degenerate_cases()[case]
    inputs = [
        None if values is None else values.clone().requires_grad_()
        for values in (prediction.points_camera, prediction.points_global, prediction.T_world_camera)
    ]
    assert inputs[0] is not None
    assert inputs[2] is not None
    loss = geometry_loss(PredictedGeometry(inputs[0], inputs[1], inputs[2]), target)
    loss.total.backward()
    for name in TERMS:
        assert torch.isfinite(getattr(loss, name)), name
    for values in inputs:
        if values is not None:
            assert values.grad is not None
            assert torch.isfinite(values.grad).all()


def test_gradient_agrees_with_finite_differences() -> None:
    target, local = make_truth(batch=1, views=2, height=5, width=6)
    prediction = noisy(perfect(target, local))
    direction = torch.randn(local.shape, generator=torch.Generator().manual_seed(8)) * 1e-1

    def total(step: float) -> Tensor:
        points = (prediction.points_camera + step * direction).requires_grad_()
        # The solved scale is a constant to the gradient; only terms without it are compared exactly.
        loss = geometry_loss(dataclasses.replace(prediction, points_camera=points), target)
        total.points = points  # type: ignore[attr-defined]
        return loss.normal

    middle = total(0.0)
    (gradient,) = torch.autograd.grad(middle, total.points)  # type: ignore[attr-defined]
    step = 1e-3
    numeric = (total(step) - total(-step)).item() / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(numeric, rel=0.05)


def test_training_on_the_loss_reduces_it() -> None:
    target, local = make_truth()
    start = noisy(perfect(target, local), 0.3)
    points = start.points_camera.clone().requires_grad_()
    optimizer = torch.optim.Adam([points], lr=0.01)
    history = []
    for _ in range(30):
        loss = geometry_loss(dataclasses.replace(start, points_camera=points), target)
        optimizer.zero_grad()
        loss.local.backward()
        optimizer.step()
        history.append(loss.local.item())
    assert history[-1] < 0.5 * history[0]


def test_answer_loss_counts_only_answer_tokens() -> None:
    logits = torch.randn(6, 11, generator=torch.Generator().manual_seed(2))
    targets = torch.tensor([1, 2, 3, 4, 5, 6])
    is_answer = torch.tensor([False, True, False, True, True, False])
    expected = torch.nn.functional.cross_entropy(logits[is_answer], targets[is_answer])
    torch.testing.assert_close(answer_loss(logits, targets, is_answer), expected)
    targets[0] = -7  # positions outside of answers may hold anything
    torch.testing.assert_close(answer_loss(logits, targets, is_answer), expected)


def test_answer_loss_without_answers_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(4, 5, requires_grad=True)
    loss = answer_loss(logits, torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()
