"""Reads catalogues of furniture (Sweet Home 3D libraries) into triangles of known size."""

import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from g2vlm.data.world.palette import COLOURS
from g2vlm.data.world.photo.nouns import noun_of
from g2vlm.data.world.photo.packing import LibraryWriter, MeshEntry, Triangles

MOST_TRIANGLES = 2500
"""Finer meshes are coarsened: pictures of a few hundred pixels do not show more."""
MESH_TEXELS = 128
CREASE = 0.5
"""Cosine of the angle beyond which an edge stays sharp."""


@dataclass(frozen=True)
class _Surface:
    """A material of an OBJ file."""

    colour: tuple[float, float, float] = (0.7, 0.7, 0.7)
    texture: str | None = None
    opacity: float = 1.0
    shininess: float = 0.0


def _catalogue(archive: zipfile.ZipFile) -> Iterator[dict[str, str]]:
    """Properties of every piece of a library, and the licence of all of them."""
    text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1").replace("\\\n", "")
    pieces: dict[int, dict[str, str]] = {}
    licence = ""
    for line in text.splitlines():
        if found := re.match(r"(\w+)#(\d+)=(.*)", line):
            pieces.setdefault(int(found[2]), {})[found[1]] = found[3].strip()
        elif line.startswith("license="):
            licence = line.split("=", 1)[1]
    for piece in pieces.values():
        yield piece | {"licence": licence}


def _surfaces(text: str) -> dict[str, _Surface]:
    """Materials of an MTL file by name."""
    surfaces: dict[str, _Surface] = {}
    name, values = "", {}
    for line in [*text.splitlines(), "newmtl "]:
        words = line.split()
        if not words:
            continue
        if words[0] == "newmtl":
            if name:
                surfaces[name] = _Surface(**values)
            name, values = line.split(maxsplit=1)[1].strip() if len(words) > 1 else "", {}
        elif words[0] == "Kd" and len(words) >= 4:
            values["colour"] = tuple(float(value) for value in words[1:4])
        elif words[0] == "d" and len(words) == 2:
            values["opacity"] = float(words[1])
        elif words[0] == "Ns" and len(words) == 2:
            values["shininess"] = float(words[1])
        elif words[0] == "map_Kd":
            values["texture"] = line.split(maxsplit=1)[1].strip()
    return surfaces


@dataclass
class _Faces:
    """Triangles of an OBJ file: indices of positions and of texture coordinates, and materials."""

    positions: np.ndarray
    uv: np.ndarray
    corner: np.ndarray
    corner_uv: np.ndarray
    material: list[str]


def _faces(text: str) -> _Faces:
    positions, uvs, corner, corner_uv, material = [], [], [], [], []
    current = ""
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            positions.append([float(value) for value in words[1:4]])
        elif words[0] == "vt":
            uvs.append([float(value) for value in words[1:3]])
        elif words[0] == "usemtl":
            current = line.split(maxsplit=1)[1].strip()
        elif words[0] == "f":
            parts = [word.split("/") for word in words[1:]]
            index = [int(part[0]) for part in parts]
            texture = [int(part[1]) if len(part) > 1 and part[1] else 0 for part in parts]
            for k in range(1, len(parts) - 1):
                corner.append([index[0], index[k], index[k + 1]])
                corner_uv.append([texture[0], texture[k], texture[k + 1]])
                material.append(current)
    at = np.asarray(corner, dtype=np.int64).reshape(-1, 3)
    at_uv = np.asarray(corner_uv, dtype=np.int64).reshape(-1, 3)
    # OBJ counts from 1, and from the end with negative numbers; row 0 stands for no coordinate.
    at = np.where(at < 0, at + len(positions), at - 1)
    at_uv = np.where(at_uv < 0, at_uv + len(uvs) + 1, at_uv)
    return _Faces(np.asarray(positions), np.asarray([[0.0, 0.0], *uvs]), at, at_uv, material)


