"""Writing checkpoint folders in the released layout, tensor by tensor."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from g2vlm.checkpoints.files import OWN_CONFIG, WEIGHTS, own_config_text, released_config_texts
from g2vlm.checkpoints.names import table
from g2vlm.errors import OutputError
from g2vlm.model.config import G2VLMConfig
from g2vlm.model.network import G2VLM

TYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16"}
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "preprocessor_config.json",
    "generation_config.json",
    "chat_template.json",
)
"""Files that travel with the weights when they exist."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor to be written, made only when its turn comes."""

    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]


def write_safetensors(path: Path, tensors: list[StoredTensor]) -> None:
    """Write a safetensors file holding one tensor in memory at a time; replaces `path` when complete.

    The library's own writer wants every tensor at once, which for the full model is 18 GB.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        size = int(torch.Size(tensor.shape).numel()) * tensor.dtype.itemsize
        header[tensor.key] = {
            "dtype": TYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little"))
            file.write(text)
            for tensor in tensors:
                values = tensor.make().detach().to("cpu", tensor.dtype).reshape(tensor.shape).contiguous()
                file.write(values.view(torch.uint8).numpy().data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"Could not write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def released_tensors(network: G2VLM, dtype: torch.dtype | None = None) -> Iterator[StoredTensor]:
    """The weights of a network under their released names and shapes, each in its own type or in `dtype`."""
    weights = dict(network.named_parameters())
    for row in table(network.config, network.parts):
        values = weights[row.ours].detach()
        start = 0
        for key, shape in row.released_shapes(tuple(values.shape)).items():
            part = values[start : start + shape[0]]
            start += shape[0]
            yield StoredTensor(key, shape, dtype or values.dtype, lambda part=part: part)  # type: ignore[misc]


def write_configs(folder: Path, config: G2VLMConfig) -> None:
    """Write the released configuration files and our complete one."""
    texts = {**released_config_texts(config), OWN_CONFIG: own_config_text(config)}
    for name, text in texts.items():
        temporary = folder / f".{name}.tmp"
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(folder / name)
        finally:
            temporary.unlink(missing_ok=True)


def save_network(
    network: G2VLM, folder: Path, *, tokenizer_from: Path | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write a checkpoint folder that `load_network` and the public code can read.

    Args:
        network: a complete network; a network built without some parts cannot be saved.
        folder: created if needed.
        tokenizer_from: folder whose tokenizer files are copied beside the weights.
        dtype: type on disk, float32 or bfloat16; by default every tensor keeps its own.

    Raises:
        OutputError: the folder cannot be written, or the network is not complete.
    """
    absent = network.config.parts - network.parts
    if absent:
        names = ", ".join(sorted(part.value for part in absent))
        raise OutputError(f"Expected a complete network to save, but it was loaded without: {names}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The weights come first: if they do not fit on the disk, an older checkpoint here stays as it was.
        write_safetensors(folder / WEIGHTS, list(released_tensors(network, dtype)))
        write_configs(folder, network.config)
        if tokenizer_from is not None and tokenizer_from.resolve() != folder.resolve():
            for name in TOKENIZER_FILES:
                if (tokenizer_from / name).is_file():
                    shutil.copyfile(tokenizer_from / name, folder / name)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"Could not write {folder}: {error}") from error
