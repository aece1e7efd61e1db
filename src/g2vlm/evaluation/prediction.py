"""What a method says about the views of one scene, whatever the method is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from g2vlm.errors import InputError
from g2vlm.scene.view import View

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Geometry of some views, in any frame and unit; None for what the method does not say.

    Maps may have another resolution than the photos: `T_model_original` says where each pixel lies.

    Raises:
        InputError: numbers of views that differ, or maps without the sizes that belong to them.
    """

    original_sizes: tuple[Size, ...]
    """Width and height of each upright photo."""
    T_model_original: Float[np.ndarray, "views 3 3"] | None = None
    """Pixel affines: pixel of the maps = T @ (u, v, 1) of the photo, centres at integers; None: the same."""
    T_world_camera: Float[np.ndarray, "views 4 4"] | None = None
    """Camera-to-world, OpenCV axes; NaN for views whose camera was not found."""
    T_first_second: Float[np.ndarray, "pairs 4 4"] | None = None
    """Relative poses of all pairs a < b (the pose of camera b in camera a's frame, row by row) of methods
    that know pairs only; NaN for pairs that were not found. Taken from `T_world_camera` if None."""
    K: Float[np.ndarray, "views 3 3"] | None = None
    """Intrinsics in pixels of the maps."""
    depth: Float[np.ndarray, "views height width"] | None = None
    """z-depth; taken from `points_camera` if None."""
    points_camera: Float[np.ndarray, "views height width 3"] | None = None
    """Point maps in camera axes."""
    valid: Bool[np.ndarray, "views height width"] | None = None
    """Pixels that say something; all if None."""

    def __post_init__(self) -> None:
        """Check numbers of views, and complete the depth."""
        if self.depth is None and self.points_camera is not None:
            object.__setattr__(self, "depth", self.points_camera[..., 2])
        if self.depth is not None and self.valid is None:
            object.__setattr__(self, "valid", np.ones(self.depth.shape, dtype=bool))
        views = len(self.original_sizes)
        fields = (self.T_model_original, self.T_world_camera, self.K, self.depth, self.points_camera)
        lengths = [len(field) for field in fields if field is not None]
        if any(length != views for length in lengths):
            raise InputError(f"Expected a prediction about {views} photos in every part, got {lengths}.")

    def __len__(self) -> int:
        return len(self.original_sizes)

    @property
    def affines(self) -> Float[np.ndarray, "views 3 3"]:
        """`T_model_original`, completed."""
        if self.T_model_original is not None:
            return self.T_model_original
        return np.tile(np.eye(3), (len(self), 1, 1))

    @classmethod
    def of_views(cls, views: Sequence[View]) -> "Prediction":
        """A reconstruction of this package."""
        return cls(
            original_sizes=tuple(view.original_size for view in views),
            T_model_original=np.stack([view.T_model_original for view in views]),
            T_world_camera=np.stack([view.T_world_camera for view in views]),
            K=np.stack([view.K for view in views]),
            points_camera=np.stack([view.points_camera for view in views]),
            valid=np.stack([view.valid for view in views]),
        )
