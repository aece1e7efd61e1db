"""Triangles of boxes, cylinders, ellipsoids and rectangles."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from g2vlm.data.world.furniture import Shape, SolidPart

_SEGMENTS = 20
_RINGS = 10
Mesh = tuple[Float[ndarray, "triangles 3 3"], Float[ndarray, "triangles 3 3"]]
"""Corners and normals."""


def rectangle(
    centre: Float[ndarray, " 3"], right: Float[ndarray, " 3"], up: Float[ndarray, " 3"]
) -> tuple[Float[ndarray, "2 3 3"], Float[ndarray, "2 3 2"]]:
    """Two triangles around a centre, and their places from -1 to 1 along both half axes."""
    square = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    corner = centre + square[:, :1] * right + square[:, 1:] * up
    order = np.array([[0, 1, 2], [0, 2, 3]])
    return corner[order], square[order]


def _grid(points: ndarray, normals: ndarray) -> Mesh:
    """Triangles of a grid of (rows, columns, 3) points."""
    a, b, c, d = points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]
    na, nb, nc, nd = normals[:-1, :-1], normals[:-1, 1:], normals[1:, 1:], normals[1:, :-1]
    corners = np.concatenate([np.stack([a, b, c], 2), np.stack([a, c, d], 2)]).reshape(-1, 3, 3)
    shading = np.concatenate([np.stack([na, nb, nc], 2), np.stack([na, nc, nd], 2)]).reshape(-1, 3, 3)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return corners[area > 1e-9], shading[area > 1e-9]


@lru_cache(maxsize=4)
def unit_solid(shape: Shape) -> Mesh:
    """The unit shape of a kind: corners and normals of its triangles."""
    if shape is Shape.BOX:
        corners, normals = [], []
        for axis in range(3):
            for sign in (-1.0, 1.0):
                basis = np.eye(3)
                out = basis[axis] * sign
                face, _ = rectangle(out, basis[(axis + 1) % 3], basis[(axis + 2) % 3])
                corners.append(face)
                normals.append(np.broadcast_to(out, face.shape))
        return np.concatenate(corners), np.concatenate(normals)
    turn = np.linspace(0.0, 2 * np.pi, _SEGMENTS + 1)
    ring = np.stack([np.cos(turn), np.zeros_like(turn), np.sin(turn)], axis=1)
    if shape is Shape.ELLIPSOID:
        tilt = np.linspace(-np.pi / 2, np.pi / 2, _RINGS + 1)[:, None, None]
        points = ring * np.cos(tilt) + np.array([0.0, 1.0, 0.0]) * np.sin(tilt)
        return _grid(points, points)
    top = np.array([0.0, 1.0, 0.0])
    side = _grid(np.stack([ring - top, ring + top]), np.stack([ring, ring]))
    caps = [
        _grid(
            np.stack([ring * 0.0 + top * sign, ring + top * sign]),
            np.broadcast_to(top * sign, (2, len(ring), 3)),
        )
        for sign in (-1.0, 1.0)
    ]
    return (
        np.concatenate([side[0], caps[0][0], caps[1][0]]),
        np.concatenate([side[1], caps[0][1], caps[1][1]]),
    )


def solid(part: SolidPart) -> Mesh:
    """Triangles of a part of an object in the object's frame (x right, y up, z front, metres)."""
    corners, normals = unit_solid(part.shape)
    half = np.asarray(part.half)
    scaled = normals / half
    return corners * half + np.asarray(part.centre), scaled / np.linalg.norm(scaled, axis=2, keepdims=True)


def box_coordinates(
    corners: Float[ndarray, "triangles 3 3"], normals: Float[ndarray, "triangles 3 3"]
) -> Float[ndarray, "triangles 3 2"]:
    """Coordinates in metres for textures, along the two axes that each triangle is least inclined to."""
    axis = np.abs(normals.mean(axis=1)).argmax(axis=1)
    along = np.array([[2, 1], [0, 2], [0, 1]])[axis]
    return np.take_along_axis(corners, along[:, None, :].repeat(3, axis=1), axis=2)
