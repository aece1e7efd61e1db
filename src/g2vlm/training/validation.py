"""Figures on held-out rooms while training runs."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.geometry.poses import relative_pose
from g2vlm.geometry.rotations import rotation_angle
from g2vlm.model.network import G2VLM, Wants
from g2vlm.training.batches import TrainingBatch

AUC_LIMIT_DEG = 30


@dataclass(frozen=True)
class PoseErrors:
    """Errors of relative poses, degrees, one for each pair of views."""

    rotation: Float[Tensor, " pairs"]
    translation: Float[Tensor, " pairs"]
    """Angle between the directions of translation."""


def depth_error(
    predicted: Float[Tensor, "batch views height width"], true: Float[Tensor, "batch views height width"]
) -> Float[Tensor, " batch"]:
    """Mean absolute relative error of depth, after one median scale for each sample."""
    flat, truth = predicted.flatten(1), true.flatten(1)
    scale = truth.median(dim=1).values / flat.median(dim=1).values
    return ((flat * scale[:, None] - truth).abs() / truth).mean(dim=1)


def pose_errors(
    predicted: Float[Tensor, "batch views 4 4"], true: Float[Tensor, "batch views 4 4"]
) -> PoseErrors:
    """Compare all pairs of views i < j."""
    first, second = torch.triu_indices(predicted.shape[1], predicted.shape[1], offset=1)
    ours = relative_pose(predicted[:, first], predicted[:, second]).flatten(0, 1)
    truth = relative_pose(true[:, first], true[:, second]).flatten(0, 1)
    rotation = rotation_angle(ours[:, :3, :3].mT @ truth[:, :3, :3])
    cosine = torch.cosine_similarity(ours[:, :3, 3], truth[:, :3, 3], dim=-1)
    return PoseErrors(torch.rad2deg(rotation), torch.rad2deg(cosine.clamp(-1, 1).acos()))


def area_under_curve(errors_deg: Float[Tensor, " pairs"], limit_deg: int = AUC_LIMIT_DEG) -> float:
    """Area under the curve of recall over error, from 0 to `limit_deg` in steps of one degree, 0 to 1."""
    counts = np.histogram(errors_deg.numpy(), bins=np.arange(limit_deg + 1))[0]
    return float((counts.cumsum() / max(1, errors_deg.numel())).mean())


@torch.no_grad()
def validate(network: G2VLM, batches: Iterable[TrainingBatch], autocast: torch.autocast) -> dict[str, float]:
    """Figures over some batches.

    Args:
        network: in any mode; no gradient is recorded.
        batches: of held-out samples, on the network's device.
        autocast: precision of the pass.

    Returns:
        `abs_rel` (depth, one scale for each sample), `auc30`, `rotation_deg` and `translation_deg` (medians)
        where there is geometry; `answer_loss` and `token_accuracy` where there are answers.
    """
    depth: list[Tensor] = []
    poses: list[PoseErrors] = []
    right, counted, nats = 0, 0, 0.0
    for batch in batches:
        wants = Wants(
            geometry=batch.geometry is not None,
            logit_slots=None if batch.answers is None else batch.answers.slots,
        )
        with autocast:
            outputs = network(batch.inputs, wants)
        if batch.geometry is not None and outputs.geometry is not None:
            truth = batch.geometry
            to_camera = torch.linalg.inv(truth.T_world_camera)[..., None, None, 2, :]
            true_depth = (to_camera[..., :3] * truth.points_world).sum(-1) + to_camera[..., 3]
            depth.append(depth_error(outputs.geometry.points_camera[..., 2], true_depth).cpu())
            errors = pose_errors(outputs.geometry.T_world_camera, truth.T_world_camera)
            poses.append(PoseErrors(errors.rotation.cpu(), errors.translation.cpu()))
        if batch.answers is not None and outputs.logits is not None:
            mask, tokens = batch.answers.is_answer, batch.answers.tokens
            logits = outputs.logits.float()
            right += int(((logits.argmax(-1) == tokens) & mask).sum())
            counted += int(mask.sum())
            nats += float(torch.nn.functional.cross_entropy(logits[mask], tokens[mask], reduction="sum"))
    figures: dict[str, float] = {}
    if depth:
        rotation = torch.cat([error.rotation for error in poses])
        translation = torch.cat([error.translation for error in poses])
        figures = {
            "abs_rel": float(torch.cat(depth).mean()),
            "auc30": area_under_curve(torch.maximum(rotation, translation)),
            "rotation_deg": float(rotation.median()),
            "translation_deg": float(translation.median()),
        }
    if counted:
        figures |= {"answer_loss": nats / counted, "token_accuracy": right / counted}
    return figures
