"""The glTF 2.0 container: a JSON document and one binary buffer, written as `.glb`.

Only what scenes need: points, lines, triangles, pictures, unlit materials, cameras, a flat list of nodes.
"""

import io
import json
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from g2vlm.errors import OutputError
from g2vlm.scene.writing import atomic_path

POINTS, LINES, TRIANGLES = 0, 1, 4
"""Kinds of primitives."""

UNLIT = "KHR_materials_unlit"
"""Colours are shown as they are: a photo already has its light in it."""

_VERTEX_DATA, _INDEX_DATA = 34962, 34963
_COMPONENTS = {"uint32": 5125, "float32": 5126}
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_LARGEST = 2**32 - 1
_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942


def linear_colors(srgb: UInt8[np.ndarray, "*points 3"]) -> Float32[np.ndarray, "*points 3"]:
    """Colours for `COLOR_0`, which is linear light, 0 to 1.

    Floats, because bytes would crush the dark ones, and some readers take 16-bit integers for bytes.
    """
    value = np.arange(256) / 255.0
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)[srgb]


@dataclass
class GltfDocument:
    """A document that grows part by part; every `add` returns the index of what was added."""

    extras: dict[str, Any]
    """Application data of the scene."""
    _lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    _buffer: list[bytes] = field(default_factory=list)
    _length: int = 0

    def _append(self, kind: str, entry: dict[str, Any]) -> int:
        entries = self._lists.setdefault(kind, [])
        entries.append(entry)
        return len(entries) - 1

    def _add_bytes(self, data: bytes, target: int | None = None) -> int:
        """A part of the buffer, beginning at a multiple of four."""
        view = {"buffer": 0, "byteOffset": self._length, "byteLength": len(data)}
        padding = -len(data) % 4
        self._buffer += [data, b"\0" * padding]
        self._length += len(data) + padding
        if self._length > _LARGEST:
            raise OutputError("Expected less than 4 GiB for a .glb file, got more: set max_points.")
        return self._append("bufferViews", view if target is None else {**view, "target": target})

    def add_array(self, values: np.ndarray, *, is_index: bool = False, bounds: bool = False) -> int:
        """An accessor of rows of float32 or, for indices, uint32.

        Args:
            values: (count, components), or (count,) for indices.
            is_index: whether it holds indices of vertices.
            bounds: whether to state the smallest and largest values, as positions must.
        """
        values = np.ascontiguousarray(values)
        width = 1 if values.ndim == 1 else values.shape[1]
        entry: dict[str, Any] = {
            "bufferView": self._add_bytes(values.tobytes(), _INDEX_DATA if is_index else _VERTEX_DATA),
            "componentType": _COMPONENTS[values.dtype.name],
            "count": len(values),
            "type": _TYPES[width],
        }
        if bounds:
            entry |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        return self._append("accessors", entry)

    def add_picture(self, image: Image.Image, quality: int = 90) -> int:
        """A texture from a picture, stored as JPEG."""
        data = io.BytesIO()
        image.save(data, "JPEG", quality=quality)
        source = self._append(
            "images", {"bufferView": self._add_bytes(data.getvalue()), "mimeType": "image/jpeg"}
        )
        if "samplers" not in self._lists:
            linear, mipmaps, clamp = 9729, 9987, 33071
            sampler = {"magFilter": linear, "minFilter": mipmaps, "wrapS": clamp, "wrapT": clamp}
            self._append("samplers", sampler)
        return self._append("textures", {"source": source, "sampler": 0})

    def add_material(
        self, *, texture: int | None = None, color: tuple[float, ...] | None = None, both_sides: bool = False
    ) -> int:
        """An unlit material.

        Args:
            texture: from `add_picture`.
            color: linear red, green, blue, 0 to 1.
            both_sides: whether it is seen from behind as well.
        """
        surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        if texture is not None:
            surface["baseColorTexture"] = {"index": texture}
        if color is not None:
            surface["baseColorFactor"] = [*color, 1.0]
        entry: dict[str, Any] = {"pbrMetallicRoughness": surface, "extensions": {UNLIT: {}}}
        return self._append("materials", {**entry, "doubleSided": True} if both_sides else entry)

    def add_primitive(
        self,
        mode: int,
        positions: Float32[np.ndarray, "points 3"],
        material: int,
        *,
        indices: np.ndarray | None = None,
        **attributes: np.ndarray,
    ) -> dict[str, Any]:
        """Points, lines or triangles for `add_mesh`.

        Args:
            mode: `POINTS`, `LINES` or `TRIANGLES`.
            positions: at least one.
            material: from `add_material`.
            indices: of lines or triangles; the points in their order if None.
            attributes: further columns by their names in glTF (COLOR_0, TEXCOORD_0).
        """
        columns = {name: self.add_array(values) for name, values in sorted(attributes.items())}
        entry: dict[str, Any] = {
            "attributes": {"POSITION": self.add_array(positions, bounds=True), **columns},
            "mode": mode,
            "material": material,
        }
        if indices is not None:
            entry["indices"] = self.add_array(indices.astype(np.uint32).ravel(), is_index=True)
        return entry

    def add_mesh(self, name: str, primitives: list[dict[str, Any]]) -> int:
        """A mesh of primitives."""
        return self._append("meshes", {"name": name, "primitives": primitives})

    def add_camera(self, name: str, yfov_rad: float, aspect: float, znear: float) -> int:
        """A perspective camera without a far plane."""
        lens = {"yfov": yfov_rad, "aspectRatio": aspect, "znear": znear}
        return self._append("cameras", {"name": name, "type": "perspective", "perspective": lens})

    def add_node(self, name: str, **parts: Any) -> int:
        """A node at the top of the scene, with any of mesh, camera, matrix (column by column), extras."""
        return self._append("nodes", {"name": name, **parts})

    def document(self) -> dict[str, Any]:
        """The JSON part."""
        lists = {kind: entries for kind, entries in self._lists.items() if entries}
        unlit = {"extensionsUsed": [UNLIT]} if "materials" in lists else {}
        return {
            "asset": {"version": "2.0", "generator": "g2vlm"},
            **unlit,
            "scene": 0,
            "scenes": [{"nodes": list(range(len(self._lists["nodes"]))), "extras": self.extras}],
            **lists,
            "buffers": [{"byteLength": self._length}],
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the `.glb` file, completely or not at all.

        Raises:
            OutputError: more than 4 GiB, or a place that cannot be written.
        """
        text = json.dumps(self.document(), ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        total = 12 + 8 + len(text) + 8 + self._length
        if total > _LARGEST:
            raise OutputError("Expected less than 4 GiB for a .glb file, got more: set max_points.")
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
            file.write(struct.pack("<4sII", b"glTF", 2, total))
            file.write(struct.pack("<II", len(text), _JSON_CHUNK) + text)
            file.write(struct.pack("<II", self._length, _BINARY_CHUNK))
            for part in self._buffer:
                file.write(part)
