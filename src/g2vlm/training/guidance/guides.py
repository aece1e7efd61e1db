"""The guided attention of a recipe: between views, and of words."""

import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.model.network import G2VLM
from g2vlm.training.guidance.attention_tap import AttentionTap
from g2vlm.training.guidance.matching import MatchingGuide, matching_loss, patch_matches
from g2vlm.training.guidance.pointing import PointingGuide, pointing_loss, quoting_loss
from g2vlm.training.sources.batches import TrainingBatch


class AttentionGuides:
    """Losses on the attention of a network that is being trained.

    Args:
        network: is listened to, from now on.
        matching: guides attention between views; None does not.
        pointing: guides the attention of words; None does not.

    Raises:
        InputError: a guide names a layer that there is not, or activations are recomputed.
    """

    def __init__(
        self, network: G2VLM, matching: MatchingGuide | None, pointing: PointingGuide | None
    ) -> None:
        self.matching, self.pointing = matching, pointing
        self._patch_size = network.config.geometric_encoder.patch_size
        words = () if pointing is None else pointing.layers
        views = () if matching is None else matching.layers
        self._tap = AttentionTap(network, geometric=(*views, *words), semantic=words)

    def losses(self, batch: TrainingBatch) -> dict[str, tuple[float, Float[Tensor, ""]]]:
        """Weight and loss by name, of the network's last pass, which was over this batch."""
        found: dict[str, tuple[float, Tensor]] = {}
        if self.matching is not None and batch.geometry is not None:
            matches = patch_matches(batch.geometry, self._patch_size)
            heard = [self._tap.geometric[layer] for layer in self.matching.layers]
            terms = [matching_loss(layer.queries[:, 0], layer.keys[:, 0], matches) for layer in heard]
            found["matching"] = (self.matching.weight, torch.stack(terms).mean())
        if self.pointing is not None and batch.pointing is not None:
            loss = pointing_loss(self._tap.semantic, self._tap.geometric, self.pointing, batch.pointing)
            found["pointing"] = (self.pointing.weight, loss)
            quoting = quoting_loss(self._tap.semantic[self.pointing.layers[-1]], batch.pointing.quotes)
            found["quoting"] = (self.pointing.weight, quoting)
        self._tap.forget()
        return found
