"""Rotary position embeddings: the multimodal one of the mixture, and the planar one of encoders and heads."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of the rotary angles, float32, broadcastable over batch and heads."""

    cos: Float[Tensor, "#batch 1 tokens half"]
    sin: Float[Tensor, "#batch 1 tokens half"]

    def __getitem__(self, tokens: slice) -> "Rotation":
        return Rotation(self.cos[:, :, tokens], self.sin[:, :, tokens])


def _rotation(angles: Float[Tensor, "#batch tokens half"]) -> Rotation:
    return Rotation(angles.cos()[:, None], angles.sin()[:, None])


def multimodal_rotation(
    positions: Int[Tensor, "*batch 3 tokens"], sections: tuple[int, int, int], theta: float
) -> Rotation:
    """Rotation of M-RoPE: the frequencies are split between time, height and width.

    Args:
        positions: (t, h, w) of every token, with or without a batch dimension.
        sections: how many frequencies follow t, h and w; frequency i is theta ** (-i / sum(sections)).
        theta: base.
    """
    frequency, axis = _frequencies(sections, theta, positions.device)
    batched = positions if positions.ndim == 3 else positions[None]
    per_frequency = batched.float().index_select(1, axis).transpose(1, 2)
    return _rotation(per_frequency * frequency)


@lru_cache(maxsize=16)
def _frequencies(sections: tuple[int, int, int], theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Frequencies, and the axis that each one follows; kept because every generated token needs them."""
    half = sum(sections)
    # Kept tensors must be usable in later training even if the first caller only runs inference.
    with torch.inference_mode(False):
        exponent = torch.arange(half, device=device, dtype=torch.float32) / half
        counts = torch.tensor(sections, device=device)
        axis = torch.repeat_interleave(torch.arange(3, device=device), counts, output_size=half)
        return theta**-exponent, axis


def text_frequencies(sections: tuple[int, int, int], theta: float) -> Float[Tensor, " half"]:
    """Rotary frequencies of text, which stands at the same position along all axes."""
    return _frequencies(sections, theta, torch.device("cpu"))[0]


def planar_rotation(
    rows: Int[Tensor, " tokens"], columns: Int[Tensor, " tokens"], num_frequencies: int, base: float
) -> Rotation:
    """Angles of two axes side by side: `num_frequencies` for the row index, as many for the column index."""
    exponent = torch.arange(num_frequencies, device=rows.device, dtype=torch.float32) / num_frequencies
    frequency = base**-exponent
    angles = torch.cat([rows.float()[:, None] * frequency, columns.float()[:, None] * frequency], dim=-1)
    return _rotation(angles[None])


def grid_indices(rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column index of every patch in raster order, each of shape (rows * columns,)."""
    grid = torch.arange(rows * columns, device=device)
    return grid // columns, grid % columns


def merged_grid_indices(rows: int, columns: int, merge: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column index of every patch in merge order: each merge x merge square is contiguous."""
    row, column = (index.view(rows, columns) for index in grid_indices(rows, columns, device))

    def reorder(index: Tensor) -> Tensor:
        squares = index.view(rows // merge, merge, columns // merge, merge)
        return squares.transpose(1, 2).reshape(-1)

    return reorder(row), reorder(column)


def rotate_halves(
    x: Float[Tensor, "batch heads tokens channels"], rotation: Rotation
) -> Float[Tensor, "batch heads tokens channels"]:
    """Rotate the pairs (i, i + channels / 2), in float32, returned in float32."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat(
        [
            first * rotation.cos - second * rotation.sin,
            second * rotation.cos + first * rotation.sin,
        ],
        dim=-1,
    )


def rotate_quarters(
    x: Float[Tensor, "batch heads tokens channels"], rotation: Rotation
) -> Float[Tensor, "batch heads tokens channels"]:
    """Rotate each half of the channels by its own axis (row, then column), pairs (i, i + channels / 4)."""
    pairs = x.float().unflatten(-1, (2, 2, -1))
    first, second = pairs[..., 0, :], pairs[..., 1, :]
    cos, sin = rotation.cos.unflatten(-1, (2, -1)), rotation.sin.unflatten(-1, (2, -1))
    turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-2)
    return turned.flatten(-3)
