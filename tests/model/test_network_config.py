"""Sizes that cannot work are refused with a reason."""

import pytest

from g2vlm.errors import CheckpointError
from g2vlm.model.config import (
    G2VLMConfig,
    GeometricEncoderConfig,
    HeadsConfig,
    MixtureConfig,
    SemanticEncoderConfig,
)


@pytest.mark.parametrize(
    ("config", "sizes", "message"),
    [
        (GeometricEncoderConfig, {"width": 30, "num_heads": 4}, "width 30 .* multiple of num_heads 4"),
        (SemanticEncoderConfig, {"width": 24, "num_heads": 4}, "width 24 .* multiple of 4 x num_heads 4"),
        (MixtureConfig, {"num_heads": 6, "num_kv_heads": 4}, "num_heads 6 .* multiple of num_kv_heads 4"),
        (MixtureConfig, {"head_dim": 64}, r"rope_sections \(16, 24, 24\) must sum to half of head_dim 64"),
        (G2VLMConfig, {"heads": HeadsConfig(num_heads=5)}, "width 1536 .* multiple of 4 x num_heads 5"),
        (G2VLMConfig, {"image_width": 500}, "image_width 500 .* multiple of .* patch size 14"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(config: type, sizes: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        config(**sizes)


def test_a_flattened_patch_holds_two_frames_of_three_colours() -> None:
    assert SemanticEncoderConfig().patch_features == 3 * 2 * 14 * 14
