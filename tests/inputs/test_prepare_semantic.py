"""The semantic encoder's input equals that of transformers' Qwen2-VL processor, bit for bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from g2vlm.errors import CheckpointError, InputError
from g2vlm.inputs.decode import Photo
from g2vlm.inputs.semantic import SemanticPreparation, prepare_semantic, processed_size


def noise(width: int, height: int, seed: int) -> Photo:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Photo(Image.fromarray(values), str(seed))


def reference(photos: list[Photo], preparation: SemanticPreparation) -> tuple[torch.Tensor, torch.Tensor]:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": preparation.min_pixels, "longest_edge": preparation.max_pixels},
        patch_size=preparation.patch,
        merge_size=preparation.merge,
        temporal_patch_size=preparation.temporal,
        image_mean=list(preparation.mean),
        image_std=list(preparation.std),
    )
    squares = [photo.image.resize((preparation.side,) * 2, Image.Resampling.BICUBIC) for photo in photos]
    batch = processor(squares, return_tensors="pt")
    return batch["pixel_values"], batch["image_grid_thw"]


@pytest.mark.parametrize(
    "preparation",
    [
        SemanticPreparation(),
        SemanticPreparation(side=100),
        SemanticPreparation(side=20),  # enlarged to the smallest area
        SemanticPreparation(side=200, max_pixels=10_000),  # shrunk to the largest
        SemanticPreparation(
            side=64, patch=8, merge=4, temporal=1, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 1.0)
        ),
    ],
    ids=["released", "small", "enlarged", "shrunk", "other"],
)
def test_equals_transformers(preparation: SemanticPreparation) -> None:
    photos = [noise(120, 90, 1), noise(50, 130, 2)]
    expected, grid = reference(photos, preparation)
    images = prepare_semantic(photos, preparation)
    assert [1, images.rows, images.cols] == grid[0].tolist()
    assert images.patches.dtype == torch.float32
    assert torch.equal(images.patches.flatten(0, 1), expected)


def test_released_sizes() -> None:
    images = prepare_semantic([noise(64, 48, 3)])
    assert (images.rows, images.cols) == (54, 54)
    assert images.patches.shape == (1, 2916, 1176)


@pytest.mark.parametrize("size", [(768, 768), (28, 28), (1, 1), (300, 41), (5000, 4000), (14, 2800)])
def test_size_rule_equals_transformers(size: tuple[int, int]) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    preparation = SemanticPreparation(max_pixels=1_000_000)
    expected = smart_resize(*size, factor=28, min_pixels=3136, max_pixels=1_000_000)
    assert processed_size(*size, preparation) == expected


def test_no_photo() -> None:
    with pytest.raises(InputError, match="at least one photo"):
        prepare_semantic([])


def test_config_file_of_the_checkpoint(tmp_path: Path) -> None:
    config = {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessor",
    }
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(config))
    assert SemanticPreparation.from_file(path) == SemanticPreparation()
    path.write_text(json.dumps({"size": {"shortest_edge": 784, "longest_edge": 1568}, "patch_size": 7}))
    read = SemanticPreparation.from_file(path, side=56)
    assert (read.side, read.patch, read.min_pixels, read.max_pixels) == (56, 7, 784, 1568)
    path.write_text("{}")
    assert SemanticPreparation.from_file(path) == SemanticPreparation()


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[1]",
        '{"patch_size": "big"}',
        '{"patch_size": 0}',
        '{"image_mean": [1, 2]}',
        '{"image_std": 3}',
        '{"image_std": [1, 0, 1]}',
        '{"min_pixels": 9, "max_pixels": 3}',
        '{"min_pixels": 0}',
        '{"size": 4}',
    ],
)
def test_wrong_config_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(text)
    with pytest.raises(CheckpointError):
        SemanticPreparation.from_file(path)


def test_missing_config_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.json"):
        SemanticPreparation.from_file(tmp_path / "none.json")
