"""Strict, memory-mapped loading of a checkpoint folder.

Numbers are converted on their way from the mapped file into weights that are allocated once, so that the peak
of anonymous memory is the weights themselves; see `filling`.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from g2vlm.checkpoints.files import WEIGHTS, read_config
from g2vlm.checkpoints.filling import copy_all, pieces_of
from g2vlm.checkpoints.names import KeyRow, table
from g2vlm.errors import CheckpointError
from g2vlm.model.config import G2VLMConfig, Part
from g2vlm.model.network import G2VLM
from g2vlm.model.outline import outline
from g2vlm.model.precision import Placement
from g2vlm.model.quantization import is_replaced

STORED_TYPES = ("F32", "BF16", "F16", "F64")
"""Number formats of weights that can be converted without anything else beside them."""
LISTED = 20
"""Keys of each kind that an error message spells out."""

RECONSTRUCTION_PARTS = frozenset(
    {Part.GEOMETRIC_ENCODER, Part.MIXTURE, Part.POINT_HEAD, Part.CAMERA_HEAD, Part.CONFIDENCE_HEAD}
)
"""What a reconstruction without questions needs."""
CHAT_PARTS = RECONSTRUCTION_PARTS | {Part.SEMANTIC_ENCODER, Part.LANGUAGE_HEAD}
"""What reconstruction and questions need."""


@dataclass(frozen=True)
class KeyReport:
    """How the keys of a file compare with those of the network."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        lines = []
        for kind in ("missing", "unexpected", "misshapen"):
            keys = getattr(self, kind)
            if keys:
                rest = f" ... and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
                lines.append(f"{len(keys)} {kind}: " + ", ".join(keys[:LISTED]) + rest)
        return "\n".join(lines)


class IncompleteCheckpointError(CheckpointError):
    """The keys of a checkpoint are not exactly those of the network."""

    def __init__(self, path: Path, report: KeyReport) -> None:
        self.report = report
        super().__init__(
            f"{path} is not a complete g2vlm checkpoint; nothing was loaded, because silently missing "
            f"weights give garbage answers: download it again, or name keys to ignore.\n{report}"
        )


@dataclass(frozen=True)
class Weights:
    """Open safetensors files of one checkpoint, and the shapes in their headers."""

    path: Path
    """The file, or the index of its shards."""
    shapes: dict[str, tuple[int, ...]]
    _handles: dict[str, Any] = field(repr=False)

    @classmethod
    def open(cls, folder: Path) -> "Weights":
        """Map `model.safetensors`, or the shards that `model.safetensors.index.json` names.

        Raises:
            CheckpointError: a file is missing, truncated or not safetensors.
        """
        whole, index = folder / WEIGHTS, folder / f"{WEIGHTS}.index.json"
        path = index if index.is_file() and not whole.is_file() else whole
        files = _shards(index) if path == index else [whole]
        shapes: dict[str, tuple[int, ...]] = {}
        handles: dict[str, Any] = {}
        for file in files:
            handle = _open_mapped(file)
            for key in handle.keys():  # noqa: SIM118
                stored = handle.get_slice(key)
                _require_plain_numbers(file, key, stored.get_dtype())
                shapes[key] = tuple(stored.get_shape())
                handles[key] = handle
        return cls(path, shapes, handles)

    def tensor(self, key: str) -> Tensor:
        """One tensor, mapped from its file."""
        result: Tensor = self._handles[key].get_tensor(key)
        return result


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return [index.parent / name for name in names]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} is not a readable index of shards: {error!r}") from error


def _open_mapped(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"Expected the weights at {path}, found no file: run  g2vlm download")
    try:
        return safe_open(str(path), framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}): it may have been cut off while "
            "downloading; run  g2vlm download  again."
        ) from error


def _require_plain_numbers(path: Path, key: str, dtype: str) -> None:
    if dtype not in STORED_TYPES:
        raise CheckpointError(
            f"{path}: expected {key} as {', '.join(STORED_TYPES)}, got {dtype}: a quantized file means "
            "nothing without its scales; use the original checkpoint."
        )


def inspect_keys(
    shapes: dict[str, tuple[int, ...]], config: G2VLMConfig, ignore: Iterable[str] = ()
) -> KeyReport:
    """Compare the keys and shapes of a file with the network of a configuration.

    Args:
        shapes: shape of every released key in the file.
        config: the network.
        ignore: beginnings of released keys that may be missing from the file or left over in it.
    """
    beginnings = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    ours = {name: tuple(p.shape) for name, p in outline(config).named_parameters()}
    expected: dict[str, tuple[int, ...]] = {}
    for row in table(config):
        expected.update(row.released_shapes(ours[row.ours]))

    def counted(keys: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(key for key in keys if not (beginnings and key.startswith(beginnings))))

    misshapen = (
        f"{key} {list(shapes[key])} instead of {list(shape)}"
        for key, shape in expected.items()
        if key in shapes and shapes[key] != shape
    )
    return KeyReport(
        missing=counted(expected.keys() - shapes.keys()),
        unexpected=counted(shapes.keys() - expected.keys()),
        misshapen=tuple(sorted(misshapen)),
    )


