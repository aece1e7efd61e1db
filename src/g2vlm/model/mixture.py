"""The mixture of transformers: a semantic and a geometric expert that meet in every attention.

Source: G2VLM (arXiv 2511.21688), section 3; the layers are those of Qwen2-VL with query and key norms.
"""

from dataclasses import dataclass

import torch
import torch.utils.checkpoint
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from g2vlm.model.attention import merge_heads, split_heads
from g2vlm.model.cache import LayerMemory, Memory, PassMemory, join_tokens
from g2vlm.model.config import MixtureConfig
from g2vlm.model.layers import (
    TOKENS_PER_CHUNK,
    GatedMLP,
    LayerScale,
    Linear,
    RMSNorm,
    accumulate,
    chunk_factor,
    per_token_chunks,
)
from g2vlm.model.layout import BlockPlacement, Layout, Streams
from g2vlm.model.pausing import pause
from g2vlm.model.rotary import Rotation, multimodal_rotation, rotate_halves

GEOMETRIC_SCALE_INIT = 0.01
"""Initial LayerScale of the geometric expert."""


@dataclass(frozen=True)
class Projections:
    """Queries, keys and values of one stream, heads before tokens."""

    queries: Float[Tensor, "batch heads tokens channels"]
    keys: Float[Tensor, "batch kv_heads tokens channels"]
    values: Float[Tensor, "batch kv_heads tokens channels"]

    def empty(self, num_tokens: int) -> "Projections":
        """Unfilled projections of the same kind for `num_tokens` tokens."""
        return Projections(
            *(
                kind.new_empty(*kind.shape[:2], num_tokens, kind.shape[3])
                for kind in (self.queries, self.keys, self.values)
            )
        )

    def write(self, tokens: slice, part: "Projections") -> None:
        """Fill a range of tokens."""
        self.queries[:, :, tokens] = part.queries
        self.keys[:, :, tokens] = part.keys
        self.values[:, :, tokens] = part.values


