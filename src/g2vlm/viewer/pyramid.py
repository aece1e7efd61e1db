"""Level of detail: points as a pyramid of voxels, of which a picture needs only some.

Each point belongs to the coarsest grid in which it is the first of its cell; grids halve their cells from
level to level. A block is a cube of 128 cells a side with the points of one level in it: drawn together with
the eight finer blocks inside it, it is the cloud at the finer resolution. Blocks are contiguous in the order
of the pyramid, so that building is one sort, and any number of them is drawn without copying the rest.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt64

_BITS = 20
_BLOCK_BITS = 7
"""A block has 128 cells a side: some sixteen thousand points of a surface."""
_JOINED_POINTS = 30_000
"""A cube with fewer points than this has no finer blocks."""
FINEST_DEPTH = _BITS - _BLOCK_BITS
_SPACING_PX = 1.2
"""Blocks whose points lie nearer to each other than this in the picture need no finer ones."""


@dataclass(frozen=True)
class Block:
    """Points of one level in one cube."""

    number: int
    """Its place in `Pyramid.blocks`."""
    start: int
    """First of its points, in the order of the pyramid."""
    stop: int
    """Behind its last point."""
    centre: Float[np.ndarray, "3"]
    """Of the cube, in the unit of the scene."""
    radius: float
    """Of the sphere around the cube."""
    spacing: float
    """Side of its cells: about the distance between its points."""
    children: tuple[int, ...] = ()
    """Blocks of the next level inside the cube."""

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Eye:
    """From where a picture is taken."""

    position: Float[np.ndarray, "3"]
    """In the world."""
    forward: Float[np.ndarray, "3"]
    """Unit vector."""
    fov_rad: float
    """Vertical field of view."""
    aspect: float
    """Width over height."""
    height_px: float
    """Of the picture."""

    def pixels_of(self, length: float, distance: float) -> float:
        """How large a length appears at a distance."""
        return length / max(distance, 1e-9) * self.height_px / (2 * math.tan(self.fov_rad / 2))

    def sees(self, centre: np.ndarray, radius: float) -> bool:
        """Whether a sphere may be in the picture."""
        offset = centre - self.position
        distance = float(np.linalg.norm(offset))
        if distance <= radius:
            return True
        half = math.atan(math.tan(self.fov_rad / 2) * math.hypot(1, self.aspect))
        cosine = min(1.0, max(-1.0, float(offset @ self.forward) / distance))
        return math.acos(cosine) <= half + math.asin(radius / distance)


@dataclass(frozen=True)
class Pyramid:
    """An order of points in blocks, coarse ones first; see the module."""

    order: Int64[np.ndarray, " points"]
    """Which point of the cloud stands where."""
    blocks: tuple[Block, ...]
    """The first ones have no parent."""
    num_roots: int
    """How many of them have none."""

    def choose(self, eye: Eye, budget: int) -> list[Block]:
        """Blocks to draw: the ones that add most to the picture, within a number of points.

        Args:
            eye: the viewer.
            budget: at most so many points, except that the coarsest visible block is always drawn.
        """
        waiting: list[tuple[float, int]] = []
        chosen: list[Block] = []
        left = budget
        for number in range(self.num_roots):
            self._wait(waiting, number, eye)
        while waiting:
            gain, number = heapq.heappop(waiting)
            block = self.blocks[number]
            if chosen and len(block) > left:
                break
            chosen.append(block)
            left -= len(block)
            if -gain > _SPACING_PX:
                for child in block.children:
                    self._wait(waiting, child, eye)
        return chosen

    def _wait(self, waiting: list[tuple[float, int]], number: int, eye: Eye) -> None:
        block = self.blocks[number]
        if eye.sees(block.centre, block.radius):
            distance = float(np.linalg.norm(block.centre - eye.position)) - block.radius
            heapq.heappush(waiting, (-eye.pixels_of(block.spacing, max(distance, block.spacing)), number))


def build_pyramid(points: Float32[np.ndarray, "points 3"]) -> Pyramid:
    """Sort points into blocks.

    Args:
        points: finite; at least one.
    """
    low = points.min(axis=0).astype(np.float64)
    # A little more than the extent, so that the last point has a cell too.
    side = max(float((points.max(axis=0) - low).max()) * (1 + 1e-6), 1e-9)
    codes = _cell_codes(points, low, side)
    along = np.argsort(codes, kind="stable")
    codes = codes[along]
    # The coarsest grid in which a point and the one before it lie in different cells.
    differing = np.full(len(codes), 3 * _BITS, dtype=np.int64)
    differing[1:] = _bit_lengths(codes[1:] ^ codes[:-1])
    level = np.where(differing == 0, _BITS, _BITS - (differing - 1) // 3)
    depth = _joined(codes, np.clip(level - _BLOCK_BITS, 0, FINEST_DEPTH).astype(np.int64))
    by_depth = np.argsort(depth, kind="stable")
    order, codes, depth = along[by_depth], codes[by_depth], depth[by_depth]
    blocks, num_roots = _cut(codes, depth, low, side)
    return Pyramid(order, tuple(blocks), num_roots)


def _cell_codes(points: np.ndarray, low: np.ndarray, side: float) -> UInt64[np.ndarray, " points"]:
    """Numbers of the finest cells, with the bits of x, y and z in turn."""
    codes = np.zeros(len(points), dtype=np.uint64)
    for axis in range(3):
        cells = ((points[:, axis].astype(np.float64) - low[axis]) / side * (1 << _BITS)).astype(np.uint64)
        codes |= _spread_bits(cells) << np.uint64(axis)
    return codes


def _spread_bits(cells: np.ndarray) -> UInt64[np.ndarray, " points"]:
    """The same numbers with two zeros between any two bits."""
    for shift, mask in (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        cells = (cells | (cells << np.uint64(shift))) & np.uint64(mask)
    return cells


def _bit_lengths(numbers: np.ndarray) -> Int64[np.ndarray, " points"]:
    """Bits that each number needs; numbers of up to 60 bits."""
    high, low = (
        (numbers >> np.uint64(30)).astype(np.float64),
        (numbers & np.uint64(2**30 - 1)).astype(np.float64),
    )
    # The exponents of floats of up to 30 bits are exact.
    return np.where(high > 0, np.frexp(high)[1] + 30, np.frexp(low)[1]).astype(np.int64)


def _joined(codes: np.ndarray, depth: np.ndarray) -> Int64[np.ndarray, " points"]:
    """Depths where cubes with few points keep all of them, instead of many blocks with next to nothing.

    Args:
        codes: ascending.
        depth: of each point.
    """
    for level in range(FINEST_DEPTH):
        finer = depth >= level
        if not finer.any():
            break
        cube = codes >> np.uint64(3 * (_BITS - level))
        starts = np.flatnonzero(np.r_[True, cube[1:] != cube[:-1]])
        counts = np.add.reduceat(finer, starts, dtype=np.int64)
        few = np.repeat(counts <= _JOINED_POINTS, np.diff(np.r_[starts, len(codes)]))
        depth = np.where(few & finer, level, depth)
    return depth


def _cut(codes: np.ndarray, depth: np.ndarray, low: np.ndarray, side: float) -> tuple[list[Block], int]:
    """Blocks of points that are sorted by depth, and by code within it."""
    cube = codes >> (np.uint64(3) * (_BITS - depth).astype(np.uint64))
    starts = np.flatnonzero(np.r_[True, (cube[1:] != cube[:-1]) | (depth[1:] != depth[:-1])])
    stops = np.r_[starts[1:], len(codes)]
    names = [(int(depth[start]), int(cube[start])) for start in starts]
    numbers = {name: number for number, name in enumerate(names)}
    children: list[list[int]] = [[] for _ in names]
    roots = []
    for number, (own_depth, own_cube) in enumerate(names):
        parent = _parent(own_depth, own_cube, numbers)
        if parent is None:
            roots.append(number)
        else:
            children[parent].append(number)
    # A root lies at the lowest depth that has points: they come first.
    assert roots == list(range(len(roots)))
    blocks = []
    for number, (own_depth, own_cube) in enumerate(names):
        edge = side / 2**own_depth
        centre = low + (_corner(own_cube) + 0.5) * edge
        radius, spacing = edge * math.sqrt(3) / 2, edge / 2**_BLOCK_BITS
        span = int(starts[number]), int(stops[number])
        blocks.append(Block(number, *span, centre, radius, spacing, tuple(children[number])))
    return blocks, len(roots)


def _parent(depth: int, cube: int, numbers: dict[tuple[int, int], int]) -> int | None:
    """The nearest coarser block around a cube: a level may lack points there."""
    while depth > 0:
        depth, cube = depth - 1, cube >> 3
        if (number := numbers.get((depth, cube))) is not None:
            return number
    return None


def _corner(cube: int) -> Float[np.ndarray, "3"]:
    """Coordinates of a cube in its grid, from its number."""
    corner = [0, 0, 0]
    for bit in range(_BITS):
        for axis in range(3):
            corner[axis] |= (cube >> (3 * bit + axis) & 1) << bit
    return np.array(corner, dtype=np.float64)


def count_points(blocks: Sequence[Block]) -> int:
    """Points of some blocks together."""
    return sum(len(block) for block in blocks)
