"""Sizes and rules of every part of the network.

All classes are frozen; `g2vlm_2b()` is the released size, `g2vlm_test()` a network of a few hundred thousand
parameters for tests, and `few_layer_2b()` the width of the 2B model with few layers, for benchmarks.
"""

from dataclasses import dataclass, field
from enum import Enum

from g2vlm.errors import CheckpointError


class ViewAttention(Enum):
    """How geometric tokens of different views may see each other."""

    GLOBAL = "global"
    """Every view sees every view: the released inference."""
    CAUSAL = "causal"
    """View i sees views up to i: the mask of training; can be streamed."""


class EncoderWindows(Enum):
    """How the geometric encoder cuts the tokens of all views into attention windows."""

    RELEASED = "released"
    """Windows of P tokens over views of P + 5 tokens laid end to end, as in the training of the release."""
    PER_VIEW = "per_view"
    """Each view attends exactly to itself."""


class Part(Enum):
    """The parts of the network that can be left out when a job does not need them."""

    GEOMETRIC_ENCODER = "geometric_encoder"
    SEMANTIC_ENCODER = "semantic_encoder"
    MIXTURE = "mixture"
    LANGUAGE_HEAD = "language_head"
    POINT_HEAD = "point_head"
    CAMERA_HEAD = "camera_head"
    GLOBAL_POINT_HEAD = "global_point_head"
    CONFIDENCE_HEAD = "confidence_head"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CheckpointError(message)


@dataclass(frozen=True)
class GeometricEncoderConfig:
    """DINOv2 with registers."""

    num_layers: int = 24
    """Transformer layers."""
    width: int = 1024
    """Channels of a token."""
    num_heads: int = 16
    """Attention heads; must divide `width`."""
    mlp_width: int = 4096
    """Hidden channels of the MLP."""
    patch_size: int = 14
    """Side of a patch in pixels."""
    num_registers: int = 4
    """Register tokens beside the class token."""
    position_grid: int = 37
    """Side of the stored position table, in patches."""
    norm_eps: float = 1e-6
    """Epsilon of every LayerNorm."""
    windows: EncoderWindows = EncoderWindows.RELEASED
    """How views are cut into attention windows."""

    def __post_init__(self) -> None:
        _require(
            self.width % self.num_heads == 0,
            f"Geometric encoder: width {self.width} must be a multiple of num_heads {self.num_heads}.",
        )


@dataclass(frozen=True)
class SemanticEncoderConfig:
    """Qwen2-VL vision tower."""

    num_layers: int = 32
    """Transformer layers."""
    width: int = 1280
    """Channels of a patch token."""
    num_heads: int = 16
    """Attention heads; `width / num_heads` must be a multiple of 4 (two rotary axes)."""
    mlp_width: int = 5120
    """Hidden channels of the MLP."""
    patch_size: int = 14
    """Side of a patch in pixels."""
    temporal_patch_size: int = 2
    """Frames in a patch; a still image is repeated."""
    merge_size: int = 2
    """Side of the square of patches merged into one token."""
    image_side: int = 768
    """Side in pixels to which every image is stretched before the patch grid is cut."""
    norm_eps: float = 1e-6
    """Epsilon of every LayerNorm."""
    rope_base: float = 10_000.0
    """Base of the two-dimensional rotary embedding."""

    def __post_init__(self) -> None:
        _require(
            self.width % (4 * self.num_heads) == 0,
            f"Semantic encoder: width {self.width} must be a multiple of 4 x num_heads {self.num_heads}.",
        )

    @property
    def patch_features(self) -> int:
        """Numbers in one flattened patch."""
        return 3 * self.temporal_patch_size * self.patch_size**2


