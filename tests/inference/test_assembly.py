"""From predictions to a scene."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from g2vlm.inference.assembly import assemble_scene
from g2vlm.inputs.decode import Photo
from g2vlm.inputs.geometric import Fit, prepare_geometric
from g2vlm.model.network import GeometryPrediction

FOCAL = 90.0


def photos(*, tall: bool = False) -> tuple[Photo, ...]:
    first = Image.new("RGB", (112, 56), (10, 200, 30))
    second = Image.new("RGB", (56, 112) if tall else (224, 112), (90, 0, 7))
    return (
        Photo(first, "first.png", path=Path("/photos/first.png")),
        Photo(second, "second.png", 1.5, path=Path("/walk.mp4"), frame_index=15),
    )


def prediction(views: int, height: int, width: int, *, logits: bool = False) -> GeometryPrediction:
    """A tilted plane seen by a pinhole camera of known focal length."""
    rows, columns = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    z = 2 + 0.01 * u
    points = torch.stack([u / FOCAL * z, v / FOCAL * z, z], dim=-1).expand(1, views, -1, -1, -1)
    poses = torch.eye(4).repeat(1, views, 1, 1)
    poses[0, 1:, 0, 3] = 0.1
    confidence = torch.full((1, views, height, width), 2.0) if logits else None
    return GeometryPrediction(points, poses, None, confidence)


def test_a_scene_names_its_views_and_recovers_their_cameras() -> None:
    images = prepare_geometric(photos(), width=112)
    scene = assemble_scene(prediction(2, 56, 112), images, photos())
    assert [view.name for view in scene.views] == ["first.png", "second.png"]
    assert [view.time_s for view in scene.views] == [None, 1.5]
    assert [view.source_path for view in scene.views] == ["/photos/first.png", "/walk.mp4"]
    assert [view.frame_index for view in scene.views] == [None, 15]
    assert [view.original_size for view in scene.views] == [(112, 56), (224, 112)]
    for view in scene.views:
        expected = [[FOCAL, 0, 55.5], [0, FOCAL, 27.5], [0, 0, 1]]
        np.testing.assert_allclose(view.K, expected, atol=0.05)
        assert view.valid.all()
    assert np.array_equal(scene.views[0].rgb[3, 4], [10, 200, 30])
    assert scene.scale.kind.value == "relative"


def test_padding_is_not_part_of_the_scene() -> None:
    images = prepare_geometric(photos(tall=True), width=112, fit=Fit.PAD)
    scene = assemble_scene(prediction(2, 56, 112, logits=True), images, photos(tall=True))
    tall = scene.views[1]
    assert 0 < tall.valid.sum() < tall.valid.size
    assert np.array_equal(tall.valid, images.valid[1].numpy())
    assert not tall.confidence[~tall.valid].any()


def test_a_confidence_head_is_used_as_it_is() -> None:
    images = prepare_geometric(photos(), width=112)
    scene = assemble_scene(prediction(2, 56, 112, logits=True), images, photos())
    np.testing.assert_allclose(scene.views[0].confidence, 1 / (1 + np.exp(-2.0)), rtol=1e-5)


def test_without_a_confidence_head_agreement_between_views_stands_in() -> None:
    images = prepare_geometric(photos(), width=112)
    agreeing = prediction(2, 56, 112)
    scene = assemble_scene(agreeing, images, photos())
    far = agreeing.points_camera.clone()
    far[:, 1] *= 3
    contradicting = GeometryPrediction(far, agreeing.T_world_camera)
    other = assemble_scene(contradicting, images, photos())
    assert 0 <= other.views[0].confidence.mean() < scene.views[0].confidence.mean() <= 1


def test_points_that_are_not_finite_are_not_valid() -> None:
    images = prepare_geometric(photos(), width=112)
    broken = prediction(2, 56, 112)
    points = broken.points_camera.clone()
    points[0, 0, 5, 6] = float("inf")
    scene = assemble_scene(GeometryPrediction(points, broken.T_world_camera), images, photos())
    assert not scene.views[0].valid[5, 6]
    assert scene.views[0].valid.sum() == 56 * 112 - 1
    assert np.isfinite(scene.views[0].confidence).all()
