"""What one optimisation step is fed: sequences for the network, and the truth to compare its outputs with."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from g2vlm.model.layout import Layout
from g2vlm.model.network import ModelInputs, Photographs, SemanticPatches
from g2vlm.training.guidance.pointing import PointingTargets
from g2vlm.training.losses import GeometryLossWeights, GeometryTarget


@dataclass(frozen=True, eq=False)
class AnswerTargets:
    """Which logits of the semantic stream are compared with which tokens."""

    slots: Int[Tensor, " slots"]
    """Places in the semantic stream whose next-token logits are needed, the same in all samples."""
    tokens: Int[Tensor, "batch slots"]
    """The token that should follow each place."""
    is_answer: Bool[Tensor, "batch slots"]
    """Whether that token belongs to an answer (and is no question, padding or prompt)."""


@dataclass(frozen=True)
class GeometryComparison:
    """How predicted points and cameras are compared with the truth."""

    weights: GeometryLossWeights = field(default_factory=GeometryLossWeights)
    """Constants of the loss."""
    stride: int = 1
    """Only every so many pixels of every so many rows are compared."""


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """Samples that share views, picture size and sequence layout."""

    inputs: ModelInputs
    geometry: GeometryTarget | None
    """None where the stage has no geometry loss."""
    answers: AnswerTargets | None
    """None where the stage has no language loss."""
    pointing: PointingTargets | None = None
    """None where it is not known what words speak of."""
    comparison: GeometryComparison = field(default_factory=GeometryComparison)
    """Of `geometry`; the source knows how good its truth is."""

    @property
    def num_samples(self) -> int:
        """Samples side by side."""
        return int(self.inputs.token_ids.shape[0])

    @property
    def num_views(self) -> int:
        """Views of each sample."""
        return 0 if self.inputs.photographs is None else int(self.inputs.photographs.images.shape[1])

    @property
    def num_tokens(self) -> int:
        """Tokens of all samples, both streams."""
        return self.num_samples * self.inputs.layout.num_tokens

    def to(self, device: torch.device) -> "TrainingBatch":
        """The same batch on another device."""
        if device.type == "cpu":
            return self
        pointing = None if self.pointing is None else self.pointing.to(device)
        truth = _truth_to(self.geometry, self.answers, device)
        return TrainingBatch(_inputs_to(self.inputs, device), *truth, pointing, self.comparison)


def _inputs_to(inputs: ModelInputs, device: torch.device) -> ModelInputs:
    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    layout = inputs.layout
    photographs, patches = inputs.photographs, inputs.patches
    return ModelInputs(
        Layout(layout.blocks, move(layout.semantic_positions), move(layout.geometric_positions)),
        move(inputs.token_ids),
        move(inputs.text_slots),
        None if photographs is None else Photographs(move(photographs.images)),
        None if patches is None else SemanticPatches(move(patches.patches), patches.rows, patches.columns),
    )


def _truth_to(
    geometry: GeometryTarget | None, answers: AnswerTargets | None, device: torch.device
) -> tuple[GeometryTarget | None, AnswerTargets | None]:
    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    if geometry is not None:
        geometry = GeometryTarget(
            move(geometry.points_world), move(geometry.valid), move(geometry.T_world_camera)
        )
    if answers is not None:
        answers = AnswerTargets(move(answers.slots), move(answers.tokens), move(answers.is_answer))
    return geometry, answers


@runtime_checkable
class BatchSource(Protocol):
    """An endless sequence of batches that is a function of the index alone.

    Being stateless, it needs no position to be saved: a resumed run asks for the next index.
    """

    def __getitem__(self, index: int) -> TrainingBatch:
        """Batch `index`, from 0; the same every time and on every machine."""
        ...
