"""Several processes: set-up under torchrun, and weights sharded over them (FSDP2)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from g2vlm.model.network import G2VLM


@dataclass(frozen=True)
class Processes:
    """This process among all that train together."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    """Number on its machine; the CUDA device of the process."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes logs and files."""
        return self.rank == 0


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started; a single process where it did not.

    Args:
        device: kind of device the weights will be on; decides between NCCL and gloo.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), count, local_rank)
    finally:
        dist.destroy_process_group()


@contextmanager
def one_process_first() -> Iterator[bool]:
    """Within it, one process (which gets True) works, the others wait until it is through."""
    if not dist.is_initialized():
        yield True
        return
    is_first = dist.get_rank() == 0
    if not is_first:
        dist.barrier()
    yield is_first
    if is_first:
        dist.barrier()


def shard_(network: G2VLM, device: torch.device) -> None:
    """Split every layer's weights over all processes, in place.

    Layers are gathered one at a time when they are needed. Weights stay float32; the precision of products is
    that of the enclosing autocast.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in _layers(network):
        fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)


def _layers(network: G2VLM) -> Iterator[nn.Module]:
    for tower in (network.geometric_encoder, network.semantic_encoder, network.mixture):
        if tower is not None:
            yield from tower.layers  # type: ignore[misc]
    for head in (network.point_head, network.camera_head, network.global_point_head, network.confidence_head):
        if head is not None:
            yield from head.decoder.blocks  # type: ignore[misc, union-attr]


def whole(tensor: Tensor) -> Tensor:
    """Gather a tensor from its shards, in all processes at once; plain tensors come back as they are."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def mean_over_processes(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """Mean of each value over all processes, which must have the same names."""
    if not dist.is_initialized():
        return values
    stacked = torch.tensor([values[name] for name in sorted(values)], dtype=torch.float64, device=device)
    dist.all_reduce(stacked)
    mean = (stacked / dist.get_world_size()).tolist()
    return dict(zip(sorted(values), mean, strict=True))


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process, so that all of them stop at the same step."""
    if not dist.is_initialized():
        return flag
    shared = torch.tensor([int(flag)], device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return bool(shared.item())


def sharded_states(
    network: G2VLM, optimizers: list[torch.optim.Optimizer]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """State of the network and of its optimizers by weight names, sharded as the weights are."""
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model, moments = get_state_dict(network, optimizers)
    return dict(model), dict(moments)


def set_sharded_states(
    network: G2VLM, optimizers: list[torch.optim.Optimizer], states: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """Restore what `sharded_states` gave."""
    from torch.distributed.checkpoint.state_dict import set_state_dict

    set_state_dict(network, optimizers, model_state_dict=states[0], optim_state_dict=states[1])
