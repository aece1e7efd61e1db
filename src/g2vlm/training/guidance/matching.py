"""Guided attention: one head of some layers learns to read, in the other views, the same point of the scene.

Comparing views is what relative poses need and what a network learns last by itself: as long as no head finds
the same place in another view, nothing that follows can use it, and no gradient says where to look. The truth
does: a patch of one view should attend, within each other view, to the patch that shows the same surface.
Nothing is added to the network, and nothing of this runs after training.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from g2vlm.training.losses import GeometryTarget

_CANDIDATE_STEP = 5
_TOLERANCE = 0.06


@dataclass(frozen=True)
class MatchingGuide:
    """Which attention is guided, and how strongly."""

    weight: float = 0.1
    """Factor of the cross-entropy (nats) beside the geometry loss."""
    layers: tuple[int, ...] = (1, 3)
    """Layers of the mixture, from 0, whose head 0 of the geometric expert is guided."""


@dataclass(frozen=True, eq=False)
class Matches:
    """For every patch of every view, where every other view shows the same place."""

    patch: Int[Tensor, "batch views patches others"]
    """Index of the patch in view `others`, in raster order; anything where there is none."""
    found: Bool[Tensor, "batch views patches others"]
    """Whether that view shows the place; never for a view and itself."""


@torch.no_grad()
def patch_matches(target: GeometryTarget, patch_size: int) -> Matches:
    """Match the middle of every patch with the nearest surface point seen in every view.

    A match counts within about a twentieth of its distance, the spacing of the pixels looked at: places that
    are hidden or out of sight have none.

    Args:
        target: the truth; world points that are not finite are never matched.
        patch_size: side of a patch in pixels; height and width are multiples of it.
    """
    points = torch.where(target.valid[..., None], target.points_world, torch.nan)
    views, height, width = target.valid.shape[1:]
    half, columns = patch_size // 2, width // patch_size
    asked = points[:, :, half::patch_size, half::patch_size].flatten(1, 3)
    start = _CANDIDATE_STEP // 2
    rows = torch.arange(start, height, _CANDIDATE_STEP, device=points.device)
    across = torch.arange(start, width, _CANDIDATE_STEP, device=points.device)
    owner = ((rows // patch_size)[:, None] * columns + across // patch_size).flatten()
    offered = points[:, :, rows][:, :, :, across].flatten(2, 3)
    # Far away stands for unknown: distances stay finite, and no such point is anybody's nearest.
    far = 1e6
    gap = torch.cdist(torch.nan_to_num(asked, nan=-far), torch.nan_to_num(offered, nan=far).flatten(1, 2))
    distance, index = gap.unflatten(2, (views, -1)).min(dim=-1)
    eyes = target.T_world_camera[:, :, :3, 3].float()
    away = torch.cdist(torch.nan_to_num(asked, nan=-far), eyes)
    shape = (views, asked.shape[1] // views)
    other = ~torch.eye(views, dtype=torch.bool, device=points.device)[None, :, None]
    found = (distance < _TOLERANCE * away) & (distance < far / 2)
    return Matches(owner[index].unflatten(1, shape), found.unflatten(1, shape) & other)


def matching_loss(
    queries: Float[Tensor, "batch tokens channels"],
    keys: Float[Tensor, "batch tokens channels"],
    matches: Matches,
) -> Float[Tensor, ""]:
    """Cross-entropy (nats) of one head's attention inside each other view, mean over all matches.

    Args:
        queries: of the patches of all views, one view after the other.
        keys: likewise.
        matches: where they should look.

    Returns:
        ln(patches) for attention that knows nothing; zero, with zero gradients, where nothing matches.
    """
    views, patches = matches.patch.shape[1:3]
    with torch.autocast(device_type=queries.device.type, enabled=False):
        scores = queries.float() @ keys.float().transpose(1, 2) * queries.shape[-1] ** -0.5
        scores = scores.unflatten(1, (views, patches)).unflatten(-1, (views, patches))
        chosen = F.log_softmax(scores, dim=-1).gather(-1, matches.patch[..., None]).squeeze(-1)
        return -torch.where(matches.found, chosen, 0.0).sum() / matches.found.sum().clamp_min(1)
