"""The arithmetic of a pass, counted from the configuration and the layout of its tokens.

A pass is a bag of steps: matrix products and attention calls, each with its shape. A product of (rows, inner)
with (inner, outer) costs 2 * rows * inner * outer floating-point operations; attention costs two such
products for each head over the keys that a block may see, 4 * heads * queries * keys * head_dim. Inside a
causal run (text, a few dozen tokens) masked pairs count as if they were computed, as kernels mostly do.
Norms, activations, rotations and softmax are not counted: they are what the fraction of the limit reveals.

Counted is what the network needs as published. A pass that leaves something out (the last layer of tokens
that nobody reads, say) may therefore come closer to its limit than a perfect complete one.
"""

from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum

from g2vlm.model.config import (
    EncoderWindows,
    G2VLMConfig,
    GeometricEncoderConfig,
    HeadsConfig,
    MixtureConfig,
    SemanticEncoderConfig,
)
from g2vlm.model.layout import Layout


class Format(Enum):
    """Number format of a step."""

    TOWER = "tower"
    """The precision chosen for the towers."""
    FLOAT32 = "float32"
    """The geometry heads, in every precision."""
    INT8 = "int8"
    """Integer products, through which float32 can be had on some CPUs."""


@dataclass(frozen=True)
class Product:
    """One matrix product, tokens by weights."""

    rows: int
    inner: int
    outer: int
    format: Format = Format.TOWER

    @property
    def flops(self) -> int:
        """Floating-point operations."""
        return 2 * self.rows * self.inner * self.outer


@dataclass(frozen=True)
class Attention:
    """One softmax attention without a mask."""

    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    head_dim: int
    format: Format = Format.TOWER

    @property
    def flops(self) -> int:
        """Floating-point operations."""
        return 4 * self.batch * self.heads * self.queries * self.keys * self.head_dim


Step = Product | Attention
Work = Counter[Step]
"""How often each step occurs."""


@dataclass(frozen=True)
class Pass:
    """What one pass of the network reads and is asked for (batch of one)."""

    layout: Layout
    """Blocks of the mixture."""
    views: int = 0
    """Photos."""
    patches: int = 0
    """Geometric patches of a photo."""
    semantic_patches: int = 0
    """Semantic patches of a photo before merging; 0 where photos go to the geometric encoder only."""
    past: int = 0
    """Tokens already in memory."""
    geometry: bool = False
    """Whether points and cameras are decoded."""
    logit_slots: int = 0
    """Tokens whose next-token logits are wanted."""


def flops(work: Work) -> int:
    """Floating-point operations in all."""
    return sum(step.flops * count for step, count in work.items())


def work_of(config: G2VLMConfig, read: Pass) -> Work:
    """Count one pass."""
    work: Work = mixture_work(config.mixture, read.layout, read.past)
    width = config.mixture.width
    if read.views:
        work += geometric_encoder_work(config.geometric_encoder, read.views, read.patches)
        work[Product(read.views * read.patches, config.geometric_encoder.width, width)] += 1
    if read.semantic_patches:
        work += semantic_encoder_work(config.semantic_encoder, width, read.views, read.semantic_patches)
    if read.geometry:
        work += heads_work(config, read.views, read.patches)
    if read.logit_slots:
        work[Product(read.logit_slots, width, config.mixture.vocab_size)] += 1
    return work


INT8_PRODUCTS = 3
"""Integer products that hold a float32 one to fifteen bits: the fine by fine one is negligible."""


def through_int8(work: Work) -> Work:
    """The same work with every float32 product done as integer products."""
    result: Work = Counter()
    for step, count in work.items():
        if isinstance(step, Product) and step.format is Format.FLOAT32:
            result[replace(step, format=Format.INT8)] += INT8_PRODUCTS * count
        else:
            result[step] += count
    return result


def geometric_encoder_work(config: GeometricEncoderConfig, views: int, patches: int) -> Work:
    """The geometric encoder, without the bridge after it."""
    extra = 1 + config.num_registers
    window = patches if config.windows is EncoderWindows.RELEASED else patches + extra
    head_dim = config.width // config.num_heads
    layer: Work = Counter({Attention(views, config.num_heads, config.num_heads, window, window, head_dim): 1})
    rows, width = views * (patches + extra), config.width
    for inner, outer in [
        (width, 3 * width),
        (width, width),
        (width, config.mlp_width),
        (config.mlp_width, width),
    ]:
        layer[Product(rows, inner, outer)] += 1
    work = _times(layer, config.num_layers)
    work[Product(views * patches, 3 * config.patch_size**2, width)] += 1
    return work


