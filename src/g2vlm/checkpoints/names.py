"""Our names on the left, released names on the right: the one place that spells out the released layout.

A row maps one of our tensors to the released tensors it is made of: one tensor as it is, several stacked
along their rows (our fused projections), or one seen in another shape (convolutions that are linear maps of
a patch).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from g2vlm.model.config import G2VLMConfig, Part


@dataclass(frozen=True)
class KeyRow:
    """One tensor of our network and the released keys that fill it."""

    ours: str
    released: tuple[str, ...]
    """Stacked along the first axis, in this order."""
    sizes: tuple[int, ...] | None = None
    """Rows that each released tensor contributes; None where they contribute equally."""
    trailing: tuple[int, ...] | None = None
    """Axes after the first in the released file, where they differ from ours (convolutions)."""

    def released_shapes(self, ours: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Shape of each released tensor, given the shape of ours."""
        sizes = self.sizes or (ours[0] // len(self.released),) * len(self.released)
        trailing = ours[1:] if self.trailing is None else self.trailing
        return {key: (size, *trailing) for key, size in zip(self.released, sizes, strict=True)}


WEIGHT_AND_BIAS = ("weight", "bias")
WEIGHT = ("weight",)


def _same(ours: str, released: str, leaves: tuple[str, ...] = WEIGHT_AND_BIAS) -> Iterator[KeyRow]:
    for leaf in leaves:
        yield KeyRow(f"{ours}.{leaf}", (f"{released}.{leaf}",))


def _stacked(
    ours: str,
    released: tuple[str, ...],
    leaves: tuple[str, ...] = WEIGHT_AND_BIAS,
    sizes: tuple[int, ...] | None = None,
) -> Iterator[KeyRow]:
    for leaf in leaves:
        yield KeyRow(f"{ours}.{leaf}", tuple(f"{name}.{leaf}" for name in released), sizes)


def _geometric_encoder(config: G2VLMConfig) -> Iterator[KeyRow]:
    embeddings = "dino_model.embeddings"
    yield KeyRow("geometric_encoder.class_token", (f"{embeddings}.cls_token",))
    yield KeyRow("geometric_encoder.mask_token", (f"{embeddings}.mask_token",))
    yield KeyRow("geometric_encoder.register_tokens", (f"{embeddings}.register_tokens",))
    yield KeyRow("geometric_encoder.position_table", (f"{embeddings}.position_embeddings",))
    patch, side = f"{embeddings}.patch_embeddings.projection", config.geometric_encoder.patch_size
    yield KeyRow("geometric_encoder.patch_embedding.weight", (f"{patch}.weight",), trailing=(3, side, side))
    yield KeyRow("geometric_encoder.patch_embedding.bias", (f"{patch}.bias",))
    for i in range(config.geometric_encoder.num_layers):
        ours, theirs = f"geometric_encoder.layers.{i}", f"dino_model.encoder.layer.{i}"
        yield from _same(f"{ours}.attention_norm", f"{theirs}.norm1")
        attention = f"{theirs}.attention.attention"
        yield from _stacked(f"{ours}.qkv", tuple(f"{attention}.{name}" for name in ("query", "key", "value")))
        yield from _same(f"{ours}.out", f"{theirs}.attention.output.dense")
        yield KeyRow(f"{ours}.attention_scale.gamma", (f"{theirs}.layer_scale1.lambda1",))
        yield from _same(f"{ours}.mlp_norm", f"{theirs}.norm2")
        yield from _same(f"{ours}.mlp.up", f"{theirs}.mlp.fc1")
        yield from _same(f"{ours}.mlp.down", f"{theirs}.mlp.fc2")
        yield KeyRow(f"{ours}.mlp_scale.gamma", (f"{theirs}.layer_scale2.lambda1",))
    yield from _same("geometric_encoder.norm", "dino_model.layernorm")
    yield from _same("bridge", "dino2llm")


def _semantic_encoder(config: G2VLMConfig) -> Iterator[KeyRow]:
    sizes = config.semantic_encoder
    trailing = (3, sizes.temporal_patch_size, sizes.patch_size, sizes.patch_size)
    yield KeyRow(
        "semantic_encoder.patch_embedding.weight", ("vit_model.patch_embed.proj.weight",), trailing=trailing
    )
    for i in range(config.semantic_encoder.num_layers):
        ours, theirs = f"semantic_encoder.layers.{i}", f"vit_model.blocks.{i}"
        yield from _same(f"{ours}.attention_norm", f"{theirs}.norm1")
        yield from _same(f"{ours}.qkv", f"{theirs}.attn.qkv")
        yield from _same(f"{ours}.out", f"{theirs}.attn.proj")
        yield from _same(f"{ours}.mlp_norm", f"{theirs}.norm2")
        yield from _same(f"{ours}.mlp.up", f"{theirs}.mlp.fc1")
        yield from _same(f"{ours}.mlp.down", f"{theirs}.mlp.fc2")
    yield from _same("semantic_encoder.merger.norm", "vit_model.merger.ln_q")
    yield from _same("semantic_encoder.merger.up", "vit_model.merger.mlp.0")
    yield from _same("semantic_encoder.merger.down", "vit_model.merger.mlp.2")


def _expert(ours: str, theirs: str, suffix: str, config: G2VLMConfig) -> Iterator[KeyRow]:
    yield from _same(f"{ours}.attention_norm", f"{theirs}.input_layernorm{suffix}", WEIGHT)
    attention = f"{theirs}.self_attn"
    sizes = config.mixture
    query, key = sizes.num_heads * sizes.head_dim, sizes.num_kv_heads * sizes.head_dim
    projections = tuple(f"{attention}.{name}_proj{suffix}" for name in "qkv")
    yield from _stacked(f"{ours}.qkv", projections, sizes=(query, key, key))
    yield from _same(f"{ours}.query_norm", f"{attention}.q_norm{suffix}", WEIGHT)
    yield from _same(f"{ours}.key_norm", f"{attention}.k_norm{suffix}", WEIGHT)
    yield from _same(f"{ours}.out", f"{attention}.o_proj{suffix}", WEIGHT)
    yield from _same(f"{ours}.mlp_norm", f"{theirs}.post_attention_layernorm{suffix}", WEIGHT)
    mlp = f"{theirs}.mlp{suffix}"
    yield from _stacked(f"{ours}.mlp.gate_up", (f"{mlp}.gate_proj", f"{mlp}.up_proj"), WEIGHT)
    yield from _same(f"{ours}.mlp.down", f"{mlp}.down_proj", WEIGHT)


def _mixture(config: G2VLMConfig) -> Iterator[KeyRow]:
    yield from _same("embedding", "language_model.model.embed_tokens", WEIGHT)
    for i in range(config.mixture.num_layers):
        ours, theirs = f"mixture.layers.{i}", f"language_model.model.layers.{i}"
        yield from _expert(f"{ours}.semantic", theirs, "", config)
        yield from _expert(f"{ours}.geometric", theirs, "_moe_geo", config)
        yield KeyRow(f"{ours}.geometric.attention_scale.gamma", (f"{theirs}.ls1.gamma",))
        yield KeyRow(f"{ours}.geometric.mlp_scale.gamma", (f"{theirs}.ls2.gamma",))
    yield from _same("mixture.semantic_norm", "language_model.model.norm", WEIGHT)
    yield from _same("mixture.geometric_norm", "language_model.model.norm_moe_geo", WEIGHT)


def _decoder(ours: str, theirs: str, config: G2VLMConfig, *, anchored: bool = False) -> Iterator[KeyRow]:
    for i in range(config.heads.num_blocks):
        block, released = f"{ours}.blocks.{i}", f"{theirs}.blocks.{i}"
        yield from _same(f"{block}.attention_norm", f"{released}.norm1")
        yield from _same(f"{block}.attention.qkv", f"{released}.attn.qkv")
        yield from _same(f"{block}.attention.out", f"{released}.attn.proj")
        if anchored:
            yield from _same(f"{block}.cross_norm", f"{released}.norm2")
            yield from _same(f"{block}.anchor_norm", f"{released}.norm_y")
            for name, key in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "proj")):
                yield from _same(f"{block}.cross_attention.{name}", f"{released}.cross_attn.{key}")
        yield from _same(f"{block}.mlp_norm", f"{released}.norm3" if anchored else f"{released}.norm2")
        yield from _same(f"{block}.mlp.up", f"{released}.mlp.fc1")
        yield from _same(f"{block}.mlp.down", f"{released}.mlp.fc2")
    yield from _same(f"{ours}.out", f"{theirs}.linear_out")