class ExpertLayer(nn.Module):
    """Everything of one layer that belongs to one expert; the shared attention lies between its halves."""

    def __init__(self, config: MixtureConfig, *, scaled: bool) -> None:
        super().__init__()
        width, head_dim = config.width, config.head_dim
        self.head_dim = head_dim
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.attention_norm = RMSNorm(width, config.norm_eps)
        self.qkv = Linear(width, (self.num_heads + 2 * self.num_kv_heads) * head_dim)
        self.query_norm = RMSNorm(head_dim, config.norm_eps)
        self.key_norm = RMSNorm(head_dim, config.norm_eps)
        self.out = Linear(self.num_heads * head_dim, width, bias=False)
        self.mlp_norm = RMSNorm(width, config.norm_eps)
        self.mlp = GatedMLP(width, config.mlp_width)
        self.attention_scale = LayerScale(width, GEOMETRIC_SCALE_INIT) if scaled else None
        self.mlp_scale = LayerScale(width, GEOMETRIC_SCALE_INIT) if scaled else None
        self._kept_weights: tuple[tuple[object, ...], Tensor] | None = None

    def project(self, x: Float[Tensor, "batch tokens channels"], rotation: Rotation) -> Projections:
        """Normalise, project to queries, keys and values, normalise heads, rotate."""
        step = TOKENS_PER_CHUNK * chunk_factor(x.device)
        if torch.is_grad_enabled() or x.shape[1] <= step:
            return self._project(x, rotation)
        # Norm and rotation widen everything to float32: some tokens at a time keeps that small.
        whole: Projections | None = None
        for start in range(0, x.shape[1], step):
            tokens = slice(start, start + step)
            part = self._project(x[:, tokens], rotation[tokens])
            whole = part.empty(x.shape[1]) if whole is None else whole
            whole.write(tokens, part)
        assert whole is not None
        return whole

    def _project(self, x: Float[Tensor, "batch tokens channels"], rotation: Rotation) -> Projections:
        heads = split_heads(self.qkv(self.attention_norm(x)), self.head_dim)
        # Queries and keys pass norm and rotation together: half the operations of a one-token pass.
        rotated, values = heads.split([self.num_heads + self.num_kv_heads, self.num_kv_heads], dim=1)
        normed = F.rms_norm(rotated.float(), (self.head_dim,), eps=self.query_norm.eps)
        rotated = rotate_halves(normed * self._head_weights(), rotation).to(values.dtype)
        queries, keys = rotated.split([self.num_heads, self.num_kv_heads], dim=1)
        return Projections(queries, keys, values)

    def _head_weights(self) -> Float[Tensor, "heads 1 channels"]:
        """Norm weights of the query heads, then of the key heads, float32; kept while nobody learns them.

        Joining them for every token takes a GPU five small kernels a layer.
        """
        query, key = self.query_norm.weight, self.key_norm.weight
        changing = torch.is_grad_enabled() or query.requires_grad or key.requires_grad
        # Asked first: a graph cannot hold the question after it.
        if torch.compiler.is_compiling() or changing or query.is_inference():
            return self._joined_weights(query, key)
        state = tuple((id(one), one._version, one.dtype, one.device) for one in (query, key))
        kept = self._kept_weights
        if kept is None or kept[0] != state:
            self._kept_weights = kept = state, self._joined_weights(query, key)
        return kept[1]

    def _joined_weights(self, query: Tensor, key: Tensor) -> Float[Tensor, "heads 1 channels"]:
        query, key = query.float(), key.float()
        return torch.cat([query.expand(self.num_heads, 1, -1), key.expand(self.num_kv_heads, 1, -1)])

    def finish(
        self,
        x: Float[Tensor, "batch tokens channels"],
        attended: Float[Tensor, "batch tokens attended"],
    ) -> Float[Tensor, "batch tokens channels"]:
        """Add the attention output and the MLP to the residual stream."""
        update = self.out(attended)
        x = accumulate(x, update if self.attention_scale is None else self.attention_scale(update))
        return accumulate(x, per_token_chunks(self.feed_forward, x))

    def feed_forward(self, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """The MLP branch: norm, gated MLP, scale."""
        update = self.mlp(self.mlp_norm(x))
        return update if self.mlp_scale is None else self.mlp_scale(update)


@dataclass(frozen=True)
class MixtureContext:
    """What every layer of one pass shares."""

    layout: Layout
    semantic_rotation: Rotation
    geometric_rotation: Rotation
    cache: Memory | None


class MixtureLayer(nn.Module):
    """Two experts around one attention."""

    def __init__(self, config: MixtureConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.semantic = ExpertLayer(config, scaled=False)
        self.geometric = ExpertLayer(config, scaled=True)

    def forward(self, streams: Streams, context: MixtureContext) -> Streams:
        """Advance both streams by one layer."""
        semantic = geometric = None
        if streams.semantic.shape[1]:
            semantic = self.semantic.project(streams.semantic, context.semantic_rotation)
        if streams.geometric.shape[1]:
            geometric = self.geometric.project(streams.geometric, context.geometric_rotation)
        attended = self._attend(semantic, geometric, context)
        return Streams(
            self.semantic.finish(streams.semantic, attended.semantic) if semantic else streams.semantic,
            self.geometric.finish(streams.geometric, attended.geometric) if geometric else streams.geometric,
        )

    def _attend(
        self, semantic: Projections | None, geometric: Projections | None, context: MixtureContext
    ) -> Streams:
        """One attention call for each block, over the keys of everything up to its end."""
        memory = PassMemory() if context.cache is None else context.cache
        blocks = context.layout.blocks
        parts = [
            [part for part in both if part is not None and part.queries.shape[2]]
            for both in zip(
                _split(semantic, [block.num_semantic for block in blocks]),
                _split(geometric, [block.num_geometric for block in blocks]),
                strict=True,
            )
        ]
        memory.store(self.index, [(part.keys, part.values) for both in parts for part in both])
        outputs: tuple[list[Tensor], list[Tensor]] = ([], [])
        for place, both in zip(context.layout.placements(), parts, strict=True):
            queries = join_tokens([part.queries for part in both])
            merged = merge_heads(self._read(memory, queries, place))
            outputs[0].append(merged[:, : place.block.num_semantic])
            outputs[1].append(merged[:, place.block.num_semantic :])
        return Streams(*(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1) for parts in outputs))

    def _read(self, memory: PassMemory | Memory, queries: Tensor, place: BlockPlacement) -> Tensor:
        block = place.block
        if not block.num_hidden:
            return memory.attend(self.index, queries, place.end, causal=block.causal)
        if not isinstance(memory, PassMemory):
            raise ValueError("A block that hides tokens belongs to a pass without a cache.")
        return memory.attend_around(queries, place.end, place.hidden, causal=block.causal)


def _split(projections: Projections | None, sizes: list[int]) -> list[Projections | None]:
    """The projections of each block; all None where there are none.

    One split has one backward pass for all blocks, where slices would have one as large as all of them each.
    """
    if projections is None:
        return [None] * len(sizes)
    kinds = (projections.queries, projections.keys, projections.values)
    return [Projections(*block) for block in zip(*(kind.split(sizes, dim=2) for kind in kinds), strict=True)]


class Mixture(nn.Module):
    """All layers and the final norm of each expert."""

    def __init__(self, config: MixtureConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(MixtureLayer(config, index) for index in range(config.num_layers))
        self.semantic_norm = RMSNorm(config.width, config.norm_eps)
        self.geometric_norm = RMSNorm(config.width, config.norm_eps)
        self.checkpointing = False

    def forward(self, streams: Streams, layout: Layout, cache: Memory | None = None) -> Streams:
        """Run all layers.

        Args:
            streams: embedded tokens of both experts.
            layout: how they interleave, and their positions.
            cache: keys and values of what was read before; those of this pass are appended.

        Returns:
            Hidden states after each expert's final norm, in the precision of the weights.
        """
        context = MixtureContext(
            layout,
            self.rotation_of(layout.semantic_positions),
            self.rotation_of(layout.geometric_positions),
            cache,
        )
        if cache is not None:
            cache.reserve(layout.num_tokens)
        # A copy where layers add in place, so that the caller's tensors stay what they were.
        copy = not torch.is_grad_enabled()
        streams = Streams(
            streams.semantic.to(torch.float32, copy=copy), streams.geometric.to(torch.float32, copy=copy)
        )
        for layer in self.layers:
            pause()
            streams = self._run(layer, streams, context)
        if cache is not None:
            cache.advance(layout.num_tokens)
        return Streams(self.semantic_norm(streams.semantic), self.geometric_norm(streams.geometric))

    def rotation_of(self, positions: Int[Tensor, "*batch 3 tokens"]) -> Rotation:
        """Rotary angles of tokens at (t, h, w) positions."""
        return multimodal_rotation(positions, self.config.rope_sections, self.config.rope_theta)

    def decode(
        self,
        x: Float[Tensor, "batch 1 channels"],
        rotation: Rotation,
        memory: LayerMemory,
    ) -> Float[Tensor, "batch 1 channels"]:
        """Run the semantic expert alone over one more token of each row: what `forward` computes for it.

        Args:
            x: embedded tokens.
            rotation: of their positions.
            memory: what was read before; keys and values are stored behind it, its length stays.
        """
        x = x.to(torch.float32, copy=True)
        for index, layer in enumerate(self.layers):
            expert: ExpertLayer = layer.semantic  # type: ignore[assignment]
            own = expert.project(x, rotation)
            memory.store(index, [(own.keys, own.values)])
            x = expert.finish(x, merge_heads(memory.attend(index, own.queries, 1, causal=False)))
        return self.semantic_norm(x)

    def _run(self, layer: nn.Module, streams: Streams, context: MixtureContext) -> Streams:
        if not (self.checkpointing and torch.is_grad_enabled()):
            result: Streams = layer(streams, context)
            return result

        def advance(semantic: Tensor, geometric: Tensor) -> tuple[Tensor, Tensor]:
            after = layer(Streams(semantic, geometric), context)
            return after.semantic, after.geometric

        semantic, geometric = torch.utils.checkpoint.checkpoint(
            advance, streams.semantic, streams.geometric, use_reentrant=False
        )
        return Streams(semantic, geometric)
