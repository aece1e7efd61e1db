"""The geometry loss against the numbers of the public code."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from g2vlm.training.losses import (
    GeometryLoss,
    GeometryLossWeights,
    GeometryTarget,
    PredictedGeometry,
    geometry_loss,
)

TERMS = {
    "loss": "total",
    "detail.local_pts_loss": "local",
    "detail.global_pts_loss": "global_",
    "detail.normal_loss": "normal",
    "detail.trans_loss": "translation",
    "detail.rot_loss": "rotation",
}


@pytest.fixture(scope="module")
def expected(parity_data: Path) -> dict[str, torch.Tensor]:
    return load_file(parity_data / "loss.safetensors")


@pytest.fixture(scope="module")
def loss(expected: dict[str, torch.Tensor]) -> GeometryLoss:
    prediction = PredictedGeometry(
        points_camera=expected["pred_local_points"],
        points_global=expected["pred_global_points"],
        T_world_camera=expected["pred_cam2world"],
    )
    target = GeometryTarget(
        points_world=expected["gt_world_points"],
        valid=expected["gt_mask"].bool(),
        T_world_camera=expected["gt_cam2world"],
    )
    return geometry_loss(prediction, target, GeometryLossWeights.released())


@pytest.mark.parametrize("key", TERMS)
def test_every_term_agrees_with_the_public_code(
    key: str, expected: dict[str, torch.Tensor], loss: GeometryLoss
) -> None:
    value = getattr(loss, TERMS[key])
    torch.testing.assert_close(value, expected[key][0], rtol=2e-4, atol=0)
