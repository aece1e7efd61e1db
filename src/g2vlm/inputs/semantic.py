"""Photos to the input of the semantic encoder: Qwen2-VL patches of a square picture.

The released model first squeezes every photo to 768x768, then applies the Qwen2-VL image preparation, which
trims that to 756x756 = 54x54 patches. Patches come in the order in which the encoder's merger joins them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor

from g2vlm.errors import CheckpointError, InputError
from g2vlm.inputs.photo import Photo

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class SemanticPreparation:
    """How photos are prepared for the semantic encoder. The defaults are the released ones."""

    side: int = 768
    """Every photo is first resized to side x side pixels, whatever its shape."""

    patch: int = 14
    """Side of a patch in pixels."""

    merge: int = 2
    """The encoder joins merge x merge patches into one token."""

    temporal: int = 2
    """Frames per patch; a photo is repeated this many times."""

    min_pixels: int = 3136
    """Smallest area after the second resize, in pixels."""

    max_pixels: int = 12845056
    """Largest area after the second resize, in pixels."""

    mean: tuple[float, float, float] = CLIP_MEAN
    """Subtracted from RGB in 0..1."""

    std: tuple[float, float, float] = CLIP_STD
    """Divides after the subtraction."""

    def __post_init__(self) -> None:
        counts = (self.side, self.patch, self.merge, self.temporal, self.min_pixels, self.max_pixels)
        if min(counts) < 1 or self.min_pixels > self.max_pixels or min(self.std) <= 0:
            raise CheckpointError(
                "Expected positive sizes and deviations and min_pixels <= max_pixels in the semantic image "
                f"preparation, got {self}."
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, side: int = 768) -> "SemanticPreparation":
        """Read a Qwen2-VL `preprocessor_config.json` that has been parsed.

        Args:
            config: The parsed file. Absent entries keep their released values.
            side: Side of the square made first, in pixels; the file does not hold it.

        Raises:
            CheckpointError: An entry has the wrong type or value.
        """
        try:
            # Newer files give the limits of the area inside "size", under the names of lengths.
            size = config.get("size", {})
            smallest = config.get("min_pixels", size.get("shortest_edge", cls.min_pixels))
            largest = config.get("max_pixels", size.get("longest_edge", cls.max_pixels))
            return cls(
                side=side,
                patch=int(config.get("patch_size", cls.patch)),
                merge=int(config.get("merge_size", cls.merge)),
                temporal=int(config.get("temporal_patch_size", cls.temporal)),
                min_pixels=int(smallest),
                max_pixels=int(largest),
                mean=_triple(config.get("image_mean", cls.mean)),
                std=_triple(config.get("image_std", cls.std)),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"The image preparation of the checkpoint cannot be read: {error}."
            ) from error

    @classmethod
    def from_file(cls, path: str | Path, *, side: int = 768) -> "SemanticPreparation":
        """Read a Qwen2-VL `preprocessor_config.json`.

        Args:
            path: The file.
            side: Side of the square made first, in pixels.

        Raises:
            CheckpointError: The file is missing, is not json or holds wrong entries.
        """
        try:
            config = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"Expected the image preparation in {path}: {error}.") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"Expected a json object in {path}, got {type(config).__name__}.")
        return cls.from_config(config, side=side)


@dataclass(frozen=True)
class SemanticImages:
    """Views ready for the semantic encoder."""

    patches: Float[Tensor, "views patches features"]
    """Normalised RGB, float32. Features run over (channel, frame, row, column) inside the patch; patches run
    over the merged grid row by row, and over the merge x merge patches inside each of its cells."""

    rows: int
    """Patch rows of the unmerged grid."""

    cols: int
    """Patch columns of the unmerged grid."""


def prepare_semantic(
    photos: Sequence[Photo], preparation: SemanticPreparation = SemanticPreparation()
) -> SemanticImages:
    """Cut photos into the patches of the semantic encoder.

    Both resizes are Pillow's bicubic filter on 8-bit values. The result equals that of the Qwen2-VL image
    processor of transformers on the photo resized to `preparation.side`, bit for bit.

    Args:
        photos: At least one photo, upright RGB.
        preparation: Sizes and normalisation of the checkpoint.

    Raises:
        InputError: No photo.
    """
    if not photos:
        raise InputError("Expected at least one photo to prepare, got none: add a photo.")
    side, patch = preparation.side, preparation.patch
    height, width = processed_size(side, side, preparation)
    table = _normalisation_table(preparation)
    rows, cols = height // patch, width // patch
    features = 3 * preparation.temporal * patch * patch
    patches = np.empty((len(photos), rows * cols, features), dtype=np.float32)
    for view, photo in zip(patches, photos, strict=True):
        square = photo.resized((side, side), Image.Resampling.BICUBIC)
        image = np.asarray(square.resize((width, height), Image.Resampling.BICUBIC))
        normalised = np.stack([table[channel][image[..., channel]] for channel in range(3)])
        _cut_patches(normalised, preparation, view)
    return SemanticImages(torch.from_numpy(patches), rows, cols)


def processed_size(height: int, width: int, preparation: SemanticPreparation) -> tuple[int, int]:
    """The size to which Qwen2-VL resizes a picture: whole merged cells, area within the limits.

    Args:
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.
        preparation: Cell size and limits of the area.

    Returns:
        (height, width) in pixels, multiples of patch * merge.
    """
    cell = preparation.patch * preparation.merge
    rounded = round(height / cell) * cell, round(width / cell) * cell
    area = rounded[0] * rounded[1]
    if area > preparation.max_pixels:
        shrink = math.sqrt(height * width / preparation.max_pixels)
        return (
            max(cell, math.floor(height / shrink / cell) * cell),
            max(cell, math.floor(width / shrink / cell) * cell),
        )
    if area < preparation.min_pixels:
        grow = math.sqrt(preparation.min_pixels / (height * width))
        return math.ceil(height * grow / cell) * cell, math.ceil(width * grow / cell) * cell
    return rounded


def _normalisation_table(preparation: SemanticPreparation) -> Float32[np.ndarray, "channels=3 values=256"]:
    """Normalised value of every byte in every channel: exact, and cheaper than arithmetic on each pixel."""
    # Scaled in float64, then normalised in float32: the rounding of the reference processor.
    scaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    mean = np.array(preparation.mean, dtype=np.float32)[:, None]
    std = np.array(preparation.std, dtype=np.float32)[:, None]
    return (scaled - mean) / std


def _cut_patches(
    image: Float32[np.ndarray, "channels=3 height width"],
    preparation: SemanticPreparation,
    out: Float32[np.ndarray, "patches features"],
) -> None:
    """Write the patches of a normalised picture into `out`, in the order of the merger."""
    patch, merge, temporal = preparation.patch, preparation.merge, preparation.temporal
    cell = patch * merge
    cell_rows, cell_cols = image.shape[1] // cell, image.shape[2] // cell
    grid = image.reshape(3, cell_rows, merge, patch, cell_cols, merge, patch)
    ordered = grid.transpose(1, 4, 2, 5, 0, 3, 6)
    shape = (cell_rows, cell_cols, merge, merge, 3, temporal, patch, patch)
    out.reshape(shape)[...] = ordered[:, :, :, :, :, None]


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    """Three channel values as floats."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue
