"""What turns gradients into steps."""

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from g2vlm.training.recipes.recipe import Optimisation, OptimizerKind

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


def make_optimizers(
    weights: dict[str, nn.Parameter], settings: Optimisation, *, fused: bool
) -> list[Optimizer]:
    """The optimizers that together change all weights, one learning rate for all.

    Only matrices are decayed (no norms, biases, scales, tables or embeddings).

    Args:
        weights: what is trained, by name.
        settings: kind, decay and moments.
        fused: one kernel for all of AdamW; not for sharded weights.
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
        optimizers.append(_adamw(rest, settings, fused=fused))
    return optimizers


def orthogonalised(weights: dict[str, nn.Parameter], settings: Optimisation) -> dict[str, nn.Parameter]:
    """The weights that Muon changes; it keeps one moment of each, AdamW two."""
    if settings.kind is not OptimizerKind.MUON:
        return {}
    return {name: w for name, w in weights.items() if w.ndim == 2 and not name.endswith(_OUTSIDE)}


def _adamw(weights: dict[str, nn.Parameter], settings: Optimisation, *, fused: bool) -> AdamW:
    decayed = {name for name, weight in weights.items() if weight.ndim == 2 and name != "embedding.weight"}
    groups = [
        {
            "params": [w for name, w in weights.items() if name in decayed],
            "weight_decay": settings.weight_decay,
        },
        {"params": [w for name, w in weights.items() if name not in decayed], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if fused:
        return AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)
    return AdamW(groups, lr=settings.learning_rate, betas=settings.betas, foreach=False)
