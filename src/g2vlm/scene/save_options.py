"""What a user may choose about the files that a scene is written to."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from g2vlm.errors import InputError


class ImageFiles(StrEnum):
    """What becomes of the original photos where a format wants them beside it."""

    COPY = "copy"
    """Copied byte by byte where any reader sees them upright, else written anew, upright."""
    LINK = "link"
    """As `COPY`, but symbolic links stand in for the copies."""
    NONE = "none"
    """Left out; the names of the files stay in the model."""


class MapFiles(StrEnum):
    """How depth and normal maps are written."""

    PNG = "png"
    """16 bits, with the scale in `g2vlm.json` beside them."""
    EXR = "exr"
    """32-bit floats."""
    NPY = "npy"
    """32-bit floats for numpy."""


class Upsampling(StrEnum):
    """How depth comes from the resolution of the network to that of the original photo."""

    NEAREST = "nearest"
    """The value of the nearest pixel: steps, but no invented value."""
    LINEAR = "linear"
    """Straight between pixels in inverse depth, which keeps planes flat; blends near and far at edges."""
    EDGES = "edges"
    """As `LINEAR` on surfaces; at depth edges the side whose colour the original pixel has."""


@dataclass(frozen=True, kw_only=True)
class SaveOptions:
    """Choices about files; each format heeds those that concern it.

    Raises:
        InputError: on construction, numbers out of range.
    """

    max_points: int | None = None
    """Keep at most this many points, the most confident one of each cube of a grid. Without it: 200,000 in
    colmap, nerfstudio and gaussians, all in the others."""
    frusta: bool = True
    """Show the cameras with their pictures in .glb, .usd and .rrd."""
    images: ImageFiles = ImageFiles.COPY
    """The original photos in colmap and nerfstudio: copy, link, or none."""
    photos: Path | None = None
    """Folder where the original photos lie now, if they were moved; found there by name."""
    shared_camera: bool = False
    """One set of intrinsics for all photos of one size in colmap, instead of one for each photo."""
    text: bool = False
    """Write the colmap model as text instead of binary."""
    maps: MapFiles = MapFiles.PNG
    """Files of depth and normals: png (16 bits), exr or npy (32-bit floats)."""
    upsampling: Upsampling = Upsampling.EDGES
    """How depth reaches the original size: nearest, linear, or edges (guided by the original photo)."""
    mesh_edge: float = 0.05
    """A mesh is cut where the corners of a triangle differ by more than this fraction of their depth."""
    voxel: float | None = None
    """Side of the cubes that tsdf fuses views in, in the unit of the scene; without it what one pixel covers
    at the median depth, or more where that would be too many."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.max_points is not None and self.max_points < 1:
            raise InputError(f"Expected max_points of at least 1, got {self.max_points}.")
        if not self.mesh_edge > 0:
            raise InputError(f"Expected mesh_edge above 0, got {self.mesh_edge}.")
        if self.voxel is not None and not self.voxel > 0:
            raise InputError(f"Expected a voxel side above 0, got {self.voxel}.")
