"""Compiled layers: fewer passes over memory in training."""

import torch

from g2vlm.model.network import G2VLM


def compile_layers_(network: G2VLM) -> None:
    """Compile, in place, what image tokens pass through; names and values of weights stay.

    Text is short and of many lengths, so that the semantic expert of each layer is left as it is: every new
    length would be compiled anew.
    """
    for encoder in (network.geometric_encoder, network.semantic_encoder):
        if encoder is not None:
            for layer in encoder.layers:  # type: ignore[union-attr]
                layer.forward = torch.compile(layer.forward, dynamic=False)
    if network.mixture is not None:
        for layer in network.mixture.layers:  # type: ignore[union-attr]
            expert = layer.geometric
            expert.project = torch.compile(expert.project, dynamic=False)
            expert.finish = torch.compile(expert.finish, dynamic=False)
    for head in (network.point_head, network.camera_head, network.global_point_head):
        if head is not None:
            for block in head.decoder.blocks:  # type: ignore[union-attr]
                block.forward = torch.compile(block.forward, dynamic=False)
