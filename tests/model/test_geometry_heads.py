"""Geometry heads: pixel layout, poses, points, and the network's decoding view by view."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_weights import fill_randomly
from torch import Tensor

from g2vlm.model import network as network_module
from g2vlm.model.config import G2VLMConfig, HeadsConfig, Part, g2vlm_test
from g2vlm.model.heads import (
    CameraHead,
    CrossAttention,
    Decoder,
    DensePrediction,
    SelfAttention,
    points_from_prediction,
)
from g2vlm.model.network import G2VLM, GeometryPrediction, Photographs, Wants
from g2vlm.model.precision import Precision, cast_
from g2vlm.model.rotary import grid_indices, planar_rotation

HEADS = frozenset({Part.POINT_HEAD, Part.CAMERA_HEAD, Part.GLOBAL_POINT_HEAD, Part.CONFIDENCE_HEAD})


def with_confidence() -> G2VLMConfig:
    small = g2vlm_test()
    heads = HeadsConfig(
        num_blocks=2, num_heads=4, mlp_width=128, point_width=32, camera_width=32, confidence=True
    )
    return G2VLMConfig(small.geometric_encoder, small.semantic_encoder, small.mixture, heads)


def hidden_states(views: int, patches: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, views * patches, 64, generator=torch.Generator().manual_seed(0))


def photographs(views: int, rows: int, columns: int, batch: int = 1) -> Photographs:
    return Photographs(torch.zeros(batch, views, 3, rows * 14, columns * 14))


def test_points_scale_the_ray_by_the_exponential_of_the_third_number() -> None:
    raw = torch.tensor([[0.5, -0.25, 0.0], [1.0, 2.0, 1.0]])
    z = torch.tensor([1.0, 2.718281828])
    expected = torch.stack([raw[:, 0] * z, raw[:, 1] * z, z], dim=-1)
    torch.testing.assert_close(points_from_prediction(raw), expected)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_depth_is_positive_and_the_projection_is_the_prediction(seed: int) -> None:
    raw = 3 * torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(seed))
    points = points_from_prediction(raw)
    assert bool((points[..., 2] > 0).all())
    torch.testing.assert_close(points[..., :2] / points[..., 2:], raw[..., :2], atol=1e-5, rtol=1e-5)


def test_dense_prediction_lays_channels_rows_and_columns_of_a_patch_out_as_pixels() -> None:
    patch, rows, columns = 3, 2, 4
    head = fill_randomly(DensePrediction(5, 2, patch))
    tokens = torch.randn(1, rows * columns, 5)
    image = head(tokens, rows, columns)
    assert image.shape == (1, rows * patch, columns * patch, 2)
    for y in range(rows * patch):
        for x in range(columns * patch):
            numbers = head.proj(tokens[0, (y // patch) * columns + x // patch]).view(2, patch, patch)
            torch.testing.assert_close(image[0, y, x], numbers[:, y % patch, x % patch])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_poses_are_rigid_whatever_the_free_matrix(seed: int) -> None:
    head = fill_randomly(CameraHead(8), seed)
    poses = head(torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(seed)))
    rotations = poses[:, :3, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(4, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(4), atol=1e-5, rtol=0)
    assert torch.equal(poses[:, 3], torch.tensor([0.0, 0, 0, 1]).expand(4, 4))


@pytest.mark.parametrize("mirror", [False, True])
def test_the_rotation_is_the_nearest_one_even_to_a_mirroring(mirror: bool) -> None:
    """A mirrored matrix must not come out mirrored: the weakest axis is turned round."""
    head = fill_randomly(CameraHead(4))
    free = torch.tensor([[0.9, 0.3, 0.0], [-0.2, 1.0, 0.1], [0.1, 0.0, 1.1]])
    if mirror:
        free[2] *= -1
    with torch.no_grad():
        head.rotation.weight.zero_()
        head.rotation.bias.copy_(free.flatten())
    found = head(torch.zeros(1, 2, 4))[0, :3, :3]
    rows = free / free.norm(dim=-1, keepdim=True)
    u, _, vt = torch.linalg.svd(rows)
    signs = torch.diag(torch.tensor([1.0, 1.0, float(torch.sign(torch.linalg.det(u @ vt)))]))
    torch.testing.assert_close(found, u @ signs @ vt, atol=1e-5, rtol=0)
    assert float(torch.linalg.det(found)) == pytest.approx(1.0, abs=1e-5)


def test_decoders_do_not_mix_views() -> None:
    decoder = fill_randomly(Decoder(16, 8, HeadsConfig(num_blocks=2, num_heads=2, mlp_width=24)))
    hidden = torch.randn(3, 6, 16)
    together = decoder(hidden, 2, 3)
    for i in range(3):
        torch.testing.assert_close(together[i], decoder(hidden[i : i + 1], 2, 3)[0], atol=1e-5, rtol=0)


def test_a_cross_attention_to_itself_with_the_same_weights_is_a_self_attention() -> None:
    own = fill_randomly(SelfAttention(16, 2))
    cross = CrossAttention(16, 2)
    with torch.no_grad():
        for i, name in enumerate(("query", "key", "value")):
            linear = getattr(cross, name)
            linear.weight.copy_(own.qkv.weight[16 * i : 16 * (i + 1)])
            linear.bias.copy_(own.qkv.bias[16 * i : 16 * (i + 1)])
        cross.out.load_state_dict(own.out.state_dict())
    x = torch.randn(2, 6, 16)
    rotation = planar_rotation(*grid_indices(2, 3, x.device), 2, 100.0)
    torch.testing.assert_close(cross(x, x, rotation), own(x, rotation))


def decode(network: G2VLM, views: int, batch: int = 1) -> GeometryPrediction:
    with torch.no_grad():
        return network.decode_geometry(
            hidden_states(views, 6, batch),
            photographs(views, 2, 3, batch),
            Wants(geometry=True, global_points=True),
        )


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("views_at_a_time", [1, 2])
def test_decoding_a_few_views_at_a_time_equals_decoding_all(
    views_at_a_time: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = fill_randomly(G2VLM(with_confidence(), HEADS))
    whole = decode(network, 5, batch)
    monkeypatch.setattr(network_module, "HEAD_TOKENS_PER_CHUNK", 6 * batch * views_at_a_time)
    parts = decode(network, 5, batch)
    for field in ("points_camera", "T_world_camera", "points_global", "confidence_logits"):
        expected = getattr(whole, field)
        assert expected is not None
        assert expected.shape[:2] == (batch, 5)
        torch.testing.assert_close(getattr(parts, field), expected, atol=1e-4, rtol=1e-4)


def test_world_points_are_camera_points_moved_by_the_pose() -> None:
    prediction = decode(fill_randomly(G2VLM(with_confidence(), HEADS)), 2)
    pose, point = prediction.T_world_camera[0, 1], prediction.points_camera[0, 1, 5, 7]
    expected = pose[:3, :3] @ point + pose[:3, 3]
    torch.testing.assert_close(prediction.points_world[0, 1, 5, 7], expected, atol=1e-4, rtol=1e-4)


def test_global_points_depend_on_the_first_view() -> None:
    network = fill_randomly(G2VLM(with_confidence(), HEADS))
    hidden, wants = hidden_states(2, 6), Wants(geometry=True, global_points=True)
    changed = hidden.clone()
    changed[:, :6] += 1.0
    with torch.no_grad():
        before, after = (network.decode_geometry(h, photographs(2, 2, 3), wants) for h in (hidden, changed))
    assert torch.equal(before.points_camera[:, 1], after.points_camera[:, 1])
    assert not torch.allclose(before.points_global[:, 1], after.points_global[:, 1])


def test_heads_compute_in_float32_in_a_bfloat16_network() -> None:
    network = fill_randomly(G2VLM(with_confidence(), HEADS))
    exact = decode(network, 2)
    cast_(network, Precision.BFLOAT16)
    for name, parameter in network.named_parameters():
        assert parameter.dtype is torch.float32, name
    with torch.autocast("cpu", torch.bfloat16):
        found = decode(network, 2)
    assert torch.equal(found.points_camera, exact.points_camera)
    assert found.T_world_camera.dtype is torch.float32


def test_the_pose_is_differentiable_where_training_starts() -> None:
    head = fill_randomly(CameraHead(8)).requires_grad_(True)
    poses = head(torch.randn(2, 3, 8))
    poses.square().sum().backward()
    poses_gradients = [p.grad for p in head.parameters()]
    assert all(g is not None and bool(g.isfinite().all()) for g in poses_gradients)
