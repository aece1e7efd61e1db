"""The weights that training begins with, each process reading or drawing its own share of them."""

import dataclasses

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from g2vlm.checkpoints.loading import open_checkpoint
from g2vlm.checkpoints.shares import Share, fill_shares
from g2vlm.model.initialisation import starting_weight
from g2vlm.model.network import G2VLM
from g2vlm.training.lora import BASE, drawn_update, is_update
from g2vlm.training.recipes.recipe import FromCheckpoint, Recipe
from g2vlm.training.run.setup import Start


@torch.no_grad()
def fill_(network: G2VLM, recipe: Recipe, start: Start) -> None:
    """Fill an empty network in place.

    Args:
        network: allocated but not filled, whole or sharded, with or without low-rank updates.
        recipe: says where weights come from, and the seed of those that are drawn.
        start: the checkpoint or the sizes.
    """
    weights = dict(network.named_parameters())
    if isinstance(recipe.start, FromCheckpoint):

        def share_of(name: str) -> Share:
            module, _, leaf = name.rpartition(".")
            return own_share(weights.get(name, weights.get(f"{module}.{BASE}.{leaf}")))

        fill_shares(open_checkpoint(start.folder)[0], start.config, share_of)
    else:
        choices = recipe.start.initialisation
        choices = dataclasses.replace(choices, seed=choices.seed + recipe.seed)
        for name, weight in weights.items():
            if not is_update(name):
                ours = name.replace(f".{BASE}.", ".")
                _put(weight, starting_weight(ours, tuple(weight.shape), choices, network))
    for name, weight in weights.items():
        if is_update(name):
            _put(weight, drawn_update(name, tuple(weight.shape), recipe.seed))


def own_share(weight: nn.Parameter | None) -> Share:
    """The part of a weight that lies in this process."""
    assert weight is not None
    if not isinstance(weight, DTensor):
        return Share(weight.detach().view(-1))
    # FSDP gives every process as many rows as the first one, until none are left.
    mesh, num_rows = weight.device_mesh, weight.shape[0]
    rows = -(-num_rows // mesh.size())
    first = min(rows * mesh.get_local_rank(), num_rows)
    local = weight.to_local()
    assert local.shape[0] == min(rows, num_rows - first), "weights are sharded in another way than expected"
    return Share(local.detach().view(-1), first * (weight.numel() // num_rows))


def _put(weight: nn.Parameter, values: Tensor) -> None:
    share = own_share(weight)
    share.values.copy_(values.reshape(-1)[share.start : share.start + len(share.values)])
