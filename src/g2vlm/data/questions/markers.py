"""Markers on images: a coloured dot with a dark rim, visible on any background."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.data.questions.question import Marker
from g2vlm.errors import InputError

_RADIUS_SHARE = 0.018
_MIN_RADIUS_PX = 3.0


def draw_markers(
    images: Float[Tensor, "views 3 height width"], markers: Sequence[Marker]
) -> Float[Tensor, "views 3 height width"]:
    """Draws markers onto copies of the views (the input is returned as it is when there are none).

    Args:
        images: RGB in [0, 1], at the resolution that the markers were made for.
        markers: dots; their `view` indexes `images`.

    Raises:
        InputError: if a marker lies outside of its view.
    """
    if not markers:
        return images
    num_views, _, height, width = images.shape
    drawn = images.clone()
    rows = torch.arange(height, device=images.device)[:, None]
    columns = torch.arange(width, device=images.device)[None, :]
    radius = max(_MIN_RADIUS_PX, _RADIUS_SHARE * width)
    for marker in markers:
        if not (0 <= marker.view < num_views and 0 <= marker.u < width and 0 <= marker.v < height):
            raise InputError(
                f"Expected a marker inside {num_views} views of {width}x{height} pixels, got {marker}: "
                "draw it on the images its sample was rendered with."
            )
        distance = torch.hypot((columns - marker.u).float(), (rows - marker.v).float())
        colour = torch.tensor(marker.colour.value, device=images.device, dtype=images.dtype)
        rim = max(1.0, 0.35 * radius)
        for reach, paint in ((radius + rim, torch.zeros_like(colour)), (radius, colour)):
            # One pixel of soft edge; the dot itself stays fully opaque.
            cover = (reach + 0.5 - distance).clamp(0.0, 1.0).to(images.dtype)
            drawn[marker.view] = torch.lerp(drawn[marker.view], paint[:, None, None], cover)
    return drawn
