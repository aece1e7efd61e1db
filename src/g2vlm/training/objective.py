"""One forward pass of a training batch, and the losses it is judged by."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from g2vlm.model.network import GeometryPrediction, Outputs, Wants
from g2vlm.training import losses
from g2vlm.training.guidance.guides import AttentionGuides
from g2vlm.training.losses import GeometryLossWeights
from g2vlm.training.sources.batches import AnswerTargets, TrainingBatch


@dataclass(frozen=True, eq=False)
class BatchLoss:
    """The number that is minimised, and what it is made of."""

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]
    """By name, detached."""


def batch_loss(
    network: nn.Module,
    batch: TrainingBatch,
    weights: GeometryLossWeights,
    language_weight: float = 1.0,
    stride: int = 1,
    guides: AttentionGuides | None = None,
) -> BatchLoss:
    """Run the network on a batch and compare.

    Args:
        network: a complete `G2VLM`, possibly sharded.
        batch: on the network's device.
        weights: constants of the geometry loss.
        language_weight: factor of the language loss.
        stride: the geometry loss looks at every `stride`-th pixel of every `stride`-th row only.
        guides: the losses of guided attention, where the recipe guides any.
    """
    wants = Wants(
        geometry=batch.geometry is not None,
        global_points=batch.geometry is not None and weights.global_ > 0,
        logit_slots=None if batch.answers is None else batch.answers.slots,
    )
    outputs: Outputs = network(batch.inputs, wants)
    total = torch.zeros((), device=batch.inputs.token_ids.device)
    terms: dict[str, Tensor] = {}
    if batch.geometry is not None:
        assert outputs.geometry is not None
        predicted, truth = _thinned(as_loss_input(outputs.geometry), batch.geometry, stride)
        loss = losses.geometry_loss(predicted, truth, weights)
        total = total + loss.total
        for name in ("local", "global_", "normal", "translation", "rotation"):
            terms[name.rstrip("_")] = getattr(loss, name).detach()
    if batch.answers is not None:
        assert outputs.logits is not None
        language = _language_loss(outputs.logits, batch.answers)
        total = total + language_weight * language
        terms["language"] = language.detach()
    if guides is not None:
        for name, (weight, loss_) in guides.losses(batch).items():
            total = total + weight * loss_
            terms[name] = loss_.detach()
    return BatchLoss(total, {"loss": total.detach(), **terms})


def as_loss_input(prediction: GeometryPrediction) -> losses.PredictedGeometry:
    """The network's prediction as the losses take it."""
    return losses.PredictedGeometry(
        prediction.points_camera, prediction.points_global, prediction.T_world_camera
    )


def _thinned(
    prediction: losses.PredictedGeometry, target: losses.GeometryTarget, stride: int
) -> tuple[losses.PredictedGeometry, losses.GeometryTarget]:
    """Both at every `stride`-th pixel, starting half a stride inside."""
    if stride == 1:
        return prediction, target
    kept = (slice(None), slice(None), slice(stride // 2, None, stride), slice(stride // 2, None, stride))
    points = prediction.points_global
    return (
        losses.PredictedGeometry(
            prediction.points_camera[kept],
            None if points is None else points[kept],
            prediction.T_world_camera,
        ),
        losses.GeometryTarget(target.points_world[kept], target.valid[kept], target.T_world_camera),
    )


def _language_loss(logits: Tensor, answers: AnswerTargets) -> Tensor:
    return losses.answer_loss(logits.flatten(0, 1), answers.tokens.flatten(), answers.is_answer.flatten())