def coarsened(corners: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners of triangles moved onto the middles of cells of a grid, until few enough triangles are left.

    Returns:
        Corners of all triangles, and which of them are left.
    """
    keep = np.ones(len(corners), dtype=bool)
    points = corners.reshape(-1, 3)
    cells = 160
    while keep.sum() > most and cells > 8:
        size = np.ptp(points, axis=0).max() / cells
        _, cell = np.unique(np.floor(points / size).astype(np.int64), axis=0, return_inverse=True)
        cell = cell.reshape(-1)
        count = np.bincount(cell)
        middle = np.stack([np.bincount(cell, points[:, k]) / count for k in range(3)], axis=1)
        moved, triple = middle[cell].reshape(-1, 3, 3), cell.reshape(-1, 3)
        distinct = (
            (triple[:, 0] != triple[:, 1]) & (triple[:, 1] != triple[:, 2]) & (triple[:, 0] != triple[:, 2])
        )
        _, first = np.unique(np.sort(triple, axis=1), axis=0, return_index=True)
        unique = np.zeros(len(triple), dtype=bool)
        unique[first] = True
        keep, corners = distinct & unique, moved
        cells = int(cells * 0.8)
    return corners, keep


def smooth_normals(corners: np.ndarray) -> np.ndarray:
    """Unit normals at the corners of triangles, averaged over neighbours but across creases."""
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-12)
    size = max(float(np.ptp(corners.reshape(-1, 3), axis=0).max()), 1e-6)
    _, point = np.unique((corners.reshape(-1, 3) / size * 4096).round(), axis=0, return_inverse=True)
    point = point.reshape(-1)
    total = np.stack([np.bincount(point, np.repeat(cross[:, k], 3)) for k in range(3)], axis=1)
    mean = total[point].reshape(-1, 3, 3)
    mean = mean / np.maximum(np.linalg.norm(mean, axis=2, keepdims=True), 1e-12)
    sharp = (mean * flat[:, None]).sum(-1, keepdims=True) < CREASE
    return np.where(sharp, flat[:, None], mean)


def _square(data: bytes, side: int) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA").resize((side, side), Image.Resampling.LANCZOS))


def _colour_name(rgb: np.ndarray) -> str:
    """Name of the colour nearest to a linear RGB value."""
    perceived = {name: np.cbrt(np.asarray(value)) for name, value in COLOURS.items()}
    return min(perceived, key=lambda name: float(np.square(perceived[name] - np.cbrt(rgb)).sum()))


class LibraryReader:
    """Adds the pieces of one Sweet Home 3D library to a writer."""

    def __init__(self, path: Path, writer: LibraryWriter) -> None:
        self.archive, self.writer = zipfile.ZipFile(path), writer
        self.names = set(self.archive.namelist())
        self.textures: dict[str, int] = {}

    def add_all(self) -> int:
        """Add every piece that has a place in a room; returns how many."""
        return sum(self._add(piece) for piece in _catalogue(self.archive))

    def _texture(self, folder: PurePosixPath, name: str | None) -> int:
        """Index of a texture, -1 without one."""
        path = str(folder / (name or "")).lstrip("/")
        if name is None or path not in self.names:
            return -1
        if path not in self.textures:
            pixels = _square(self.archive.read(path), MESH_TEXELS)
            self.textures[path] = self.writer.add_texture(path, "mesh", pixels)
        return self.textures[path]

    def _add(self, piece: dict[str, str]) -> bool:
        width, height, depth = (float(piece[key]) / 100 for key in ("width", "height", "depth"))
        found = noun_of(piece["name"], (width, height, depth))
        model = PurePosixPath(piece["model"].lstrip("/"))
        if found is None or str(model) not in self.names:
            return False
        triangles = self._triangles(model, piece, np.array([width, height, depth]))
        if triangles is None:
            return False
        top = piece.get("dropOnTopElevation")
        noun, place = found
        entry = MeshEntry(
            name=piece["name"],
            noun=noun,
            place=place.name,
            first=0,
            count=0,
            size_m=(width, height, depth),
            up_m=float(piece.get("elevation", 0) or 0) / 100,
            top_m=float(top) / 100 if top and float(top) > 0 else None,
            colour=self._colour(triangles),
            licence=piece["licence"],
            creator=piece.get("creator", ""),
        )
        self.writer.add_mesh(entry, triangles)
        return True

    def _colour(self, triangles: Triangles) -> str:
        corners = triangles.corners
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        area = np.linalg.norm(cross, axis=1)
        factor = triangles.faces[:, 1:4].copy()
        for index in np.unique(triangles.faces[:, 0]).astype(int):
            if index >= 0:
                factor[triangles.faces[:, 0] == index] *= self.writer.mean_colour(index)
        return _colour_name((factor * area[:, None]).sum(0) / max(area.sum(), 1e-12))

    def _triangles(self, model: PurePosixPath, piece: dict[str, str], size_m: np.ndarray) -> Triangles | None:
        text = self.archive.read(str(model)).decode("latin-1")
        faces = _faces(text)
        library = re.search(r"^mtllib (.+)$", text, re.MULTILINE)
        path = str(model.parent / library[1].strip()) if library else ""
        known = _surfaces(self.archive.read(path).decode("latin-1")) if path in self.names else {}
        if not len(faces.corner):
            return None
        positions = faces.positions
        if rotation := piece.get("modelRotation"):
            positions = positions @ np.asarray([float(v) for v in rotation.split()]).reshape(3, 3).T
        low, extent = positions.min(0), np.ptp(positions, axis=0)
        positions = (positions - low) / np.maximum(extent, 1e-9) * size_m - size_m * [0.5, 0.0, 0.5]
        surfaces = [known.get(name, _Surface()) for name in faces.material]
        corners, keep = coarsened(positions[faces.corner], MOST_TRIANGLES)
        # Glass is left out: what a depth camera sees there is not one surface.
        keep &= np.array([surface.opacity > 0.5 for surface in surfaces])
        keep &= (
            np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
            > 1e-9
        )
        if keep.sum() < 4 or keep.sum() > 2 * MOST_TRIANGLES:
            return None
        rows = {
            name: self._face_row(model.parent, known.get(name, _Surface())) for name in set(faces.material)
        }
        uv = faces.uv[faces.corner_uv] * [1.0, -1.0]
        table = np.asarray([rows[name] for name in faces.material])
        return Triangles(corners[keep], uv[keep], smooth_normals(corners[keep]), table[keep])

    def _face_row(self, folder: PurePosixPath, surface: _Surface) -> list[float]:
        texture = self._texture(folder, surface.texture)
        # A texture shows its own colours; the diffuse colour beside it is mostly left over from modelling.
        colour = (
            (1.0, 1.0, 1.0) if texture >= 0 else tuple(min(max(c, 0.02), 0.9) ** 1.6 for c in surface.colour)
        )
        return [float(texture), *colour, min(surface.shininess / 300.0, 0.8)]
