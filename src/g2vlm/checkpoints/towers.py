"""A checkpoint put together from public towers, where the training of the paper begins.

DINOv2 with registers becomes the geometric encoder; Qwen2-VL becomes the semantic encoder, the semantic
expert, embedding and language head. The geometric expert, the bridge, the geometry heads and the norms
of queries and keys in the semantic expert, which Qwen2-VL does not have, start fresh.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from g2vlm.checkpoints.files import WEIGHTS, config_of_towers
from g2vlm.checkpoints.loading import KeyReport, Weights
from g2vlm.checkpoints.names import KeyRow, table
from g2vlm.checkpoints.saving import TOKENIZER_FILES, StoredTensor, write_configs, write_safetensors
from g2vlm.errors import CheckpointError
from g2vlm.model.config import EncoderWindows, G2VLMConfig
from g2vlm.model.initialisation import BridgeStart, Initialisation, starting_weight
from g2vlm.model.outline import outline

DINO, QWEN = "dinov2_with_registers", "qwen2_vl"
"""`model_type` of the folders."""
PLACES = (("dino_model.", DINO, ""), ("vit_model.", QWEN, "visual."), ("language_model.", QWEN, ""))
"""Beginning of a released key, the folder that has it, and the beginning there."""
TIED = ("language_model.lm_head.weight", "language_model.model.embed_tokens.weight")
"""Where words are chosen by the numbers by which they are read, only the latter are stored."""
_NORMS = (".q_norm.weight", ".k_norm.weight")
_FRESH = Initialisation(fan_in=False, bridge=BridgeStart.ZERO, geometric_scale=0.01)


@dataclass(frozen=True)
class Assembled:
    """What a checkpoint was put together from."""

    folder: Path
    config: G2VLMConfig
    taken: int
    """Stored tensors that came from the towers."""
    fresh: int
    """Stored tensors that were drawn."""


def assemble(
    dino: Path,
    qwen: Path,
    folder: Path,
    *,
    windows: EncoderWindows = EncoderWindows.PER_VIEW,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Assembled:
    """Write a checkpoint folder of two public towers and fresh weights, one tensor in memory at a time.

    Args:
        dino: folder in the layout of `facebook/dinov2-with-registers-large`.
        qwen: folder in the layout of `Qwen/Qwen2-VL-2B-Instruct`, tokenizer included.
        folder: created if needed.
        windows: of the geometric encoder: `PER_VIEW` as it was trained, or `RELEASED`.
        dtype: type on disk.
        seed: of what is drawn.

    Raises:
        CheckpointError: a folder is none of that kind, lacks keys, or has keys that have no place.
        OutputError: the folder cannot be written.
    """
    places = {DINO: dino, QWEN: qwen}
    configs = {kind: _read_config(place, kind) for kind, place in places.items()}
    config = config_of_towers(configs[QWEN], configs[DINO])
    encoder = replace(config.geometric_encoder, windows=windows)
    config = replace(config, geometric_encoder=encoder)
    weights = {kind: _open(place, kind) for kind, place in places.items()}
    fresh = _Fresh(config, replace(_FRESH, seed=seed))
    sources = _sources(config, fresh.shapes, weights)
    _require_preparation(qwen)
    tensors = list(_tensors(config, sources, weights, fresh, dtype))
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / WEIGHTS, tensors)
    write_configs(folder, config)
    for name in TOKENIZER_FILES:
        if (qwen / name).is_file():
            shutil.copyfile(qwen / name, folder / name)
    return Assembled(folder, config, len(sources), len(tensors) - len(sources))


def _require_preparation(qwen: Path) -> None:
    """Make sure that words and pictures can be prepared for the towers, before anything is written.

    Raises:
        CheckpointError: the tokenizer or the image preparation is missing.
    """
    slow = (qwen / "vocab.json").is_file() and (qwen / "merges.txt").is_file()
    missing = [] if slow or (qwen / "tokenizer.json").is_file() else ["tokenizer.json"]
    if not (qwen / "preprocessor_config.json").is_file():
        missing.append("preprocessor_config.json")
    if missing:
        raise CheckpointError(
            f"Expected {' and '.join(missing)} of {QWEN} in {qwen}, found none: download the whole folder."
        )


def _read_config(folder: Path, kind: str) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        found = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"Expected a folder of model_type {kind} with a config.json at {folder}, got {error!r}: download "
            "it first, for example with  hf download"
        ) from error
    if found != kind:
        raise CheckpointError(
            f"Expected a model of type {kind} in {folder}, got {found}: exchange the folders."
        )
    return dict(config)


def _open(folder: Path, kind: str) -> Weights:
    if not any((folder / name).is_file() for name in (WEIGHTS, f"{WEIGHTS}.index.json")):
        raise CheckpointError(f"Expected {WEIGHTS} of {kind} in {folder}, found none: download it again.")
    return Weights.open(folder)


def _sources(
    config: G2VLMConfig, shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, Weights]
) -> dict[str, tuple[str, str]]:
    """The folder and the key there of every released key that a tower has.

    Raises:
        CheckpointError: the keys or shapes of the towers are not those that are wanted of them.
    """
    wanted: dict[str, tuple[str, str]] = {}
    misshapen: dict[str, list[str]] = {kind: [] for kind in weights}
    for row in table(config):
        for key, shape in row.released_shapes(shapes[row.ours]).items():
            if (place := _place(key, weights)) is None:
                continue
            wanted[key] = place
            stored = weights[place[0]].shapes.get(place[1])
            if stored is not None and stored != shape:
                misshapen[place[0]].append(f"{place[1]} {list(stored)} instead of {list(shape)}")
    for kind, own in weights.items():
        keys = {key for tower, key in wanted.values() if tower == kind}
        report = KeyReport(
            missing=tuple(sorted(keys - own.shapes.keys())),
            unexpected=tuple(sorted(own.shapes.keys() - keys)),
            misshapen=tuple(sorted(misshapen[kind])),
        )
        if report:
            raise CheckpointError(
                f"{own.path} is not a complete {kind} model; nothing was written.\n{report}"
            )
    return wanted


def _place(key: str, weights: Mapping[str, Weights]) -> tuple[str, str] | None:
    """Where a released key lies; None where it starts fresh."""
    if "_moe_geo" in key or key.endswith(_NORMS) or ".ls1." in key or ".ls2." in key:
        return None
    if key == TIED[0] and "lm_head.weight" not in weights[QWEN].shapes:
        key = TIED[1]
    for beginning, kind, theirs in PLACES:
        if key.startswith(beginning):
            return kind, theirs + key.removeprefix(beginning)
    return None


@dataclass(frozen=True)
class _Maker:
    """Makes one stored tensor when its turn comes: from a tower, or drawn and cut out of our weight."""

    place: tuple[Weights, str] | None
    row: KeyRow
    start: int
    stored: tuple[int, ...]
    fresh: "_Fresh"

    def __call__(self) -> Tensor:
        if self.place is not None:
            weights, key = self.place
            return weights.tensor(key)
        whole = self.fresh.weight(self.row.ours)
        return whole[self.start : self.start + self.stored[0]].reshape(self.stored)


class _Fresh:
    """Draws weights under our names."""

    def __init__(self, config: G2VLMConfig, choices: Initialisation) -> None:
        self._network, self._choices = outline(config), choices
        self.shapes = {name: tuple(p.shape) for name, p in self._network.named_parameters()}

    def weight(self, name: str) -> Tensor:
        """One of them, whole."""
        return starting_weight(name, self.shapes[name], self._choices, self._network)


def _tensors(
    config: G2VLMConfig,
    sources: Mapping[str, tuple[str, str]],
    weights: Mapping[str, Weights],
    fresh: _Fresh,
    dtype: torch.dtype,
) -> Iterator[StoredTensor]:
    for row in table(config):
        start = 0
        for key, stored in row.released_shapes(fresh.shapes[row.ours]).items():
            place = (weights[sources[key][0]], sources[key][1]) if key in sources else None
            yield StoredTensor(key, stored, dtype, _Maker(place, row, start, stored, fresh))
            start += stored[0]