@dataclass(frozen=True)
class MixtureConfig:
    """The mixture of two transformers that share attention."""

    vocab_size: int = 151_936
    """Rows of the token embedding and of the language head."""
    width: int = 1536
    """Channels of a token, in both experts."""
    mlp_width: int = 8960
    """Hidden channels of each expert's gated MLP."""
    num_layers: int = 28
    """Layers, each with two experts."""
    num_heads: int = 12
    """Query heads."""
    num_kv_heads: int = 2
    """Key and value heads; must divide `num_heads`."""
    head_dim: int = 128
    """Channels of a head."""
    norm_eps: float = 1e-6
    """Epsilon of every RMSNorm."""
    rope_theta: float = 1e6
    """Base of the rotary frequencies."""
    rope_sections: tuple[int, int, int] = (16, 24, 24)
    """Rotary frequencies given to time, height and width; they sum to half of `head_dim`."""

    def __post_init__(self) -> None:
        _require(
            self.num_heads % self.num_kv_heads == 0,
            f"Mixture: num_heads {self.num_heads} must be a multiple of num_kv_heads {self.num_kv_heads}.",
        )
        _require(
            sum(self.rope_sections) * 2 == self.head_dim,
            f"Mixture: rope_sections {self.rope_sections} must sum to half of head_dim {self.head_dim}.",
        )


@dataclass(frozen=True)
class HeadsConfig:
    """Decoders and heads for points, cameras, global points and confidence."""

    num_blocks: int = 5
    """Transformer blocks of each decoder."""
    num_heads: int = 16
    """Attention heads of each block; the head size must be a multiple of 4 (two rotary axes)."""
    mlp_width: int = 6144
    """Hidden channels of each block's MLP."""
    point_width: int = 1024
    """Output channels of the point, global point and confidence decoders."""
    camera_width: int = 512
    """Output channels of the camera decoder."""
    norm_eps: float = 1e-6
    """Epsilon of every LayerNorm."""
    rope_base: float = 100.0
    """Base of the two-dimensional rotary embedding."""
    confidence: bool = False
    """Whether the checkpoint has a confidence head; the released one has none."""


@dataclass(frozen=True)
class G2VLMConfig:
    """The whole network."""

    geometric_encoder: GeometricEncoderConfig = field(default_factory=GeometricEncoderConfig)
    """Encoder behind the geometric expert."""
    semantic_encoder: SemanticEncoderConfig = field(default_factory=SemanticEncoderConfig)
    """Encoder behind the semantic expert."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    """Mixture of transformers."""
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    """Geometry heads."""
    image_width: int = 518
    """Width in pixels to which geometric images are resized."""
    view_attention: ViewAttention = ViewAttention.GLOBAL
    """View attention used unless a caller asks otherwise."""

    def __post_init__(self) -> None:
        width, heads = self.mixture.width, self.heads.num_heads
        _require(
            width % (4 * heads) == 0,
            f"Heads: mixture width {width} must be a multiple of 4 x num_heads {heads}.",
        )
        patch = self.geometric_encoder.patch_size
        _require(
            self.image_width % patch == 0,
            f"image_width {self.image_width} must be a multiple of the geometric patch size {patch}.",
        )

    @property
    def parts(self) -> frozenset[Part]:
        """Every part that a complete checkpoint of this configuration holds."""
        absent = set() if self.heads.confidence else {Part.CONFIDENCE_HEAD}
        return frozenset(set(Part) - absent)


def g2vlm_2b() -> G2VLMConfig:
    """The released size: 4.54 billion parameters."""
    return G2VLMConfig()


def few_layer_2b() -> G2VLMConfig:
    """The width of the released model with four layers in each tower and a vocabulary of 2048: 1 billion."""
    return G2VLMConfig(
        geometric_encoder=GeometricEncoderConfig(num_layers=4),
        semantic_encoder=SemanticEncoderConfig(num_layers=4),
        mixture=MixtureConfig(num_layers=4, vocab_size=2048),
    )


def g2vlm_test() -> G2VLMConfig:
    """A network small enough for unit tests, with every mechanism of the full one."""
    return G2VLMConfig(
        geometric_encoder=GeometricEncoderConfig(num_layers=2, width=32, num_heads=2, mlp_width=64),
        semantic_encoder=SemanticEncoderConfig(
            num_layers=2, width=32, num_heads=2, mlp_width=64, image_side=112
        ),
        mixture=MixtureConfig(
            vocab_size=512,
            width=64,
            mlp_width=96,
            num_layers=3,
            num_heads=4,
            num_kv_heads=2,
            head_dim=16,
            rope_sections=(2, 3, 3),
        ),
        heads=HeadsConfig(num_blocks=2, num_heads=4, mlp_width=128, point_width=32, camera_width=32),
        image_width=112,
    )
