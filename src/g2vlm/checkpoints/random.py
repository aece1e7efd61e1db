"""Checkpoints of pseudo-random weights: for demonstrations, tests and benchmarks without the real ones."""

import json
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor, nn

from g2vlm.checkpoints.files import WEIGHTS
from g2vlm.checkpoints.names import table
from g2vlm.checkpoints.saving import StoredTensor, write_configs, write_safetensors
from g2vlm.model.config import G2VLMConfig, Part, g2vlm_test
from g2vlm.model.network import G2VLM
from g2vlm.model.outline import outline
from g2vlm.model.precision import Placement

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Special tokens of Qwen2-VL, in order."""


def random_weight(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Values of one of our weights, float32: depends only on its name, its shape and the seed."""
    generator = torch.Generator().manual_seed((zlib.crc32(name.encode()) + seed) % 2**63)
    values = torch.randn(shape, generator=generator)
    leaf = name.rpartition(".")[2]
    if leaf == "gamma":
        return values.mul_(0.02).add_(0.1)
    if leaf == "bias":
        return values.mul_(0.02)
    if leaf == "weight" and len(shape) == 1:
        return values.mul_(0.05).add_(1.0)
    if leaf == "weight" and name != "embedding.weight":
        return values.mul_(1 / math.sqrt(math.prod(shape[1:])))
    return values.mul_(0.5)


def random_network(
    config: G2VLMConfig, placement: Placement, *, parts: frozenset[Part] | None = None, seed: int = 0
) -> G2VLM:
    """A network of pseudo-random weights, made tensor by tensor in the placement's precision."""
    network = outline(config, parts)
    for name, empty in list(network.named_parameters()):
        module_name, _, leaf = name.rpartition(".")
        values = random_weight(name, tuple(empty.shape), seed)
        values = values.to(placement.device, placement.precision.dtype_of(name))
        setattr(network.get_submodule(module_name), leaf, nn.Parameter(values, requires_grad=False))
    return network.eval()


def random_checkpoint(
    folder: Path,
    config: G2VLMConfig | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a complete checkpoint folder of pseudo-random weights, one tensor in memory at a time.

    Args:
        folder: created if needed.
        config: sizes; a very small network by default. The tokenizer written beside it knows single bytes
            only.
        seed: seed of the weights.
        dtype: type on disk.

    Returns:
        The folder.
    """
    config = config or g2vlm_test()
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {name: tuple(p.shape) for name, p in outline(config).named_parameters()}
    tensors = []
    for row in table(config):
        for key, shape in row.released_shapes(shapes[row.ours]).items():
            make = _Maker(row.ours, key, shape, seed)
            tensors.append(StoredTensor(key, shape, dtype, make))
    write_safetensors(folder / WEIGHTS, tensors)
    write_configs(folder, config)
    write_byte_tokenizer(folder)
    preparation = {
        "patch_size": config.semantic_encoder.patch_size,
        "min_pixels": 3136,
        "max_pixels": 12845056,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preparation))
    return folder


class _Maker:
    """Makes one stored tensor when its turn comes."""

    def __init__(self, ours: str, key: str, shape: tuple[int, ...], seed: int) -> None:
        self.ours, self.shape, self.seed = ours, shape, seed + zlib.crc32(key.encode())

    def __call__(self) -> Tensor:
        flat = (self.shape[0], math.prod(self.shape[1:])) if len(self.shape) > 3 else self.shape
        return random_weight(self.ours, flat, self.seed).view(self.shape)


def write_byte_tokenizer(folder: Path) -> None:
    """Write a tokenizer of 256 bytes and the special tokens, in Qwen2's layout."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
