"""Low-rank updates of the experts (LoRA, arXiv 2106.09685): fine-tuning with a hundredth of the optimizer.

The layers and the file format are those of `peft`: an exported adapter opens there and loads back into ours.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from g2vlm.errors import CheckpointError, InputError
from g2vlm.model.network import G2VLM
from g2vlm.scene.writing import atomic_path
from g2vlm.training.recipes.recipe import LoraSettings
from g2vlm.training.recipes.stages import Group

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTED = ("qkv", "out", "mlp.gate_up", "mlp.down")
"""Linear maps of an expert's layer that get an update."""
BASE = "base_layer"
"""What peft calls the linear map beneath an update."""
_EXPERTS = {Group.GEOMETRIC_EXPERT: "geometric", Group.SEMANTIC_EXPERT: "semantic"}
_NAME = "default"
_PREFIX = "base_model.model."
"""What peft puts before the names of a network's own weights in its files."""
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


def add_lora_(network: G2VLM, trained: frozenset[Group], settings: LoraSettings) -> None:
    """Give the matrices of the trained experts an update each, in place.

    Args:
        network: on the meta device or filled; updates lie on the meta device until they are filled.
        trained: groups of weights that may change; only experts are adapted.
        settings: rank and scale.

    Raises:
        InputError: no expert is trained, or peft is not installed.
    """
    experts = [_EXPERTS[group] for group in _EXPERTS if group in trained]
    if not experts:
        raise InputError(
            "Expected a recipe that trains an expert, since low-rank updates are of experts only."
        )
    peft = _peft()
    leaves = "|".join(leaf.replace(".", r"\.") for leaf in ADAPTED)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=rf"mixture\.layers\.\d+\.({'|'.join(experts)})\.({leaves})",
    )
    peft.inject_adapter_in_model(config, network, _NAME, low_cpu_mem_usage=True)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise InputError("Low-rank updates need peft: pip install 'g2vlm[train]'") from error
    return peft


def is_update(name: str) -> bool:
    """Whether a weight belongs to an update."""
    return ".lora_A." in name or ".lora_B." in name


def drawn_update(name: str, shape: tuple[int, ...], seed: int) -> Float[Tensor, "rows columns"]:
    """What half of an update starts from: one is drawn, the other zero, so that the whole is zero."""
    if ".lora_B." in name:
        return torch.zeros(shape)
    generator = torch.Generator().manual_seed((zlib.crc32(name.encode()) + seed * 7_919) % 2**63)
    reach = 1 / math.sqrt(shape[1])
    return torch.empty(shape).uniform_(-reach, reach, generator=generator)


def freeze_all_but_lora_(network: G2VLM) -> list[tuple[str, nn.Parameter]]:
    """Let gradients flow into low-rank updates only, and return them with their names."""
    network.requires_grad_(False)
    chosen = [(name, weight) for name, weight in network.named_parameters() if is_update(name)]
    for _, weight in chosen:
        weight.requires_grad_(True)
    return chosen


def adapted_layers(network: nn.Module) -> dict[str, Any]:
    """Layers with an update, by the name of the plain linear map that they stand for."""
    return {name: module for name, module in network.named_modules() if hasattr(module, "lora_A")}


def merged_weight(
    layer: Any, whole: Callable[[Tensor], Tensor] = lambda tensor: tensor
) -> Float[Tensor, "outputs inputs"]:
    """The weight of one plain linear map that does what a layer with an update does.

    Args:
        layer: one of `adapted_layers`.
        whole: gathers a weight from its shards.
    """
    parts = (layer.base_layer, layer.lora_B[_NAME], layer.lora_A[_NAME])
    base, up, down = (whole(part.weight.detach()) for part in parts)
    return (base.float() + (up.float() @ down.float()) * layer.scaling[_NAME]).to(base.dtype)


@contextmanager
def merged_lora(network: G2VLM) -> Iterator[None]:
    """Within it, the network has plain linear maps again, with the updates inside their weights."""
    layers = adapted_layers(network)
    kept = {name: layer.base_layer.weight.data for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.base_layer.weight.data = merged_weight(layer)
            _place(network, name, layer.base_layer)
        yield
    finally:
        for name, layer in layers.items():
            layer.base_layer.weight.data = kept[name]
            _place(network, name, layer)


def _place(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)


def save_adapter(network: G2VLM, updates: Mapping[str, Tensor], base: str, folder: Path) -> None:
    """Write the updates as peft does.

    Args:
        network: with updates.
        updates: their whole weights by name, on any device.
        base: name of the checkpoint that they were trained on.
        folder: gets `adapter_config.json` and `adapter_model.safetensors`.
    """
    from safetensors.torch import save_file

    config: LoraConfig = network.peft_config[_NAME]  # type: ignore[index, assignment]
    config.base_model_name_or_path = base
    config.inference_mode = True
    state = {
        _PREFIX + name.replace(f".{_NAME}.", "."): weight.detach().cpu().contiguous()
        for name, weight in updates.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / _WEIGHTS) as temporary:
        save_file(state, str(temporary), metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def merge_adapter_(network: G2VLM, folder: Path) -> None:
    """Put the updates of an adapter, written here or by peft, into the weights of a network.

    Args:
        network: the one that the adapter was trained on, filled.
        folder: with `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        CheckpointError: a file is missing, or the adapter belongs to another network.
        InputError: peft is not installed.
    """
    from safetensors.torch import load_file

    if not ((folder / _CONFIG).is_file() and (folder / _WEIGHTS).is_file()):
        raise CheckpointError(f"Expected {_CONFIG} and {_WEIGHTS} in {folder}: give an adapter's folder.")
    peft = _peft()
    state = {name.removeprefix(_PREFIX): w for name, w in load_file(str(folder / _WEIGHTS)).items()}
    config = peft.LoraConfig.from_pretrained(str(folder))
    try:
        peft.inject_adapter_in_model(config, network, _NAME)
        wanted = {
            name.replace(f".{_NAME}.", ".") for name, _ in network.named_parameters() if is_update(name)
        }
        if wanted != state.keys():
            raise ValueError(f"{len(wanted ^ state.keys())} weights do not match")
        peft.set_peft_model_state_dict(network, state)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"Expected an adapter of this network in {folder}, got another ({str(error).splitlines()[0]}): "
            "load the checkpoint that it was trained on."
        ) from error
    for name, layer in adapted_layers(network).items():
        layer.base_layer.weight.data = merged_weight(layer)
        _place(network, name, layer.base_layer)
    network.requires_grad_(False)
