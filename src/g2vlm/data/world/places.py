"""Rooms of any variation of the world: of primitives, or photographic ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from g2vlm.data.world.cameras import CameraPath
from g2vlm.data.world.config import WorldConfig
from g2vlm.data.world.layout import Room, make_room
from g2vlm.data.world.photo.library import the_library
from g2vlm.data.world.photo.render import render_photos
from g2vlm.data.world.photo.rooms import PhotoRoom, make_photo_room
from g2vlm.data.world.render import render
from g2vlm.errors import InputError


@dataclass(frozen=True)
class Seen:
    """Views of several places, as many of each."""

    images: Float[Tensor, "places views 3 height width"]
    """RGB in [0, 1]."""
    depth: Float[Tensor, "places views height width"]
    """z-depth, metres."""
    valid: Bool[Tensor, "places views height width"]
    """Where the depth is that of a surface."""
    normals: Float[Tensor, "places views height width 3"]
    """Unit normals towards the camera, camera frame."""
    instance: Int[Tensor, "places views height width"]
    K: Float[Tensor, "places views 3 3"]
    T_world_camera: Float[Tensor, "places views 4 4"]


def make_place(seed: int, config: WorldConfig) -> Room:
    """The place of a seed in the variation that the configuration names.

    Args:
        seed: any non-negative integer.
        config: the ranges to draw from; `is_photographic` decides what is built.
    """
    if config.is_photographic:
        return make_photo_room(seed, config, the_library())
    return make_room(seed, config)


def see(
    config: WorldConfig,
    places: Sequence[Room],
    paths: Sequence[CameraPath],
    size: tuple[int, int],
    device: torch.device | None = None,
) -> Seen:
    """Render one path in each place.

    Args:
        config: the one that the places were made with.
        places: at least one, all of the same variation.
        paths: one for each, with equally many views.
        size: height and width in pixels.
        device: where to render; the CPU when not given.
    """
    height, width = size
    photographic = [place for place in places if isinstance(place, PhotoRoom)]
    if photographic and len(photographic) != len(places):
        raise InputError("Expected places of one variation in a batch, got photographic and other ones.")
    if photographic:
        shown = render_photos(photographic, paths, height, width, the_library(), device=device)
        return Seen(**vars(shown))
    rendered = render(
        places,
        paths,
        height,
        width,
        device=device,
        shadow_rays=config.shadow_rays,
        fine_detail=config.fine_detail,
    )
    return Seen(valid=torch.ones_like(rendered.depth, dtype=torch.bool), **vars(rendered))
