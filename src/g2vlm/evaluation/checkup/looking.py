"""One model that looks at the example photos, as they are or prepared in other ways."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.checkpoints.loading import CHAT_PARTS
from g2vlm.inference.assembly import assemble_scene
from g2vlm.inference.perceiving import PhotoReader
from g2vlm.inference.prompts import PromptBuilder
from g2vlm.inputs.geometric import GeometricImages, prepare_geometric
from g2vlm.inputs.photo import Photo
from g2vlm.inputs.photos import PhotoSet
from g2vlm.inputs.semantic import SemanticPreparation
from g2vlm.model.cache import CacheShape, KeyValueCache
from g2vlm.model.config import ViewAttention
from g2vlm.model.network import Wants
from g2vlm.model.row_cache import Beginning, Prefill
from g2vlm.pipeline import Model
from g2vlm.scene.scene import Scene

Pixels = Float[Tensor, "views 3 height width"]
"""RGB in [0, 1], or what is fed instead."""


@dataclass(frozen=True)
class SeenPhotos:
    """Photos in the memory that questions continue from."""

    beginning: Beginning
    position: int
    """Of what follows."""


class Looker:
    """Looks at photos with one model.

    Args:
        model: any; the parts for questions are loaded when they are needed.
        photos: of one size.
    """

    def __init__(self, model: Model, photos: Sequence[Photo]) -> None:
        self.model, self.photos, config = model, tuple(photos), model.config
        self.prompts = PromptBuilder(model.tokenizer, config, model.placement.device)
        patch = config.geometric_encoder.patch_size
        self.images = prepare_geometric(self.photos, width=config.image_width, patch=patch)

    @cached_property
    def preparation(self) -> SemanticPreparation:
        """How the checkpoint wants pictures for its semantic encoder."""
        side = self.model.config.semantic_encoder.image_side
        return SemanticPreparation.from_file(self.model.folder / "preprocessor_config.json", side=side)

    @torch.inference_mode()
    def scene(
        self,
        view_attention: ViewAttention | None = None,
        change: Callable[[Pixels], Pixels] | None = None,
        views: int | None = None,
    ) -> Scene:
        """Reconstruct the photos.

        Args:
            view_attention: the model's own if None.
            change: what to feed in place of the pixels.
            views: the first so many only.
        """
        images = _first(self.images, views)
        pixels = images.pixels if change is None else change(images.pixels)
        prompt = self.prompts.reconstruction(pixels, view_attention or self.model.view_attention)
        geometry = self.model.network(prompt.inputs, Wants(geometry=True)).geometry
        assert geometry is not None
        return assemble_scene(geometry, images, self.photos[:views])

    @torch.inference_mode()
    def look(
        self,
        photos: Sequence[Photo] | None = None,
        preparation: SemanticPreparation | None = None,
        views: int | None = None,
    ) -> SeenPhotos:
        """Read the photos with the chat prompt.

        Args:
            photos: pictures in place of those for the semantic encoder.
            preparation: their preparation; the checkpoint's if None.
            views: the first so many only.
        """
        model = self.model
        model.load_parts(CHAT_PARTS)
        shown = tuple(photos or self.photos)[:views]
        cache = KeyValueCache(
            CacheShape.of(model.config.mixture),
            0,
            dtype=model.placement.precision.dtype,
            device=model.placement.device,
            growing=True,
        )
        reader = PhotoReader(
            model.network, self.prompts, preparation or self.preparation, model.view_attention
        )
        _, position = reader.read(PhotoSet(shown, (), "memory"), _first(self.images, views), cache)
        return SeenPhotos(cache.segments(), position)

    @torch.inference_mode()
    def log_probabilities(
        self, seen: SeenPhotos, questions: Sequence[str], answers: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, " answer"]]:
        """Natural logarithm of the probability of each token of some answers, by one pass over all."""
        asked = [self.prompts.question_ids(question) for question in questions]
        rows = [[*before, *answer[:-1]] for before, answer in zip(asked, answers, strict=True)]
        device, longest = self.model.placement.device, max(map(len, answers))
        # The token before each of the answer; rows with shorter answers look at their last one again.
        slots = [
            [min(len(before) - 1 + k, len(row) - 1) for k in range(longest)]
            for before, row in zip(asked, rows, strict=True)
        ]
        inputs = self.prompts.texts(rows, [seen.position] * len(rows))
        prefill = Prefill([seen.beginning] * len(rows), [len(row) for row in rows], device)
        wants = Wants(logit_slots=torch.tensor(slots, device=device))
        logits = self.model.network(inputs, wants, prefill).logits
        assert logits is not None
        chances = logits.float().log_softmax(dim=-1).cpu()
        return [
            chances[row, : len(answer)].gather(1, torch.tensor(answer)[:, None])[:, 0]
            for row, answer in enumerate(answers)
        ]


def _first(images: GeometricImages, views: int | None) -> GeometricImages:
    return GeometricImages(
        images.pixels[:views],
        images.valid[:views],
        images.T_model_original[:views],
        images.original_sizes[:views],
    )
