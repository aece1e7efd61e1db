"""Decoders and heads that turn geometric hidden states into points, cameras and confidence.

Everything here runs in float32 whatever the precision of the towers. Source: the decoders of Pi3
(arXiv 2507.13347), as adopted by G2VLM.
"""

import torch
import torch.utils.checkpoint
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from g2vlm.geometry.rotations import nearest_rotation
from g2vlm.model.attention import attend, merge_heads, split_heads
from g2vlm.model.config import HeadsConfig
from g2vlm.model.layers import MLP, LayerNorm
from g2vlm.model.rotary import Rotation, grid_indices, planar_rotation, rotate_quarters


class SelfAttention(nn.Module):
    """Attention within one view under the planar rotary embedding."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.head_dim = width // num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "views patches channels"], rotation: Rotation
    ) -> Float[Tensor, "views patches channels"]:
        """Attend."""
        heads = split_heads(self.qkv(x), self.head_dim)
        num_heads = heads.shape[1] // 3
        queries, keys = rotate_quarters(heads[:, : 2 * num_heads], rotation).chunk(2, dim=1)
        # The CPU kernel reads values laid out like keys a sixth faster than as slices of the projection.
        out = attend(queries, keys, heads[:, 2 * num_heads :].contiguous())
        return self.out(merge_heads(out))


class CrossAttention(nn.Module):
    """Attention of one view to another view of the same grid."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.head_dim = width // num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "views patches channels"],
        other: Float[Tensor, "views patches channels"],
        rotation: Rotation,
    ) -> Float[Tensor, "views patches channels"]:
        """Let the patches of `x` read those of `other`."""
        q = rotate_quarters(split_heads(self.query(x), self.head_dim), rotation)
        k = rotate_quarters(split_heads(self.key(other), self.head_dim), rotation)
        v = split_heads(self.value(other), self.head_dim)
        return self.out(merge_heads(attend(q, k, v)))


class DecoderBlock(nn.Module):
    """Self-attention, then cross-attention to the anchor view where asked, then an MLP; all pre-norm."""

    def __init__(self, width: int, config: HeadsConfig, *, anchored: bool) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(width, config.norm_eps)
        self.attention = SelfAttention(width, config.num_heads)
        self.mlp_norm = LayerNorm(width, config.norm_eps)
        self.mlp = MLP(width, config.mlp_width)
        self.cross_norm = LayerNorm(width, config.norm_eps) if anchored else None
        self.anchor_norm = LayerNorm(width, config.norm_eps) if anchored else None
        self.cross_attention = CrossAttention(width, config.num_heads) if anchored else None

    def forward(
        self,
        x: Float[Tensor, "views patches channels"],
        rotation: Rotation,
        anchor: Float[Tensor, "views patches channels"] | None,
    ) -> Float[Tensor, "views patches channels"]:
        """Advance by one block."""
        x = x + self.attention(self.attention_norm(x), rotation)
        if self.cross_attention is not None:
            assert self.cross_norm is not None
            assert self.anchor_norm is not None
            assert anchor is not None
            x = x + self.cross_attention(self.cross_norm(x), self.anchor_norm(anchor), rotation)
        return x + self.mlp(self.mlp_norm(x))


class Decoder(nn.Module):
    """A stack of blocks over the hidden states of each view, then a projection."""

    def __init__(self, width: int, out_width: int, config: HeadsConfig, *, anchored: bool = False) -> None:
        super().__init__()
        self.config = config
        self.head_dim = width // config.num_heads
        self.blocks = nn.ModuleList(
            DecoderBlock(width, config, anchored=anchored) for _ in range(config.num_blocks)
        )
        self.out = nn.Linear(width, out_width)
        self.checkpointing = False

    def forward(
        self,
        hidden: Float[Tensor, "views patches channels"],
        rows: int,
        columns: int,
        anchor: Float[Tensor, "views patches channels"] | None = None,
    ) -> Float[Tensor, "views patches out"]:
        """Decode the hidden states of views with rows x columns patches each."""
        row, column = grid_indices(rows, columns, hidden.device)
        rotation = planar_rotation(row, column, self.head_dim // 4, self.config.rope_base)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                run = torch.utils.checkpoint.checkpoint
                hidden = run(block, hidden, rotation, anchor, use_reentrant=False)
            else:
                hidden = block(hidden, rotation, anchor)
        return self.out(hidden)


class DensePrediction(nn.Module):
    """Linear to patch x patch x channels numbers a patch, laid out as an image."""

    def __init__(self, width: int, channels: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(width, channels * patch_size**2)

    def forward(
        self, tokens: Float[Tensor, "views patches channels"], rows: int, columns: int
    ) -> Float[Tensor, "views height width out"]:
        """Predict every pixel."""
        grid = self.proj(tokens).unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        return F.pixel_shuffle(grid, self.patch_size).permute(0, 2, 3, 1)


class ResidualMLP(nn.Module):
    """Three linear layers with ReLU after each, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """Transform each token."""
        update = x
        for linear in self.linears:
            update = F.relu(linear(update))
        return x + update


class CameraHead(nn.Module):
    """Patch tokens of a view to its camera-to-world pose."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.residuals = nn.ModuleList(ResidualMLP(width) for _ in range(2))
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.translation = nn.Linear(width, 3)
        self.rotation = nn.Linear(width, 9)

    def forward(self, tokens: Float[Tensor, "views patches channels"]) -> Float[Tensor, "views 4 4"]:
        """Pool over patches and predict T_world_camera, its rotation the nearest to a free 3x3 matrix."""
        for residual in self.residuals:
            tokens = residual(tokens)
        pooled = tokens.mean(dim=1)
        for linear in self.linears:
            pooled = F.relu(linear(pooled))
        rows = F.normalize(self.rotation(pooled).unflatten(-1, (3, 3)), dim=-1)
        top = torch.cat([nearest_rotation(rows), self.translation(pooled)[..., None]], dim=-1)
        bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
        return torch.cat([top, bottom], dim=-2)


def points_from_prediction(
    raw: Float[Tensor, "*batch 3"],
) -> Float[Tensor, "*batch 3"]:
    """Camera-frame points (x right, y down, z forward) from raw (x/z, y/z, log z)."""
    z = raw[..., 2:].exp()
    return torch.cat([raw[..., :2] * z, z], dim=-1)
