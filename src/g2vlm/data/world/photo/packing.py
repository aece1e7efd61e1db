"""Textures, meshes and panoramas laid out in a few flat files that several processes map into memory.

A folder holds `library.json` (what there is), `texels.npy` (RGBA bytes of all textures and their mip levels),
`corners.npy`, `uv.npy`, `normals.npy` and `faces.npy` (triangles of all meshes), and `panoramas.npy`.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

VERSION = 1
"""Of the layout; a library of another version is made anew."""
INDEX_FILE = "library.json"
PANORAMA_ROWS = 128
"""Rows of a panorama; it has twice as many columns."""


@dataclass(frozen=True)
class TextureEntry:
    """A square texture and where its texels begin."""

    name: str
    use: str
    """What it is for: "wall", "floor", "wood", "fabric", "metal", "ground", "mesh", "picture", ..."""
    first: int
    """First texel of the sharpest level; level l follows with a quarter of the texels."""
    side: int
    """Texels of a side of the sharpest level, a power of two; the last level has one."""
    size_m: float
    """Usual length of a side on a surface; 1 for textures of meshes, whose coordinates say it."""
    has_holes: bool = False
    """Whether some texels are transparent."""


@dataclass(frozen=True)
class MeshEntry:
    """A mesh: its triangles, its name and how it stands."""

    name: str
    noun: str
    place: str
    """Name of a `Support`."""
    first: int
    """First triangle."""
    count: int
    """Triangles."""
    size_m: tuple[float, float, float]
    """Width, height, depth."""
    up_m: float
    """Usual height of its lower side above the floor."""
    top_m: float | None
    """Height of a surface that can carry small objects."""
    colour: str
    """Name of its prevailing colour."""
    licence: str
    creator: str


@dataclass
class LibraryWriter:
    """Collects textures, meshes and panoramas, then writes them."""

    textures: list[TextureEntry] = field(default_factory=list)
    meshes: list[MeshEntry] = field(default_factory=list)
    panoramas: list[Float[ndarray, "rows columns 3"]] = field(default_factory=list)
    panorama_names: list[str] = field(default_factory=list)
    sources: list[dict[str, str]] = field(default_factory=list)
    """Package, version and licence of everything in it."""
    _means: list[ndarray] = field(default_factory=list)
    _texels: list[ndarray] = field(default_factory=list)
    _num_texels: int = 0
    _triangles: list[tuple[ndarray, ...]] = field(default_factory=list)
    _num_triangles: int = 0

    def add_texture(
        self, name: str, use: str, pixels: UInt8[ndarray, "side side 4"], size_m: float = 1.0
    ) -> int:
        """Add a square texture of a power of two, with its mip levels, and return its index."""
        side = len(pixels)
        if pixels.shape != (side, side, 4) or side & (side - 1):
            raise ValueError(f"Expected a square RGBA texture of a power of two, got {pixels.shape}.")
        holes = bool((pixels[..., 3] < 128).mean() > 0.01)
        self.textures.append(TextureEntry(name, use, self._num_texels, side, size_m, holes))
        self._means.append((pixels[..., :3].reshape(-1, 3) / 255.0).mean(0) ** 2.2)
        for level in mip_levels(pixels):
            self._texels.append(level.reshape(-1, 4))
            self._num_texels += level.shape[0] ** 2
        return len(self.textures) - 1

    def mean_colour(self, index: int) -> Float[ndarray, " 3"]:
        """Mean colour of a texture, linear RGB."""
        return self._means[index]

    def add_mesh(self, entry: MeshEntry, triangles: "Triangles") -> None:
        """Add a mesh; `first` and `count` of its entry are filled in."""
        count = len(triangles.corners)
        values = asdict(entry) | {"first": self._num_triangles, "count": count}
        self.meshes.append(MeshEntry(**values))
        self._triangles.append((triangles.corners, triangles.uv, triangles.normals, triangles.faces))
        self._num_triangles += count

    def write(self, folder: Path) -> None:
        """Write everything; the index comes last, so that a folder with one is complete."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX_FILE).unlink(missing_ok=True)
        corners, uv, normals, faces = (
            [np.concatenate(parts) for parts in zip(*self._triangles, strict=True)]
            if self._triangles
            else [np.zeros((0, 3, 3)), np.zeros((0, 3, 2)), np.zeros((0, 3, 3)), np.zeros((0, 5))]
        )
        np.save(folder / "texels.npy", np.concatenate(self._texels))
        np.save(folder / "corners.npy", corners.astype(np.float32))
        np.save(folder / "uv.npy", uv.astype(np.float32))
        np.save(folder / "normals.npy", normals.astype(np.float32))
        np.save(folder / "faces.npy", faces.astype(np.float32))
        shape = (0, PANORAMA_ROWS, 2 * PANORAMA_ROWS, 3)
        panoramas = np.stack(self.panoramas) if self.panoramas else np.zeros(shape)
        np.save(folder / "panoramas.npy", panoramas.astype(np.float16))
        index = {
            "version": VERSION,
            "textures": [asdict(entry) for entry in self.textures],
            "meshes": [asdict(entry) for entry in self.meshes],
            "panoramas": self.panorama_names,
            "sources": self.sources,
        }
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Triangles:
    """Triangles of one mesh in its own frame: x right, y up, z front, metres, the origin below its middle."""

    corners: Float[ndarray, "triangles 3 3"]
    uv: Float[ndarray, "triangles 3 2"]
    normals: Float[ndarray, "triangles 3 3"]
    faces: Float[ndarray, "triangles 5"]
    """Texture index or -1, linear RGB factor of the colour, gloss from 0 to 1."""


def mip_levels(pixels: UInt8[ndarray, "side side 4"]) -> list[UInt8[ndarray, "_ _ 4"]]:
    """The texture at full size, a half, a quarter, ... down to one texel."""
    levels = [pixels]
    values = pixels.astype(np.float32)
    while len(values) > 1:
        values = values.reshape(len(values) // 2, 2, len(values) // 2, 2, 4).mean(axis=(1, 3))
        levels.append(values.round().astype(np.uint8))
    return levels


def num_levels(side: Int[ndarray, " textures"]) -> Int[ndarray, " textures"]:
    """Mip levels of textures of so many texels a side."""
    return np.array([int(math.log2(value)) + 1 for value in side], dtype=np.int64)
