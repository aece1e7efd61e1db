"""One forward pass of a training batch, and the losses it is judged by."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from g2vlm.model.network import GeometryPrediction, Outputs, Wants
from g2vlm.training import losses
from g2vlm.training.guidance.guides import AttentionGuides
from g2vlm.training.run.distributed import sum_over_processes
from g2vlm.training.sources.batches import AnswerTargets, TrainingBatch

GEOMETRY_TERMS = ("local", "global_", "normal", "translation", "rotation")
"""Parts of the geometry loss that are logged."""


@dataclass(frozen=True)
class StepCounts:
    """What all micro-batches of one optimisation step hold together; their losses are divided by it.

    The mean over the answers of a step is not the mean over its micro-batches of their means: these hold
    different numbers of tokens, and some hold none.
    """

    geometry: int
    """Micro-batches with the truth about points and cameras."""
    answer_tokens: int
    """Tokens of answers."""
    pointing: int
    """Micro-batches that say what words speak of."""

    @staticmethod
    def of(batches: Iterable[TrainingBatch]) -> "StepCounts":
        """Count some micro-batches."""
        geometry = answer_tokens = pointing = 0
        for batch in batches:
            geometry += batch.geometry is not None
            answer_tokens += 0 if batch.answers is None else int(batch.answers.is_answer.sum())
            pointing += batch.pointing is not None
        return StepCounts(geometry, answer_tokens, pointing)

    def over_processes(self, device: torch.device) -> "StepCounts":
        """The sum of what all processes counted."""
        summed = sum_over_processes(vars(self), device)
        return StepCounts(**{name: round(value) for name, value in summed.items()})


@dataclass(frozen=True, eq=False)
class BatchLoss:
    """The share of one micro-batch in the loss of its step, and what it is made of.

    Summed over all micro-batches and processes, these are the loss and the terms of the step.
    """

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]
    """By name, detached; the same names in every micro-batch of a step."""


def batch_loss(
    network: nn.Module,
    batch: TrainingBatch,
    counts: StepCounts,
    language_weight: float = 1.0,
    guides: AttentionGuides | None = None,
) -> BatchLoss:
    """Run the network on a micro-batch and compare.

    Args:
        network: a complete `G2VLM`, possibly sharded.
        batch: on the network's device.
        counts: of the whole step.
        language_weight: factor of the language loss beside the geometry loss.
        guides: the losses of guided attention, where the recipe guides any.
    """
    wants = Wants(
        geometry=batch.geometry is not None,
        global_points=batch.geometry is not None and batch.comparison.weights.global_ > 0,
        logit_slots=None if batch.answers is None else batch.answers.slots,
    )
    outputs: Outputs = network(batch.inputs, wants)
    nothing = torch.zeros((), device=batch.inputs.token_ids.device)
    total, terms = nothing, dict.fromkeys(_names(counts, guides), nothing)
    if batch.geometry is not None:
        assert outputs.geometry is not None
        predicted, truth = _thinned(as_loss_input(outputs.geometry), batch.geometry, batch.comparison.stride)
        loss = losses.geometry_loss(predicted, truth, batch.comparison.weights)
        total = total + loss.total / counts.geometry
        for name in GEOMETRY_TERMS:
            terms[name.rstrip("_")] = getattr(loss, name).detach() / counts.geometry
    if batch.answers is not None:
        assert outputs.logits is not None
        language = _language_loss(outputs.logits, batch.answers, counts.answer_tokens)
        total = total + language_weight * language
        if counts.answer_tokens:
            terms["language"] = language.detach()
    if guides is not None:
        for name, (weight, loss_) in guides.losses(batch).items():
            share = loss_ / (counts.geometry if name == "matching" else counts.pointing)
            total = total + weight * share
            terms[name] = share.detach()
    return BatchLoss(total, {**terms, "loss": total.detach()})


def _names(counts: StepCounts, guides: AttentionGuides | None) -> list[str]:
    """Terms of a step; those of no micro-batch in it are left out, since zero would look like success."""
    names = ["loss"]
    if counts.geometry:
        names += [name.rstrip("_") for name in GEOMETRY_TERMS]
    if counts.answer_tokens:
        names.append("language")
    if guides is not None and guides.matching is not None and counts.geometry:
        names.append("matching")
    if guides is not None and guides.pointing is not None and counts.pointing:
        names += ["pointing", "quoting"]
    return names


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


def _language_loss(logits: Tensor, answers: AnswerTargets, num_tokens: int) -> Tensor:
    flat = logits.flatten(0, 1), answers.tokens.flatten(), answers.is_answer.flatten()
    return losses.answer_loss(*flat, num_tokens)
