"""Several processes: set-up under torchrun, and weights sharded over them (FSDP2)."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from g2vlm.errors import G2VLMError
from g2vlm.model.layout import Streams
from g2vlm.model.network import G2VLM, GeometryPrediction, Outputs
from g2vlm.model.precision import Precision

Result = TypeVar("Result")
LONGEST_WAIT = timedelta(hours=3)
"""How long a process waits for the others before it takes them for lost."""


@dataclass(frozen=True)
class Processes:
    """This process among all that train together."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    """Number on its machine; the CUDA device of the process."""

    local_count: int = 1
    """Processes on its machine."""

    def own_threads(self, workers: int) -> int:
        """CPU threads of this process that leave its share of cores to `workers` others that make batches.

        Threads that share a core with those wait for each other most of the time.
        """
        allowed = getattr(os, "sched_getaffinity", None)
        cores = len(allowed(0)) if allowed is not None else os.cpu_count() or 1
        return max(1, cores // self.local_count - workers)

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
    local_rank, own = int(os.environ["LOCAL_RANK"]), None
    if device.type == "cuda":
        own = torch.device("cuda", local_rank)
        torch.cuda.set_device(own)
    # Others wait while one downloads a checkpoint or reads through a long question file.
    dist.init_process_group("nccl" if own else "gloo", timeout=LONGEST_WAIT, device_id=own)
    try:
        yield Processes(dist.get_rank(), count, local_rank, int(os.environ["LOCAL_WORLD_SIZE"]))
    finally:
        dist.destroy_process_group()


def shard_(network: G2VLM, device: torch.device, precision: Precision) -> None:
    """Split every layer's weights over all processes, in place.

    Layers are gathered one at a time when they are needed, those of the towers in the precision of the
    products: half the traffic in bfloat16. All else is gathered, and all gradients are summed, in float32.

    Args:
        network: on the meta device, or filled with the same weights in all processes.
        device: kind of device that the weights will be on.
        precision: of matrix products.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    _show_tensors_in_dataclasses()
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    # Residual streams enter the layers in float32.
    policy = MixedPrecisionPolicy(precision.dtype, torch.float32, cast_forward_inputs=False)
    for layer in _tower_layers(network):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    for block in _head_blocks(network):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


@lru_cache(maxsize=1)
def _show_tensors_in_dataclasses() -> None:
    """Let FSDP find the tensors in what modules return: else it never gathers weights for the backward pass.

    Newer releases of torch look into dataclasses by themselves; torch 2.11 crashes without this.
    """
    for kind in (Streams, GeometryPrediction, Outputs):
        torch.export.register_dataclass(kind)


def _tower_layers(network: G2VLM) -> Iterator[nn.Module]:
    for tower in (network.geometric_encoder, network.semantic_encoder, network.mixture):
        if tower is not None:
            yield from tower.layers  # type: ignore[misc]


def _head_blocks(network: G2VLM) -> Iterator[nn.Module]:
    for head in (network.point_head, network.camera_head, network.global_point_head, network.confidence_head):
        if head is not None:
            yield from head.decoder.blocks  # type: ignore[misc, union-attr]


def whole(tensor: Tensor) -> Tensor:
    """Gather a tensor from its shards, in all processes at once; plain tensors come back as they are."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def sum_over_processes(values: Mapping[str, float | int], device: torch.device) -> dict[str, float]:
    """Sum of each value over all processes, which must have the same names."""
    if not dist.is_initialized():
        return {name: float(value) for name, value in values.items()}
    stacked = torch.tensor([values[name] for name in sorted(values)], dtype=torch.float64, device=device)
    dist.all_reduce(stacked)
    return dict(zip(sorted(values), stacked.tolist(), strict=True))


def any_process(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Which flags are set in any process, so that all of them do the same after the same step."""
    if not dist.is_initialized():
        return list(flags)
    shared = torch.tensor([int(flag) for flag in flags], device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in shared.tolist()]


def gathered_from_all(value: Result) -> list[Result]:
    """What each process has, in the order of their ranks."""
    if not dist.is_initialized():
        return [value]
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return everyone


def on_first(work: Callable[[], Result]) -> Result:
    """Do something in the first process, and hand its result, or its error, to all of them."""
    if not dist.is_initialized():
        return work()
    answer: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            answer[0] = work()
        except G2VLMError as error:
            answer[1] = error
    dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    result: Result = answer[0]
    return result


def forget_gathered_(network: G2VLM) -> None:
    """Let the next pass gather weights anew from their shards, as it must after these were changed.

    Between two passes without a backward pass, FSDP keeps the weights outside the layers gathered.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def reduce_gradients_(network: G2VLM, now: bool) -> None:
    """Whether the next backward pass ends with gradients summed over the processes, or keeps them here."""
    from torch.distributed.fsdp import FSDPModule

    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(now)
