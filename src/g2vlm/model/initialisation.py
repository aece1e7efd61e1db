"""Weights to start training from scratch.

Matrices are drawn from a truncated normal; those that write into a residual stream are shrunk by the depth of
their tower, so that its variance does not grow. Geometry starts from one plain guess for every pixel: a flat
wall at distance one (z = exp(0)), seen from one pose that all views share.
"""

import math
import zlib
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn

from g2vlm.model.network import G2VLM

ROTATION_START = ((1.0, 0.1, -0.05), (-0.15, 0.9, 0.1), (0.05, -0.05, 1.1))
"""First guess of the free 3x3 matrix of the camera head: near the identity, but with singular values apart,
where the projection to the nearest rotation has a well-conditioned derivative."""

_RESIDUAL_WRITERS = ("out.weight", "mlp.down.weight")
_REACH = 3.0


class BridgeStart(Enum):
    """How the map from the geometric encoder to the mixture starts."""

    ZERO = "zero"
    """As in the paper: a pre-trained mixture is not disturbed at first."""
    RANDOM = "random"
    """Like any other matrix: from scratch, zero would only delay learning."""


@dataclass(frozen=True)
class Initialisation:
    """Choices of a start from scratch."""

    std: float = 0.02
    """Standard deviation of embeddings and tables; matrices use it as a floor, see `fan_in`."""
    fan_in: bool = True
    """Draw matrices with a standard deviation of 1 / sqrt(inputs), which suits narrow networks, instead of
    `std`."""
    bridge: BridgeStart = BridgeStart.RANDOM
    """Start of the bridge."""
    geometric_scale: float = 1.0
    """LayerScale of the geometric expert; the released model started at 0.01 inside a pre-trained one."""
    encoder_scale: float = 1.0
    """LayerScale of the geometric encoder."""
    prediction_gain: float = 0.1
    """Factor on the last layer of every geometry head: the first predictions are near-constant."""
    seed: int = 0
    """Every tensor is drawn from this seed and its own name, whatever the order."""


def initialise_(network: G2VLM, choices: Initialisation = Initialisation()) -> G2VLM:
    """Fill a network with starting weights, in place, and return it.

    Args:
        network: any of its parts may be missing.
        choices: what to start from.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(starting_weight(name, tuple(parameter.shape), choices, network))
    return network


def starting_weight(
    name: str, shape: tuple[int, ...], choices: Initialisation, network: G2VLM
) -> Float[Tensor, "..."]:
    """What one weight of a network starts from, whatever the others do; its own numbers are not read.

    Args:
        name: ours.
        shape: of the whole weight.
        choices: what to start from.
        network: whose depths decide how much residual branches are shrunk.
    """
    leaf = name.rpartition(".")[2]
    if leaf == "gamma":
        inside_mixture = name.startswith("mixture.")
        return torch.full(shape, choices.geometric_scale if inside_mixture else choices.encoder_scale)
    if name == "camera_head.camera.rotation.bias":
        return torch.tensor(ROTATION_START).flatten()
    if leaf == "bias":
        return torch.zeros(shape)
    if leaf == "weight" and len(shape) == 1:
        return torch.ones(shape)
    if name == "bridge.weight" and choices.bridge is BridgeStart.ZERO:
        return torch.zeros(shape)
    return _drawn(name, shape, choices) * _gain(name, choices, network)


def _drawn(name: str, shape: tuple[int, ...], choices: Initialisation) -> Tensor:
    generator = torch.Generator().manual_seed((zlib.crc32(name.encode()) + choices.seed * 7_919) % 2**63)
    is_matrix = len(shape) == 2 and name != "embedding.weight"
    std = 1 / math.sqrt(shape[1]) if is_matrix and choices.fan_in else choices.std
    values = torch.empty(shape)
    return nn.init.trunc_normal_(values, std=std, a=-_REACH * std, b=_REACH * std, generator=generator)


def _gain(name: str, choices: Initialisation, network: G2VLM) -> float:
    if name.endswith(("prediction.proj.weight", "camera.translation.weight", "camera.rotation.weight")):
        return choices.prediction_gain
    if name.endswith(_RESIDUAL_WRITERS) and ".layers." in name:
        tower = network.get_submodule(name.split(".layers.")[0])
        return 1 / math.sqrt(2 * len(tower.layers))  # type: ignore[arg-type]
    if name.endswith(_RESIDUAL_WRITERS) and ".blocks." in name:
        tower = network.get_submodule(name.split(".blocks.")[0])
        return 1 / math.sqrt(2 * len(tower.blocks))  # type: ignore[arg-type]
    return 1.0
