"""What the photographic world is made of: opened from a folder, or procedural where there is none."""

import json
import logging
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, UInt8
from numpy import ndarray

from g2vlm.data.world.photo.drawn import drawn_surfaces
from g2vlm.data.world.photo.packing import (
    INDEX_FILE,
    PANORAMA_ROWS,
    VERSION,
    MeshEntry,
    TextureEntry,
    Triangles,
    mip_levels,
)
from g2vlm.data.world.textures import TEXTURES_OF, TextureStyle, texture_values
from g2vlm.errors import InputError

_log = logging.getLogger(__name__)
_PROCEDURAL_SIDE = 512
_USES_OF_STYLES = {
    TextureStyle.CLOUDS: ("wall", 2.5),
    TextureStyle.MARBLE: ("tile", 2.5),
    TextureStyle.PLANKS: ("floor", 2.5),
    TextureStyle.TILES: ("brick", 2.5),
    TextureStyle.MOSAIC: ("tile", 2.0),
    TextureStyle.SPOTS: ("ground", 2.0),
    TextureStyle.COLLAGE: ("picture", 1.0),
    TextureStyle.FIBRES: ("wood", 1.5),
}
_PALETTES = (
    ((70, 50, 38), (150, 112, 80), (214, 186, 150)),
    ((80, 84, 90), (150, 150, 148), (214, 212, 205)),
    ((46, 62, 80), (110, 130, 140), (196, 204, 200)),
)


def assets_folder() -> Path:
    """Where the library lies: `$G2VLM_ASSETS`, or `g2vlm/assets` in the user's cache folder."""
    named = os.environ.get("G2VLM_ASSETS")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "g2vlm" / "assets"


@dataclass(frozen=True, eq=False)
class Library:
    """Textures, meshes and panoramas; the arrays are mapped from files and shared by processes."""

    textures: tuple[TextureEntry, ...]
    meshes: tuple[MeshEntry, ...]
    texels: UInt8[ndarray, "texels 4"]
    triangles: Triangles
    """Of all meshes, one after the other."""
    panoramas: Float[ndarray, "panoramas rows columns 3"]
    """Linear RGB; the middle row is the horizon, the first one is up."""
    is_photographic: bool
    """False for the procedural one."""

    def of_use(self, *uses: str) -> tuple[int, ...]:
        """Indices of the textures for one of the uses."""
        return tuple(k for use in dict.fromkeys(uses) for k in self._by_use.get(use, ()))

    @cached_property
    def _by_use(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for k, entry in enumerate(self.textures):
            found.setdefault(entry.use, []).append(k)
        return found

    def plain_groups(self, entry: MeshEntry) -> list[Int64[ndarray, " triangles"]]:
        """Triangles of a mesh without a texture, those of one colour together."""
        if entry.first not in self._groups:
            faces = self.mesh(entry).faces
            plain = np.flatnonzero(faces[:, 0] < 0)
            _, which = np.unique(faces[plain, 1:5].round(3), axis=0, return_inverse=True)
            which = which.reshape(-1)
            self._groups[entry.first] = [plain[which == k] for k in range(which.max(initial=-1) + 1)]
        return self._groups[entry.first]

    @cached_property
    def _groups(self) -> dict[int, list[ndarray]]:
        return {}

    def mesh(self, entry: MeshEntry) -> Triangles:
        """Triangles of one mesh."""
        part = slice(entry.first, entry.first + entry.count)
        t = self.triangles
        return Triangles(t.corners[part], t.uv[part], t.normals[part], t.faces[part])

    def texture_table(self) -> Int64[ndarray, "textures 3"]:
        """First texel, side and whether it has holes, of every texture."""
        rows = [(entry.first, entry.side, int(entry.has_holes)) for entry in self.textures]
        return np.asarray(rows, dtype=np.int64).reshape(-1, 3)


def open_library(folder: Path) -> Library:
    """Map a library from its folder.

    Raises:
        InputError: the folder holds none, or one of another version.
    """
    path = folder / INDEX_FILE
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"Expected a library of assets in {folder}, got none ({error}): run scripts/collect_assets.py."
        ) from error
    if index.get("version") != VERSION:
        raise InputError(
            f"Expected a library of version {VERSION} in {folder}, got {index.get('version')}: run "
            "scripts/collect_assets.py again."
        )

    def mapped(name: str) -> ndarray:
        # Plain arrays over the mapped memory: the class of mapped arrays makes every slice slow.
        return np.load(folder / f"{name}.npy", mmap_mode="r").view(ndarray)

    meshes = [MeshEntry(**(row | {"size_m": tuple(row["size_m"])})) for row in index["meshes"]]
    return Library(
        tuple(TextureEntry(**row) for row in index["textures"]),
        tuple(meshes),
        mapped("texels"),
        Triangles(mapped("corners"), mapped("uv"), mapped("normals"), mapped("faces")),
        mapped("panoramas"),
        is_photographic=True,
    )


@lru_cache(maxsize=1)
def procedural_library() -> Library:
    """Coloured procedural textures, no meshes and a plain sky: what there is without any files."""
    entries, texels, first = [], [], 0
    for style, indices in TEXTURES_OF.items():
        use, size_m = _USES_OF_STYLES[style]
        for k, index in enumerate(indices):
            values = texture_values(index)
            ramp = np.asarray(_PALETTES[k % len(_PALETTES)], dtype=np.float64)
            colour = np.stack([np.interp(values, (0.0, 0.5, 1.0), ramp[:, c]) for c in range(3)], axis=-1)
            pixels = np.concatenate([colour, np.full((*values.shape, 1), 255.0)], axis=-1).astype(np.uint8)
            entries.append(TextureEntry(f"{style.value} {k}", use, first, _PROCEDURAL_SIDE, size_m))
            levels = [level.reshape(-1, 4) for level in mip_levels(pixels)]
            texels += levels
            first += sum(map(len, levels))
    for name, use, size_m, drawn in drawn_surfaces():
        entries.append(TextureEntry(name, use, first, len(drawn), size_m))
        levels = [level.reshape(-1, 4) for level in mip_levels(drawn)]
        texels += levels
        first += sum(map(len, levels))
    up = np.linspace(1.0, -1.0, PANORAMA_ROWS)[:, None, None]
    sky = np.where(up > 0, 1.2 + 0.8 * (1 - up), 0.35) * np.array([0.75, 0.9, 1.1])
    panorama = np.broadcast_to(sky, (PANORAMA_ROWS, 2 * PANORAMA_ROWS, 3)).astype(np.float16)
    none = Triangles(np.zeros((0, 3, 3)), np.zeros((0, 3, 2)), np.zeros((0, 3, 3)), np.zeros((0, 5)))
    return Library(tuple(entries), (), np.concatenate(texels), none, panorama[None], is_photographic=False)


@lru_cache(maxsize=2)
def _library(folder: Path) -> Library:
    if (folder / INDEX_FILE).is_file():
        return open_library(folder)
    _log.warning(
        "No photographic textures and furniture in %s: the photographic world falls back to procedural ones. "
        "scripts/collect_assets.py fetches them.",
        folder,
    )
    return procedural_library()


def the_library() -> Library:
    """The library of `assets_folder`, opened once; without it the procedural one, with a warning."""
    return _library(assets_folder())
