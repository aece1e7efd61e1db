"""What a long reconstruction is built from: something that reconstructs a few frames together."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32

from g2vlm.inference.assembly import assemble_scene
from g2vlm.inference.prompts import PromptBuilder
from g2vlm.inputs.decode import Photo
from g2vlm.inputs.geometric import GeometricImages
from g2vlm.model.config import ViewAttention
from g2vlm.model.network import G2VLM, GeometryPrediction, Wants
from g2vlm.scene.view import View


class Reconstruction(NamedTuple):
    """Views of a few frames and what they look like."""

    views: tuple[View, ...]
    descriptors: Float32[np.ndarray, "views channels"]


@runtime_checkable
class Reconstructor(Protocol):
    """Reconstructs frames together, in a frame and unit of their own."""

    def __call__(self, photos: tuple[Photo, ...], images: GeometricImages) -> Reconstruction:
        """Reconstruct; `images` are the prepared `photos`."""
        ...


class NetworkReconstructor:
    """The network as a `Reconstructor`.

    The descriptor of a view is the mean of its tokens after the geometric encoder, a DINOv2, before any other
    view or position has entered them.
    """

    def __init__(self, network: G2VLM, prompts: PromptBuilder, view_attention: ViewAttention) -> None:
        self.network, self.prompts, self.view_attention = network, prompts, view_attention

    @torch.inference_mode()
    def __call__(self, photos: tuple[Photo, ...], images: GeometricImages) -> Reconstruction:
        """One pass of the network with the released reconstruction prompt."""
        prompt = self.prompts.reconstruction(images.pixels, self.view_attention)
        outputs = self.network(prompt.inputs, Wants(geometry=True, descriptors=True))
        assert isinstance(outputs.geometry, GeometryPrediction)
        scene = assemble_scene(outputs.geometry, images, photos)
        return Reconstruction(scene.views, outputs.descriptors[0].cpu().numpy())
