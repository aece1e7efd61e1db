"""What a training or evaluation sample is: views with exact or measured geometry."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from g2vlm.data.world.layout import Room, SceneObject
from g2vlm.geometry.cameras import unproject
from g2vlm.geometry.poses import transform_points


@dataclass(frozen=True, eq=False)
class GeometrySample:
    """Some views of one place, with the truth about their geometry."""

    images: Float[Tensor, "views 3 height width"]
    """RGB in [0, 1]."""
    points_world: Float[Tensor, "views height width 3"]
    """The surface point that each pixel sees, world frame."""
    depth: Float[Tensor, "views height width"]
    """z-depth."""
    valid: Bool[Tensor, "views height width"]
    """Pixels whose geometry is known."""
    T_world_camera: Float[Tensor, "views 4 4"]
    K: Float[Tensor, "views 3 3"]
    """Intrinsics in pixels, integer pixel centres."""
    is_metric: bool
    """Whether lengths are metres."""


@dataclass(frozen=True, eq=False)
class SceneSample(GeometrySample):
    """A geometry sample that also knows what is seen."""

    normals: Float[Tensor, "views height width 3"]
    """Unit surface normals towards the camera, camera frame."""
    instance: Int[Tensor, "views height width"]
    """Which object each pixel shows: 0 for the room, k for `objects[k - 1]`."""
    room: Room

    @property
    def objects(self) -> tuple[SceneObject, ...]:
        """All objects of the room, seen or not."""
        return self.room.objects


@dataclass(frozen=True, eq=False)
class SceneBatch:
    """Samples of equal shape, stacked, on one device."""

    images: Float[Tensor, "batch views 3 height width"]
    """RGB in [0, 1]."""
    depth: Float[Tensor, "batch views height width"]
    """z-depth, metres."""
    normals: Float[Tensor, "batch views height width 3"]
    """Unit surface normals towards the camera, camera frame."""
    instance: Int[Tensor, "batch views height width"]
    """Which object each pixel shows: 0 for the room, k for `rooms[i].objects[k - 1]`."""
    valid: Bool[Tensor, "batch views height width"]
    K: Float[Tensor, "batch views 3 3"]
    T_world_camera: Float[Tensor, "batch views 4 4"]
    rooms: tuple[Room, ...]
    """The room of each sample."""

    def __len__(self) -> int:
        return len(self.rooms)

    def points_world(self) -> Float[Tensor, "batch views height width 3"]:
        """The surface point that each pixel sees, world frame, metres."""
        return transform_points(self.T_world_camera, unproject(self.depth, self.K))

    def sample(self, index: int) -> SceneSample:
        """One sample of the batch; tensors are views of the batch's."""
        depth, K, T_world_camera = self.depth[index], self.K[index], self.T_world_camera[index]
        return SceneSample(
            images=self.images[index],
            points_world=transform_points(T_world_camera, unproject(depth, K)),
            depth=depth,
            valid=self.valid[index],
            T_world_camera=T_world_camera,
            K=K,
            is_metric=True,
            normals=self.normals[index],
            instance=self.instance[index],
            room=self.rooms[index],
        )

    def to(self, device: torch.device) -> "SceneBatch":
        """The same batch on another device."""
        return SceneBatch(
            images=self.images.to(device, non_blocking=True),
            depth=self.depth.to(device, non_blocking=True),
            normals=self.normals.to(device, non_blocking=True),
            instance=self.instance.to(device, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
            K=self.K.to(device, non_blocking=True),
            T_world_camera=self.T_world_camera.to(device, non_blocking=True),
            rooms=self.rooms,
        )
