"""Figures on held-out rooms while training runs."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.evaluation.metrics.depth import depth_errors
from g2vlm.evaluation.metrics.poses import PairErrors, auc_at, pair_errors
from g2vlm.geometry.poses import invert_pose, transform_points
from g2vlm.model.network import G2VLM, GeometryPrediction, Wants
from g2vlm.training.losses import GeometryTarget
from g2vlm.training.run.distributed import gathered_from_all
from g2vlm.training.sources.batches import AnswerTargets, TrainingBatch


@dataclass
class _Sums:
    """What has been seen so far."""

    abs_rel: list[float] = field(default_factory=list)
    pairs: list[PairErrors] = field(default_factory=list)
    right: int = 0
    tokens: int = 0
    nats: float = 0.0

    def add_geometry(self, found: GeometryPrediction, truth: GeometryTarget) -> None:
        """Judge every sample of a batch."""
        true_points = transform_points(invert_pose(truth.T_world_camera), truth.points_world)
        for i in range(len(true_points)):
            depths = found.points_camera[i, ..., 2].cpu(), true_points[i, ..., 2].cpu()
            self.abs_rel.append(depth_errors(*depths, truth.valid[i].cpu()).abs_rel)
            if true_points.shape[1] > 1:
                poses = found.T_world_camera[i].cpu(), truth.T_world_camera[i].cpu()
                self.pairs.append(pair_errors(*poses))

    def add_answers(self, logits: Float[Tensor, "batch slots vocabulary"], answers: AnswerTargets) -> None:
        """Judge the next token at every place of the true answers."""
        mask, tokens = answers.is_answer, answers.tokens
        self.right += int(((logits.argmax(-1) == tokens) & mask).sum())
        self.tokens += int(mask.sum())
        loss = torch.nn.functional.cross_entropy(logits[mask].float(), tokens[mask], reduction="sum")
        self.nats += float(loss)

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(
            self.abs_rel + other.abs_rel,
            self.pairs + other.pairs,
            self.right + other.right,
            self.tokens + other.tokens,
            self.nats + other.nats,
        )

    def figures(self) -> dict[str, float]:
        """Means, areas and medians over everything."""
        figures: dict[str, float] = {}
        if self.abs_rel:
            figures["abs_rel"] = sum(self.abs_rel) / len(self.abs_rel)
        if self.pairs:
            figures["auc30"] = auc_at(torch.cat([pair.largest_deg for pair in self.pairs]))
            figures["rotation_deg"] = float(torch.cat([pair.rotation_deg for pair in self.pairs]).median())
            directions = torch.cat([pair.translation_deg for pair in self.pairs])
            figures["translation_deg"] = float(directions.median())
        if self.tokens:
            figures["answer_loss"] = self.nats / self.tokens
            figures["token_accuracy"] = self.right / self.tokens
        return figures


@torch.no_grad()
def validate(
    network: G2VLM, batches: Iterable[tuple[TrainingBatch, bool]], autocast: torch.autocast
) -> dict[str, float]:
    """Figures over some batches, by the measures of `evaluation`.

    Args:
        network: in any mode; no gradient is recorded.
        batches: of held-out samples, on the network's device, and whether they count: where processes share
            weights and batches, each must run as many passes as the others.
        autocast: precision of the pass.

    Returns:
        `abs_rel` (depth, one scale for each sample), `auc30` (all pairs of views), `rotation_deg` and
        `translation_deg` (medians over pairs) where there is geometry; `answer_loss` (nats a token) and
        `token_accuracy` where there are answers.
    """
    sums = _Sums()
    for batch, counts in batches:
        slots = None if batch.answers is None else batch.answers.slots
        with autocast:
            outputs = network(batch.inputs, Wants(geometry=batch.geometry is not None, logit_slots=slots))
        if not counts:
            continue
        if batch.geometry is not None and outputs.geometry is not None:
            sums.add_geometry(outputs.geometry, batch.geometry)
        if batch.answers is not None and outputs.logits is not None:
            sums.add_answers(outputs.logits, batch.answers)
    return sum(gathered_from_all(sums), _Sums()).figures()