def _points(ours: str, decoder: str, head: str, config: G2VLMConfig, anchored: bool) -> Iterator[KeyRow]:
    yield from _decoder(f"{ours}.decoder", decoder, config, anchored=anchored)
    yield from _same(f"{ours}.prediction.proj", f"{head}.proj")


def _camera(config: G2VLMConfig) -> Iterator[KeyRow]:
    yield from _decoder("camera_head.decoder", "camera_decoder", config)
    for i in range(2):
        for j in range(3):
            yield from _same(
                f"camera_head.camera.residuals.{i}.linears.{j}",
                f"camera_head.res_conv.{i}.res_conv{j + 1}",
            )
    yield from _same("camera_head.camera.linears.0", "camera_head.more_mlps.0")
    yield from _same("camera_head.camera.linears.1", "camera_head.more_mlps.2")
    yield from _same("camera_head.camera.translation", "camera_head.fc_t")
    yield from _same("camera_head.camera.rotation", "camera_head.fc_rot")


def rows_of(part: Part, config: G2VLMConfig) -> list[KeyRow]:
    """The rows of one part of the network."""
    tables = {
        Part.GEOMETRIC_ENCODER: lambda: _geometric_encoder(config),
        Part.SEMANTIC_ENCODER: lambda: _semantic_encoder(config),
        Part.MIXTURE: lambda: _mixture(config),
        Part.LANGUAGE_HEAD: lambda: _same("language_head", "language_model.lm_head", WEIGHT),
        Part.POINT_HEAD: lambda: _points("point_head", "point_decoder", "point_head", config, False),
        Part.CAMERA_HEAD: lambda: _camera(config),
        Part.GLOBAL_POINT_HEAD: lambda: _points(
            "global_point_head", "global_points_decoder", "global_point_head", config, True
        ),
        Part.CONFIDENCE_HEAD: lambda: _points("confidence_head", "conf_decoder", "conf_head", config, False),
    }
    return list(tables[part]())


def table(config: G2VLMConfig, parts: frozenset[Part] | None = None) -> list[KeyRow]:
    """The rows of all parts (or of `parts`), each our name with the released keys behind it."""
    chosen = config.parts if parts is None else parts & config.parts
    return [row for part in Part if part in chosen for row in rows_of(part, config)]
