"""Reading photos into a memory that questions continue from."""

from dataclasses import dataclass

from torch import nn

from g2vlm.inference.perception import PerceivedPhotos
from g2vlm.inference.prompts import PromptBuilder
from g2vlm.inputs.geometric import GeometricImages
from g2vlm.inputs.photos import PhotoSet
from g2vlm.inputs.semantic import SemanticPreparation, prepare_semantic
from g2vlm.model.cache import CacheShape, KeyValueCache
from g2vlm.model.config import ViewAttention
from g2vlm.model.layers import chunk_factor
from g2vlm.model.network import G2VLM, SEMANTIC_VIEWS_PER_CHUNK, GeometryPrediction, Wants


@dataclass(frozen=True)
class PhotoReader:
    """Reads photos with the released chat prompt."""

    network: G2VLM
    prompts: PromptBuilder
    preparation: SemanticPreparation
    view_attention: ViewAttention

    def perceive(
        self, photos: PhotoSet, images: GeometricImages, num_tokens: int
    ) -> tuple[GeometryPrediction, PerceivedPhotos]:
        """Read all photos into a KV cache made for them.

        Args:
            photos: the views.
            images: the same for the geometric expert.
            num_tokens: of all photos, with the text before them.
        """
        embedding = self.network.embedding
        assert isinstance(embedding, nn.Embedding)
        cache = KeyValueCache(
            CacheShape.of(self.network.config.mixture),
            num_tokens,
            dtype=embedding.weight.dtype,
            device=self.network.device,
        )
        geometry, position = self.read(photos, images, cache)
        return geometry, PerceivedPhotos(cache, position)

    def read(
        self, photos: PhotoSet, images: GeometricImages, cache: KeyValueCache
    ) -> tuple[GeometryPrediction, int]:
        """Fill a memory with all photos.

        Args:
            photos: the views.
            images: the same for the geometric expert.
            cache: an empty memory.

        Returns:
            Points and cameras of the same pass, and the position of what follows the photos.
        """
        prompt = self.prompts.chat_photos(images.pixels, self.view_attention)
        geometry = self.network(prompt.inputs, Wants(geometry=True), cache).geometry
        return geometry, self._read_semantic(photos, cache, prompt.next_position)

    def _read_semantic(self, photos: PhotoSet, cache: KeyValueCache, position: int) -> int:
        """Add the semantic images to a memory, some views at a time; returns the position after them.

        Each sees the ones before it only, so that passes of a few views compute what one of all would, in
        memory that does not grow with their number.
        """
        step = SEMANTIC_VIEWS_PER_CHUNK * chunk_factor(self.network.device)
        for start in range(0, len(photos.photos), step):
            chosen = photos.photos[start : start + step]
            prompt = self.prompts.semantic_views(prepare_semantic(chosen, self.preparation), position)
            self.network(prompt.inputs, Wants(), cache)
            position = prompt.next_position
        return position
