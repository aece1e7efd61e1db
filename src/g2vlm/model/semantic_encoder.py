"""The semantic encoder: the vision tower of Qwen2-VL (arXiv 2409.12191)."""

import torch
import torch.utils.checkpoint
from jaxtyping import Float
from torch import Tensor, nn

from g2vlm.model.attention import attend, merge_heads, split_heads
from g2vlm.model.config import SemanticEncoderConfig
from g2vlm.model.layers import MLP, LayerNorm, accumulate, per_token_chunks
from g2vlm.model.pausing import pause
from g2vlm.model.rotary import Rotation, merged_grid_indices, planar_rotation, rotate_halves


class SemanticEncoderLayer(nn.Module):
    """Pre-norm attention inside one image, then an MLP."""

    def __init__(self, config: SemanticEncoderConfig) -> None:
        super().__init__()
        self.head_dim = config.width // config.num_heads
        self.attention_norm = LayerNorm(config.width, config.norm_eps)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.mlp_norm = LayerNorm(config.width, config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, quick=True)

    def forward(
        self, x: Float[Tensor, "views patches channels"], rotation: Rotation
    ) -> Float[Tensor, "views patches channels"]:
        """Advance by one layer."""
        q, k, v = (
            split_heads(part, self.head_dim) for part in self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        )
        q, k = rotate_halves(q, rotation).to(v.dtype), rotate_halves(k, rotation).to(v.dtype)
        x = accumulate(x, self.out(merge_heads(attend(q, k, v))))
        return accumulate(x, per_token_chunks(self.feed_forward, x))

    def feed_forward(self, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """The MLP branch: norm, MLP."""
        return self.mlp(self.mlp_norm(x))


class PatchMerger(nn.Module):
    """Concatenate each square of patches and project to the width of the mixture."""

    def __init__(self, config: SemanticEncoderConfig, out_width: int) -> None:
        super().__init__()
        self.num_merged = config.merge_size**2
        merged = config.width * self.num_merged
        self.norm = LayerNorm(config.width, config.norm_eps)
        self.up = nn.Linear(merged, merged)
        self.down = nn.Linear(merged, out_width)

    def forward(self, x: Float[Tensor, "views patches channels"]) -> Float[Tensor, "views tokens out"]:
        """Merge patches that stand next to each other in merge order."""
        squares = self.norm(x).unflatten(1, (-1, self.num_merged)).flatten(2)
        return self.down(nn.functional.gelu(self.up(squares)))


class SemanticEncoder(nn.Module):
    """Flattened patches to merged tokens."""

    def __init__(self, config: SemanticEncoderConfig, out_width: int) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Linear(config.patch_features, config.width, bias=False)
        self.layers = nn.ModuleList(SemanticEncoderLayer(config) for _ in range(config.num_layers))
        self.merger = PatchMerger(config, out_width)
        self.checkpointing = False

    def forward(
        self, patches: Float[Tensor, "views patches features"], rows: int, columns: int
    ) -> Float[Tensor, "views tokens channels"]:
        """Encode images of one size.

        Args:
            patches: normalised pixels of every patch (rgb, time, row, column flattened), in merge order.
            rows: patches from top to bottom, before merging.
            columns: patches from left to right, before merging.

        Returns:
            (rows / merge) * (columns / merge) tokens an image, in raster order.
        """
        config = self.config
        row, column = merged_grid_indices(rows, columns, config.merge_size, patches.device)
        num_frequencies = config.width // config.num_heads // 4
        rotation = planar_rotation(row, column, num_frequencies, config.rope_base)
        x = self.patch_embedding(patches.to(self.patch_embedding.weight.dtype)).float()
        for layer in self.layers:
            pause()
            if self.checkpointing and torch.is_grad_enabled():
                x = torch.utils.checkpoint.checkpoint(layer, x, rotation, use_reentrant=False)
            else:
                x = layer(x, rotation)
        tokens: Tensor = self.merger(x)
        return tokens