def semantic_encoder_work(config: SemanticEncoderConfig, out_width: int, views: int, patches: int) -> Work:
    """The semantic encoder and its merger; `patches` of a view before merging."""
    head_dim = config.width // config.num_heads
    layer: Work = Counter(
        {Attention(views, config.num_heads, config.num_heads, patches, patches, head_dim): 1}
    )
    rows, width = views * patches, config.width
    for inner, outer in [
        (width, 3 * width),
        (width, width),
        (width, config.mlp_width),
        (config.mlp_width, width),
    ]:
        layer[Product(rows, inner, outer)] += 1
    work = _times(layer, config.num_layers)
    merged = config.merge_size**2
    work[Product(rows, config.patch_features, width)] += 1
    work[Product(rows // merged, merged * width, merged * width)] += 1
    work[Product(rows // merged, merged * width, out_width)] += 1
    return work


def mixture_work(config: MixtureConfig, layout: Layout, past: int) -> Work:
    """All layers of the mixture: each expert on its own tokens, attention of each block on what it sees."""
    layer: Work = Counter()
    for rows in (layout.semantic_positions.shape[-1], layout.geometric_positions.shape[-1]):
        if rows:
            layer += expert_layer_work(config, rows)
    for place in layout.placements():
        queries, keys = place.block.num_tokens, past + place.end
        layer[Attention(1, config.num_heads, config.num_kv_heads, queries, keys, config.head_dim)] += 1
    return _times(layer, config.num_layers)


def expert_layer_work(config: MixtureConfig, rows: int) -> Work:
    """The matrix products of one expert in one layer."""
    attended = config.num_heads * config.head_dim
    projected = attended + 2 * config.num_kv_heads * config.head_dim
    work: Work = Counter()
    for inner, outer in [
        (config.width, projected),
        (attended, config.width),
        (config.width, 2 * config.mlp_width),
        (config.mlp_width, config.width),
    ]:
        work[Product(rows, inner, outer)] += 1
    return work


def heads_work(config: G2VLMConfig, views: int, patches: int) -> Work:
    """Points, cameras and, where the checkpoint has it, confidence; not the global points."""
    heads, rows = config.heads, views * patches
    pixels = config.geometric_encoder.patch_size**2
    work = _decoder_work(config, heads.point_width, views, patches)
    work[Product(rows, heads.point_width, 3 * pixels, Format.FLOAT32)] += 1
    work += _decoder_work(config, heads.camera_width, views, patches)
    work += _camera_work(heads, views, rows)
    if heads.confidence:
        work += _decoder_work(config, heads.point_width, views, patches)
        work[Product(rows, heads.point_width, pixels, Format.FLOAT32)] += 1
    return work


def _decoder_work(config: G2VLMConfig, out_width: int, views: int, patches: int) -> Work:
    heads, width, rows = config.heads, config.mixture.width, views * patches
    count, head_dim, fmt = heads.num_heads, width // heads.num_heads, Format.FLOAT32
    block: Work = Counter({Attention(views, count, count, patches, patches, head_dim, fmt): 1})
    for inner, outer in [
        (width, 3 * width),
        (width, width),
        (width, heads.mlp_width),
        (heads.mlp_width, width),
    ]:
        block[Product(rows, inner, outer, fmt)] += 1
    work = _times(block, heads.num_blocks)
    work[Product(rows, width, out_width, fmt)] += 1
    return work


def _camera_work(config: HeadsConfig, views: int, rows: int) -> Work:
    width, fmt = config.camera_width, Format.FLOAT32
    work: Work = Counter()
    work[Product(rows, width, width, fmt)] += 6
    work[Product(views, width, width, fmt)] += 2
    work[Product(views, width, 3, fmt)] += 1
    work[Product(views, width, 9, fmt)] += 1
    return work


def _times(work: Work, count: int) -> Work:
    return Counter({step: number * count for step, number in work.items()})


def token_bytes(
    config: MixtureConfig, past: int, *, weight_bytes: float | int, memory_bytes: float | int
) -> float:
    """Bytes that must be read to decode one token: weights of the semantic expert and head, and the memory.

    Args:
        config: the mixture.
        past: tokens in memory.
        weight_bytes: bytes of one weight of a matrix.
        memory_bytes: bytes of one number in memory.
    """
    layer = expert_layer_work(config, 1)
    per_layer = sum(
        step.inner * step.outer * count for step, count in layer.items() if isinstance(step, Product)
    )
    weights = config.num_layers * per_layer + config.width * config.vocab_size
    memory = 2 * config.num_layers * config.num_kv_heads * config.head_dim * past
    return float(weights * weight_bytes + memory * memory_bytes)
