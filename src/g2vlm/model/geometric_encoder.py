"""The geometric encoder: DINOv2 with registers, over several views at once.

Source: DINOv2 (arXiv 2304.07193), registers (arXiv 2309.16588). The released G2VLM cuts the tokens of
all views into attention windows that drift by the class and register tokens of each view; `EncoderWindows`
chooses.
"""

import torch
import torch.utils.checkpoint
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from g2vlm.model.attention import attend, merge_heads, split_heads
from g2vlm.model.config import EncoderWindows, GeometricEncoderConfig
from g2vlm.model.layers import MLP, LayerNorm, LayerScale, accumulate, per_token_chunks
from g2vlm.model.pausing import pause

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
LAYER_SCALE_INIT = 1.0


class EncoderLayer(nn.Module):
    """Pre-norm attention and MLP, each scaled for each channel."""

    def __init__(self, config: GeometricEncoderConfig) -> None:
        super().__init__()
        width = config.width
        self.head_dim = width // config.num_heads
        self.num_extra_tokens = 1 + config.num_registers
        self.attention_norm = LayerNorm(width, config.norm_eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.attention_scale = LayerScale(width, LAYER_SCALE_INIT)
        self.mlp_norm = LayerNorm(width, config.norm_eps)
        self.mlp = MLP(width, config.mlp_width)
        self.mlp_scale = LayerScale(width, LAYER_SCALE_INIT)

    def forward(
        self, x: Float[Tensor, "batch views tokens channels"], windows: EncoderWindows
    ) -> Float[Tensor, "batch views tokens channels"]:
        """Attend inside windows, then transform each token."""
        qkv = self.qkv(self.attention_norm(x))
        attend_windows = _per_view if windows is EncoderWindows.PER_VIEW else self._drifting
        x = accumulate(x, self.attention_scale(self.out(attend_windows(qkv, self.head_dim))))
        return accumulate(x, per_token_chunks(self.feed_forward, x))

    def feed_forward(self, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """The MLP branch: norm, MLP, scale."""
        return self.mlp_scale(self.mlp(self.mlp_norm(x)))

    def _drifting(
        self, qkv: Float[Tensor, "batch views tokens qkv"], head_dim: int
    ) -> Float[Tensor, "batch views tokens channels"]:
        """One window of P tokens for each view over the tokens of all views laid end to end.

        The last tokens, as many as all views have class and register tokens, lie in no window; their
        attention output is zero.
        """
        views, tokens = qkv.shape[1:3]
        covered = views * (tokens - self.num_extra_tokens)
        flat = qkv.flatten(1, 2)
        windows = flat[:, :covered].unflatten(1, (views, -1))
        out = _per_view(windows, head_dim).flatten(1, 2)
        return F.pad(out, (0, 0, 0, views * tokens - covered)).unflatten(1, (views, tokens))


def _per_view(
    qkv: Float[Tensor, "batch views tokens qkv"], head_dim: int
) -> Float[Tensor, "batch views tokens channels"]:
    """Attention inside each view (or window)."""
    q, k, v = (split_heads(part, head_dim) for part in qkv.flatten(0, 1).chunk(3, dim=-1))
    return merge_heads(attend(q, k, v)).unflatten(0, qkv.shape[:2])


class GeometricEncoder(nn.Module):
    """Photos to patch tokens."""

    def __init__(self, config: GeometricEncoderConfig) -> None:
        super().__init__()
        self.config = config
        width, grid = config.width, config.position_grid
        self.patch_embedding = nn.Linear(3 * config.patch_size**2, width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.num_registers, width))
        # Only masked pre-training uses it; kept so that a released checkpoint loads and saves completely.
        self.mask_token = nn.Parameter(torch.zeros(1, width), requires_grad=False)
        self.position_table = nn.Parameter(torch.zeros(1, grid * grid + 1, width))
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.norm = LayerNorm(width, config.norm_eps)
        self.checkpointing = False

    def forward(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        windows: EncoderWindows | None = None,
    ) -> Float[Tensor, "batch views patches channels"]:
        """Encode views of one size.

        Args:
            images: RGB in [0, 1]; height and width are multiples of the patch size.
            windows: how views are cut into attention windows; None: as the configuration says.

        Returns:
            Patch tokens in raster order after the final norm.
        """
        x, windows = self._embed(images), windows or self.config.windows
        for layer in self.layers:
            pause()
            if self.checkpointing and torch.is_grad_enabled():
                x = torch.utils.checkpoint.checkpoint(layer, x, windows, use_reentrant=False)
            else:
                x = layer(x, windows)
        return self.norm(x[:, :, 1 + self.config.num_registers :])

    def _embed(
        self, images: Float[Tensor, "batch views 3 height width"]
    ) -> Float[Tensor, "batch views tokens channels"]:
        patch = self.config.patch_size
        rows, columns = images.shape[-2] // patch, images.shape[-1] // patch
        mean, std = (images.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        squares = ((images - mean) / std).unflatten(-1, (columns, patch)).unflatten(-3, (rows, patch))
        # (batch, views, rgb, rows, patch, columns, patch) -> one row of 3 * patch * patch numbers a patch
        flat = squares.permute(0, 1, 3, 5, 2, 4, 6).flatten(2, 3).flatten(3)
        tokens = self.patch_embedding(flat.to(self.patch_embedding.weight.dtype)).float()
        positions = self.position_table.float()
        tokens = tokens + self._resized_positions(rows, columns)
        extra = torch.cat(
            [self.class_token.float() + positions[:, :1], self.register_tokens.float()], dim=1
        ).expand(*images.shape[:2], -1, -1)
        return torch.cat([extra, tokens], dim=2)

    def _resized_positions(self, rows: int, columns: int) -> Float[Tensor, "1 patches channels"]:
        side = self.config.position_grid
        grid = self.position_table[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if (rows, columns) != (side, side):
            grid = F.interpolate(
                grid, size=(rows, columns), mode="bicubic", align_corners=False, antialias=True
            )
        return grid.flatten(2).transpose(1, 2)
