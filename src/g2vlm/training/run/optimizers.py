"""What turns gradients into steps."""

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from g2vlm.training.recipes.recipe import Optimisation, OptimizerKind

FUSED_DEVICES = ("cpu", "cuda", "mps")
"""Where AdamW has one kernel for all that it does to a weight."""
_OUTSIDE = (
    "embedding.weight",
    "language_head.weight",
    "patch_embedding.weight",
    "prediction.proj.weight",
    "camera.translation.weight",
    "camera.rotation.weight",
    "mask_token",
)
"""How names of matrices end that lead from pictures and words to channels or back: Muon is for the others."""


def make_optimizers(weights: dict[str, nn.Parameter], settings: Optimisation) -> list[Optimizer]:
    """The optimizers that together change all weights, one learning rate for all.

    Only matrices are decayed (no norms, biases, scales, tables or embeddings).

    Args:
        weights: what is trained, by name.
        settings: kind, decay and moments.
    """
    inside = orthogonalised(weights, settings)
    rest = {name: weight for name, weight in weights.items() if name not in inside}
    optimizers: list[Optimizer] = []
    if inside:
        rate, decay = settings.learning_rate, settings.weight_decay
        # Steps as large as those of AdamW, so that one rate and one decay suit both.
        optimizers.append(
            Muon(list(inside.values()), lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        )
    if rest:
        optimizers.append(_adamw(rest, settings))
    return optimizers


def orthogonalised(weights: dict[str, nn.Parameter], settings: Optimisation) -> dict[str, nn.Parameter]:
    """The weights that Muon changes; it keeps one moment of each, AdamW two."""
    if settings.kind is not OptimizerKind.MUON:
        return {}
    return {name: w for name, w in weights.items() if w.ndim == 2 and not name.endswith(_OUTSIDE)}


def _adamw(weights: dict[str, nn.Parameter], settings: Optimisation) -> AdamW:
    decayed = {name for name, weight in weights.items() if weight.ndim == 2 and name != "embedding.weight"}
    groups = [
        {
            "params": [w for name, w in weights.items() if name in decayed],
            "weight_decay": settings.weight_decay,
        },
        {"params": [w for name, w in weights.items() if name not in decayed], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(weight.device.type in FUSED_DEVICES for weight in weights.values())
    return AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=fused)


@torch.no_grad()
def moments_of(weights: dict[str, nn.Parameter], optimizers: list[Optimizer]) -> dict[str, dict[str, Tensor]]:
    """What the optimizers keep about each weight, by its name; the tensors are theirs, not copies.

    A weight that has seen no gradient yet gets the zeros that its first one would have started from, so that
    every state holds the same tensors, whatever the data were so far.
    """
    names = {id(weight): name for name, weight in weights.items()}
    moments = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                state = optimizer.state[weight]
                if not state:
                    state.update(_fresh_moments(optimizer, weight))
                moments[names[id(weight)]] = dict(state)
    return moments


def _fresh_moments(optimizer: Optimizer, weight: Tensor) -> dict[str, Tensor]:
    if isinstance(optimizer, Muon):
        return {"momentum_buffer": torch.zeros_like(weight)}
    # A fused step counts on the device of the weights, any other one on the CPU.
    device = weight.device if optimizer.defaults["fused"] else torch.device("cpu")
    return {
        "step": torch.zeros((), dtype=torch.float32, device=device),
        "exp_avg": torch.zeros_like(weight),
        "exp_avg_sq": torch.zeros_like(weight),
    }
