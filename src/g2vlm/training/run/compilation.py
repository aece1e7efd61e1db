"""Compiled layers: fewer passes over memory in training."""

import torch

from g2vlm.model.network import G2VLM


def compile_layers_(network: G2VLM) -> None:
    """Compile the layers of all towers and decoders, in place; names and values of weights stay.

    Image tokens come in few numbers, and each gets code of its own. Text is of any length: the semantic
    experts get code for all lengths.
    """
    for encoder in (network.geometric_encoder, network.semantic_encoder):
        if encoder is not None:
            for layer in encoder.layers:  # type: ignore[union-attr]
                layer.forward = torch.compile(layer.forward, dynamic=False)
    if network.mixture is not None:
        for layer in network.mixture.layers:  # type: ignore[union-attr]
            for expert, dynamic in ((layer.geometric, False), (layer.semantic, True)):
                expert.project = torch.compile(expert.project, dynamic=dynamic)
                expert.finish = torch.compile(expert.finish, dynamic=dynamic)
    for head in (network.point_head, network.camera_head, network.global_point_head):
        if head is not None:
            for block in head.decoder.blocks:  # type: ignore[union-attr]
                block.forward = torch.compile(block.forward, dynamic=False)