def open_checkpoint(folder: Path, ignore: Iterable[str] = ()) -> tuple[Weights, G2VLMConfig]:
    """Open a checkpoint folder whose keys are exactly those of its configuration; reads no weights yet.

    Args:
        folder: released layout, see `files`.
        ignore: as of `load_network`.

    Raises:
        CheckpointError: see `Weights.open` and `read_config`.
        IncompleteCheckpointError: a key is missing, left over or misshapen.
    """
    weights = Weights.open(folder)
    has_confidence = any(key.startswith("conf_decoder.") for key in weights.shapes)
    config = read_config(folder, has_confidence=has_confidence)
    report = inspect_keys(weights.shapes, config, ignore)
    if report:
        raise IncompleteCheckpointError(weights.path, report)
    return weights, config


def load_network(
    folder: Path,
    placement: Placement,
    *,
    parts: frozenset[Part] | None = None,
    ignore: Iterable[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> G2VLM:
    """Build a network and fill it from a checkpoint folder.

    Args:
        folder: released layout, see `files`.
        placement: device and precision of the weights.
        parts: parts to build and load; all that the checkpoint has by default. The keys of the whole
            checkpoint are checked whatever is loaded.
        ignore: beginnings of released keys that may be missing or left over, for example
            "global_point" in a checkpoint saved without its training-only head. A part that is asked for
            must be complete all the same.
        on_progress: called with (tensors done, tensors in all).

    Returns:
        The network in evaluation mode, without gradients.

    Raises:
        CheckpointError: see `Weights.open` and `read_config`.
        IncompleteCheckpointError: a key is missing, left over or misshapen.
    """
    weights, config = open_checkpoint(folder, ignore)
    network = outline(config, parts)
    _fill_parts(network, network.parts, weights, placement, on_progress)
    return network.eval().requires_grad_(False)


def extend_network(network: G2VLM, folder: Path, placement: Placement, parts: frozenset[Part]) -> G2VLM:
    """Return a network that has `parts` as well, sharing the modules already loaded from `folder`."""
    extended = outline(network.config, network.parts | parts)
    for name, module in network.named_children():
        setattr(extended, name, module)
    _fill_parts(extended, extended.parts - network.parts, Weights.open(folder), placement, None)
    return extended.eval().requires_grad_(False)


def restore_replaced(network: G2VLM, folder: Path, placement: Placement) -> G2VLM:
    """Return a network whose parts with integer layers are loaded from `folder` again; others are shared."""
    replaced = {part for part in network.parts if is_replaced(getattr(network, part.value))}
    restored = outline(network.config, network.parts)
    for name, module in network.named_children():
        if name not in {part.value for part in replaced}:
            setattr(restored, name, module)
    _fill_parts(restored, frozenset(replaced), Weights.open(folder), placement, None)
    return restored.eval().requires_grad_(False)


def _fill_parts(
    network: G2VLM,
    parts: frozenset[Part],
    weights: Weights,
    placement: Placement,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    rows = table(network.config, parts)
    absent = [key for row in rows for key in row.released if key not in weights.shapes]
    if absent:
        raise IncompleteCheckpointError(weights.path, KeyReport(missing=tuple(absent)))
    jobs = (pieces_of(*_sources_and_target(network, row, weights, placement)) for row in rows)
    # A caller may be in inference mode, whose tensors the threads that fill them could not touch.
    with torch.inference_mode(False):
        copy_all(jobs, lambda done: None if on_progress is None else on_progress(done, len(rows)))


def _sources_and_target(
    network: nn.Module, row: KeyRow, weights: Weights, placement: Placement
) -> tuple[list[Tensor], Tensor]:
    """Replace one parameter on the meta device by an empty one; what fills it, and the place."""
    module_name, _, leaf = row.ours.rpartition(".")
    module = network.get_submodule(module_name)
    empty = getattr(module, leaf)
    values = torch.empty(empty.shape, dtype=placement.precision.dtype_of(row.ours), device=placement.device)
    setattr(module, leaf, nn.Parameter(values, requires_grad=False))
    return [weights.tensor(key) for key in row.released], values
