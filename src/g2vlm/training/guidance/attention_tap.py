"""Listening to the attention of a network while it trains, for losses that guide it."""

from collections.abc import Sequence

import torch

from g2vlm.errors import InputError
from g2vlm.model.mixture import ExpertLayer, Projections
from g2vlm.model.network import G2VLM
from g2vlm.model.rotary import Rotation


class AttentionTap:
    """Hands out queries, keys and values of some layers after each pass that records gradients.

    Args:
        network: whose layers are listened to, from now on.
        geometric: layers of the mixture, from 0, whose geometric expert is heard.
        semantic: layers whose semantic expert is heard.

    Raises:
        InputError: the network has no such layer, or recomputes its layers in the backward pass.
    """

    def __init__(self, network: G2VLM, geometric: Sequence[int] = (), semantic: Sequence[int] = ()) -> None:
        mixture = network.mixture
        assert mixture is not None
        count = len(mixture.layers)  # type: ignore[arg-type]
        if any(not 0 <= layer < count for layer in (*geometric, *semantic)):
            raise InputError(f"Expected guided layers from 0 to {count - 1}, got {geometric} and {semantic}.")
        if mixture.checkpointing:
            raise InputError("Expected no checkpointing beside guided attention: switch one of the two off.")
        self.geometric: dict[int, Projections] = {}
        """Of the patches of all views, by layer, after the last pass; empty where no view was shown."""
        self.semantic: dict[int, Projections] = {}
        """Of texts and semantic images, by layer, after the last pass."""
        for index in dict.fromkeys(geometric):
            _listen(mixture.layers[index].geometric, index, self.geometric)  # type: ignore[index, union-attr]
        for index in dict.fromkeys(semantic):
            _listen(mixture.layers[index].semantic, index, self.semantic)  # type: ignore[index, union-attr]

    def forget(self) -> None:
        """Drop what was heard, with the memory it holds."""
        self.geometric.clear()
        self.semantic.clear()


def _listen(expert: ExpertLayer, index: int, heard: dict[int, Projections]) -> None:
    project = expert.project

    def listened(x: torch.Tensor, rotation: Rotation) -> Projections:
        projections = project(x, rotation)
        if torch.is_grad_enabled():
            heard[index] = projections
        return projections

    expert.project = listened  # type: ignore[method-assign]
