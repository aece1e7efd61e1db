"""`g2vlm data show`: some frames of a scene at a glance, and their points in one world."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image, ImageDraw

from g2vlm.data.posed_frame import PosedFrame
from g2vlm.data.shards.framing import framed
from g2vlm.data.shards.reading import PreparedData, SceneIndex
from g2vlm.errors import InputError
from g2vlm.scene.coloring import color_depth, map_colors

_TILE_PX, _GAP_PX, _PLAN_PX = 200, 4, 404
_POINTS_OF_A_FRAME = 40_000


@dataclass(frozen=True, eq=False)
class ShownScene:
    """Frames of one scene that are looked at."""

    name: str
    frames: tuple[PosedFrame, ...]
    overlap: Float[np.ndarray, "views views"]


def shown_scene(data: PreparedData, name: str | None, count: int) -> ShownScene:
    """Evenly spread frames of a scene.

    Args:
        data: where it is.
        name: which scene; the first one without it.
        count: how many frames.

    Raises:
        InputError: there is no such scene.
    """
    known = {scene.name: scene for scene in data.scenes}
    if name is not None and name not in known:
        some = ", ".join(list(known)[:5])
        raise InputError(f"Expected a scene of {data.place} ({some}, ...), got {name!r}.")
    scene: SceneIndex = data.scenes[0] if name is None else known[name]
    numbers = np.unique(np.linspace(0, len(scene) - 1, min(count, len(scene))).round().astype(int))
    frames = tuple(data[scene.first + int(k)] for k in numbers)
    return ShownScene(scene.name, frames, data.overlap(scene)[np.ix_(numbers, numbers)])


def scene_sheet(scene: ShownScene) -> Image.Image:
    """Pictures above their depth; below, the cameras seen from above and who sees what.

    In the plan of cameras each one looks along its line. In the square of overlaps, row k shows in bright
    colours which views see much of what view k sees.
    """
    columns = min(len(scene.frames), 8)
    width, height = scene.frames[0].size
    tile = (_TILE_PX, max(1, round(_TILE_PX * height / width)))
    views = [framed(frame, tile) for frame in scene.frames]
    known = np.concatenate([view.depth[view.valid] for view in views])
    near, far = np.percentile(known, (2, 98)) if known.size else (1.0, 2.0)
    rows = -(-len(views) // columns)
    step = (tile[0] + _GAP_PX, 2 * tile[1] + 2 * _GAP_PX)
    total = (max(columns * step[0], 2 * _PLAN_PX + _GAP_PX), rows * step[1] + _PLAN_PX)
    sheet = Image.new("RGB", total, "white")
    for k, view in enumerate(views):
        left, top = (k % columns) * step[0], (k // columns) * step[1]
        depth = color_depth(view.depth, view.valid, float(near), float(far))
        sheet.paste(Image.fromarray(view.rgb), (left, top))
        sheet.paste(Image.fromarray(depth), (left, top + tile[1] + _GAP_PX))
    sheet.paste(_plan(scene.frames), (0, rows * step[1]))
    square = map_colors(scene.overlap.ravel(), "viridis").reshape(*scene.overlap.shape, 3)
    grid = Image.fromarray(square).resize((_PLAN_PX, _PLAN_PX), Image.Resampling.NEAREST)
    sheet.paste(grid, (_PLAN_PX + _GAP_PX, rows * step[1]))
    return sheet


def _plan(frames: Sequence[PosedFrame]) -> Image.Image:
    """Cameras from above: along the direction that is most nearly upright for all of them."""
    poses = np.stack([frame.T_world_camera for frame in frames])
    up = poses[:, :3, 1].mean(axis=0)
    up = up / max(np.linalg.norm(up), 1e-9)
    # Two directions in the plane that the mean of the cameras' y axes is upright on.
    across = np.linalg.svd(np.eye(3) - np.outer(up, up))[0][:, :2]
    places, looks = poses[:, :3, 3] @ across, poses[:, :3, 2] @ across
    middle, half = places.mean(axis=0), max(float(np.ptp(places, axis=0).max()), 1e-6) * 0.75
    image = Image.new("RGB", (_PLAN_PX, _PLAN_PX), "#f4f4f4")
    draw = ImageDraw.Draw(image)
    pixels = ((places - middle) / half * 0.5 + 0.5) * (_PLAN_PX - 1)
    colours = map_colors(np.linspace(0, 1, len(frames)), "turbo")
    for (x, y), (dx, dy), colour in zip(pixels, looks, colours, strict=True):
        fill = tuple(int(c) for c in colour)
        draw.line([(x, y), (x + 24 * dx, y + 24 * dy)], fill=fill, width=2)
        draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=fill)
    return image


def fused_points(
    scene: ShownScene,
) -> tuple[Float32[np.ndarray, "points 3"], UInt8[np.ndarray, "points 3"]]:
    """Points and colours of all frames in their common world, some ten thousand of each frame.

    Raises:
        InputError: no frame has depth.
    """
    points, colours = [], []
    for frame in scene.frames:
        width, height = frame.size
        factor = min(1.0, (_POINTS_OF_A_FRAME / (width * height)) ** 0.5)
        view = framed(frame, (max(1, round(width * factor)), max(1, round(height * factor))))
        v, u = np.nonzero(view.valid)
        z = view.depth[v, u].astype(np.float64)
        rays = np.linalg.solve(view.K, np.stack([u, v, np.ones_like(u)]).astype(np.float64))
        local = (rays * z).T
        points.append(local @ view.T_world_camera[:3, :3].T + view.T_world_camera[:3, 3])
        colours.append(view.rgb[v, u])
    if not any(map(len, points)):
        raise InputError(f"Expected depth in {scene.name} to write points, found none: ask for a .png alone.")
    return np.concatenate(points).astype(np.float32), np.concatenate(colours)
