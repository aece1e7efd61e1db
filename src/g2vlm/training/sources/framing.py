"""Other frames: a part of rendered pictures enlarged, with the truth about it."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from g2vlm.training.sources.pictures import Pictures


def reframed(pictures: Pictures, zoom: float, rng: np.random.Generator) -> Pictures:
    """Enlarge a random part of all views of each sample to the whole frame.

    Args:
        pictures: with their truth.
        zoom: largest factor, drawn evenly from 1 on.
        rng: source of the draws; untouched where `zoom` is 1.

    Returns:
        Pictures of the same size; colours are interpolated, depth and objects are those of the nearest pixel,
        and intrinsics follow.
    """
    if zoom <= 1.0:
        return pictures
    batch, views, height, width = pictures.depth.shape
    factor = torch.from_numpy(rng.uniform(1.0, zoom, batch).astype(np.float32))
    place = torch.from_numpy(rng.random((batch, 2), dtype=np.float32))
    # First pixel of the frame in the old picture; what is left over is shared out by `place`.
    corner = place * (torch.tensor([width, height]) - 1) * (1 - 1 / factor)[:, None]
    u, v = (
        corner[:, i, None] + torch.arange(size) / factor[:, None] for i, size in enumerate((width, height))
    )
    row = v.round().long()[:, None, :, None].expand(-1, views, -1, width)
    column = u.round().long()[:, None, None].expand(-1, views, height, -1)

    def nearest(values: Tensor) -> Tensor:
        tall = values.gather(2, row[..., :1].expand(-1, -1, -1, width))
        return tall.gather(3, column)

    grid = torch.stack(
        torch.broadcast_tensors(u[:, None] * (2 / (width - 1)) - 1, v[:, :, None] * (2 / (height - 1)) - 1),
        dim=-1,
    )
    images = F.grid_sample(
        pictures.images.flatten(0, 1),
        grid.repeat_interleave(views, dim=0),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    K = pictures.K.clone()
    K[..., :2, 2] -= corner[:, None]
    K[..., :2, :] *= factor[:, None, None, None]
    return Pictures(
        images.unflatten(0, (batch, views)),
        nearest(pictures.depth),
        nearest(pictures.valid),
        nearest(pictures.instance),
        K,
        pictures.T_world_camera,
    )
